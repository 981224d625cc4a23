"""Sealed artifacts in the object store: written from open files and into open files, in bounded memory.

Knows no keys' origin and no names' meaning: whoever calls has the data key.
"""

import asyncio
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from stoker.packaging.artifacts import (
    HEADER_BYTES,
    SEALED_SEGMENT_BYTES,
    SEGMENT_BYTES,
    SealedArtifact,
    seal,
    write_all,
)
from stoker.services.object_store import ObjectStore

AT_ONCE_BYTES: Final = 1024 * 1024
"""Up to this size artifacts are sealed and opened in place; larger ones in a thread, in pieces ..."""

WINDOW_SEGMENTS: Final = 16
"""... of this many segments: all that is in memory of an artifact of any size."""


class SealedObjects:
    """``staging`` is a folder for sealed files on their way to the store."""

    def __init__(self, store: ObjectStore, staging: Path) -> None:
        self._store = store
        self._staging = staging

    def start(self) -> None:
        """Make the folder and remove what a killed process left there."""
        self._staging.mkdir(parents=True, exist_ok=True, mode=0o700)
        for leftover in self._staging.iterdir():
            leftover.unlink()

    async def put(self, where: str, name: str, key: bytes, files: tuple[int, ...], size_bytes: int) -> None:
        """Seal ``size_bytes`` of open files, one behind the other, and store them.

        Raises:
            ObjectStoreUnavailable, OSError
        """
        pieces = sealed_files(name, key, files, size_bytes)
        if size_bytes <= AT_ONCE_BYTES:
            await self._store.put(where, b"".join(pieces))
            return
        staged = self._staging / secrets.token_hex(8)
        try:
            await uninterrupted(lambda: _write_file(staged, pieces))
            await self._store.put_file(where, staged)
        finally:
            staged.unlink(missing_ok=True)

    async def copy(
        self, where: str, name: str, key: bytes, file: int, *, wanted: tuple[int, int] | None = None
    ) -> None:
        """Write the plaintext, or ``wanted`` (offset, size) of it, to an open file.

        Raises:
            ObjectMissing: there is none.
            ArtifactDamaged, ObjectStoreUnavailable, OSError
        """
        window = _Window(await self._store.get_range(where, 0, HEADER_BYTES))
        stored_bytes = await self._store.size_bytes(where) or 0
        artifact = SealedArtifact(window.read_at, stored_bytes, key, name)
        offset, left = wanted or (0, artifact.plain_bytes)
        while True:
            first = offset // SEGMENT_BYTES
            size = min(left, (first + WINDOW_SEGMENTS) * SEGMENT_BYTES - offset)
            window.start = HEADER_BYTES + first * SEALED_SEGMENT_BYTES
            sealed_bytes = WINDOW_SEGMENTS * SEALED_SEGMENT_BYTES
            window.content = await self._store.get_range(where, window.start, sealed_bytes)
            await _copy_window(artifact, offset, size, file)
            offset, left = offset + size, left - size
            if not left:
                return


def sealed_files(name: str, key: bytes, files: tuple[int, ...], size_bytes: int) -> Iterator[bytes]:
    """The sealed artifact of open files, one behind the other, a segment at a time."""
    return seal(_Chain(files).read, size_bytes, key, name)


class _Window:
    """A part of a sealed object, read as if it were all there."""

    def __init__(self, content: bytes) -> None:
        self.start = 0
        self.content = content

    def read_at(self, offset: int, size_bytes: int) -> bytes:
        return self.content[offset - self.start : offset - self.start + size_bytes]


class _Chain:
    """Reads open files from their starts, one behind the other."""

    def __init__(self, files: tuple[int, ...]) -> None:
        self._files = list(files)
        self._offset = 0

    def read(self, size_bytes: int) -> bytes:
        content = b""
        while self._files and len(content) < size_bytes:
            piece = os.pread(self._files[0], size_bytes - len(content), self._offset)
            self._offset += len(piece)
            content = content + piece if content else piece
            if not piece:
                del self._files[0]
                self._offset = 0
        return content


async def _copy_window(artifact: SealedArtifact, offset: int, size_bytes: int, file: int) -> None:
    pieces = artifact.read(offset, size_bytes)
    if size_bytes <= AT_ONCE_BYTES:
        write_all(file, pieces)
    else:
        await uninterrupted(lambda: write_all(file, pieces))


async def uninterrupted(work: Callable[[], object]) -> None:
    """Run in a thread that is through with its descriptors when this ends, also by a cancellation."""
    working = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        await asyncio.shield(working)
    except asyncio.CancelledError:
        await asyncio.wait([working])
        raise


def _write_file(file: Path, pieces: Iterator[bytes]) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        write_all(descriptor, pieces)
    finally:
        os.close(descriptor)
