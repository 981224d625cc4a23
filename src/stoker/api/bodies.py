"""Bodies too large to come whole: read only for callers whose key, scope and date are good, and hashed.

Until the signature is verified they are bytes of a stranger, so what all of them hold together is capped.
"""

import asyncio
import hashlib
import mmap
import tempfile
from typing import Final

import msgspec

from stoker.core.errors import ServiceError
from stoker.http.errors import BodyBroken, BodyTooLarge
from stoker.http.messages import BodyStream

HASH_SLICE_BYTES: Final = 64 * 1024
"""Hashed (and written) between two turns of the event loop."""
MEMORY_MAX_BYTES: Final = 8 * 1024 * 1024
"""Bodies that may be larger are spooled to a file."""
UNVERIFIED_MAX_BYTES: Final = 1024 * 1024 * 1024
"""What all unverified bodies may hold together, in memory and in files."""


class SpooledBody(msgspec.Struct, eq=False):
    """A whole body and its hash in hex."""

    content: bytes | mmap.mmap
    sha256: bytes

    def view(self) -> bytes | memoryview:
        """The content without a copy."""
        return self.content if isinstance(self.content, bytes) else memoryview(self.content)


class _Sink:
    """Where the pieces of one body go: memory while that is allowed, otherwise a file without a name."""

    def __init__(self, limit_bytes: int, directory: str | None) -> None:
        self._digest = hashlib.sha256()
        self._pieces: list[bytes] = []
        self._file = None
        if limit_bytes > MEMORY_MAX_BYTES:
            self._file = tempfile.TemporaryFile(dir=directory, buffering=0)  # noqa: SIM115 closed in close()
        self.size_bytes = 0

    def add(self, piece: bytes) -> None:
        """Take the next piece."""
        self._digest.update(piece)
        self.size_bytes += len(piece)
        if self._file is None:
            self._pieces.append(piece)
        else:
            self._file.write(piece)

    def finish(self) -> SpooledBody:
        """All pieces as one body."""
        sha256 = self._digest.hexdigest().encode()
        if self._file is None or not self.size_bytes:
            return SpooledBody(b"".join(self._pieces), sha256)
        mapped = mmap.mmap(self._file.fileno(), self.size_bytes, access=mmap.ACCESS_READ)
        return SpooledBody(mapped, sha256)

    def close(self) -> None:
        """Let go of the file; a body already mapped stays readable."""
        if self._file is not None:
            self._file.close()


class BodyReader:
    """Reads streams under one common cap."""

    def __init__(self, spool_directory: str | None = None, cap_bytes: int = UNVERIFIED_MAX_BYTES) -> None:
        self._directory = spool_directory
        self._cap_bytes = cap_bytes
        self._held_bytes = 0

    @property
    def held_bytes(self) -> int:
        """What unverified bodies hold now."""
        return self._held_bytes

    async def read(self, stream: BodyStream, limit_bytes: int, too_large: ServiceError) -> SpooledBody:
        """The whole body.

        Raises:
            ServiceError: ``too_large`` above ``limit_bytes``, ServiceUnavailableException above the cap,
                SerializationException when the client's framing is broken.
            PeerVanished: the client is gone.
        """
        if stream.size_bytes is not None and stream.size_bytes > limit_bytes:
            raise too_large
        sink = _Sink(limit_bytes, self._directory)
        try:
            async for chunk in stream:
                if sink.size_bytes + len(chunk) > limit_bytes:
                    raise too_large
                await self._take(sink, chunk)
            return sink.finish()
        except BodyTooLarge:
            raise too_large from None
        except BodyBroken:
            raise ServiceError("SerializationException", "The request body ended early.") from None
        finally:
            self._held_bytes -= sink.size_bytes
            sink.close()

    async def _take(self, sink: _Sink, chunk: bytes) -> None:
        if self._held_bytes + len(chunk) > self._cap_bytes:
            raise ServiceError("ServiceUnavailableException", "Too many large requests at one time.")
        for start in range(0, len(chunk), HASH_SLICE_BYTES):
            if start:
                await asyncio.sleep(0)
            piece = chunk[start : start + HASH_SLICE_BYTES]
            sink.add(piece)
            self._held_bytes += len(piece)
