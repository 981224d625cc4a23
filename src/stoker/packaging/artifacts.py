"""Sealed artifacts: bytes of any length as AES-256-GCM segments, written and read in a stream or by range.

Knows no store and no key service: whoever seals has a data key. The layout: HEADER_BYTES (magic, salt), then
segments of SEGMENT_BYTES of plaintext with TAG_BYTES each; the last one is shorter, and there is always one.
"""

import hashlib
import hmac
import os
import secrets
from collections.abc import Callable, Iterator
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from stoker.core.errors import StokerError

SEGMENT_BYTES: Final = 256 * 1024
TAG_BYTES: Final = 16
SEALED_SEGMENT_BYTES: Final = SEGMENT_BYTES + TAG_BYTES

_MAGIC: Final = b"stoker sealed 1\n"
_SALT_BYTES: Final = 16
HEADER_BYTES: Final = len(_MAGIC) + _SALT_BYTES
_LAST: Final = b"\x01"
_NOT_LAST: Final = b"\x00"

Buffer = bytes | bytearray | memoryview
ReadAt = Callable[[int, int], bytes]
"""``(offset, size_bytes)`` of a sealed artifact; less only at its end."""


class ArtifactDamaged(StokerError):
    """What is stored is not what was sealed under that name and key."""


def sealed_bytes(plain_bytes: int) -> int:
    """How long an artifact of ``plain_bytes`` is once it is sealed."""
    return HEADER_BYTES + plain_bytes + TAG_BYTES * _segments(plain_bytes)


def seal(read: Callable[[int], Buffer], plain_bytes: int, key: bytes, name: str) -> Iterator[bytes]:
    """The sealed artifact, a segment at a time.

    ``read(size)`` gives the next ``size`` bytes of the plaintext. ``key`` may seal any number of artifacts:
    each is sealed under a key of its own, derived with a fresh salt. ``name`` is authenticated, not stored.

    Raises:
        ArtifactDamaged: ``read`` had less than ``plain_bytes``.
    """
    salt = secrets.token_bytes(_SALT_BYTES)
    cipher = _cipher(key, salt, name)
    yield _MAGIC + salt
    segments = _segments(plain_bytes)
    for index in range(segments):
        size_bytes = min(SEGMENT_BYTES, plain_bytes - index * SEGMENT_BYTES)
        plain = read(size_bytes)
        if len(plain) != size_bytes:
            raise ArtifactDamaged(f"{name} ended before {plain_bytes} bytes while it was sealed")
        yield cipher.encrypt(_nonce(index), plain, _bound(name, index, last=index == segments - 1))


def seal_bytes(plain: Buffer, key: bytes, name: str) -> bytes:
    """A small artifact at once."""
    view = memoryview(plain)
    taken = 0

    def read(size_bytes: int) -> memoryview:
        nonlocal taken
        taken += size_bytes
        return view[taken - size_bytes : taken]

    return b"".join(seal(read, len(view), key, name))


class SealedArtifact:
    """Opens any range of a sealed artifact; reads whole segments and gives nothing that it did not verify."""

    def __init__(self, read_at: ReadAt, size_bytes: int, key: bytes, name: str) -> None:
        """``size_bytes`` is the sealed length.

        Raises:
            ArtifactDamaged: it is no artifact.
        """
        self._read_at = read_at
        self._name = name
        body = size_bytes - HEADER_BYTES
        self._segments = max(-(-body // SEALED_SEGMENT_BYTES), 0)
        self.plain_bytes = body - self._segments * TAG_BYTES
        head = read_at(0, HEADER_BYTES)
        if len(head) != HEADER_BYTES or head[: len(_MAGIC)] != _MAGIC or not self._is_possible():
            raise ArtifactDamaged(f"{name} is not a sealed artifact")
        self._cipher = _cipher(key, head[len(_MAGIC) :], name)

    def _is_possible(self) -> bool:
        return self.plain_bytes >= 0 and self._segments == _segments(self.plain_bytes)

    def read(self, offset: int, size_bytes: int) -> Iterator[bytes]:
        """``size_bytes`` of plaintext from ``offset``, a segment at a time.

        Raises:
            ArtifactDamaged: a segment was changed, cut, moved, or belongs to another artifact; or there are
                not as many bytes.
        """
        end = offset + size_bytes
        if offset < 0 or size_bytes < 0:
            raise ValueError(f"not a range: {offset}, {size_bytes}")
        if end > self.plain_bytes:
            raise ArtifactDamaged(f"{self._name} ends at {self.plain_bytes}, before {end}")
        first, last = offset // SEGMENT_BYTES, max(end - 1, offset) // SEGMENT_BYTES
        for index in range(first, min(last, self._segments - 1) + 1):
            base = index * SEGMENT_BYTES
            yield self._segment(index)[max(offset - base, 0) : end - base]

    def _segment(self, index: int) -> bytes:
        sealed = self._read_at(HEADER_BYTES + index * SEALED_SEGMENT_BYTES, SEALED_SEGMENT_BYTES)
        try:
            bound = _bound(self._name, index, last=index == self._segments - 1)
            return self._cipher.decrypt(_nonce(index), sealed, bound)
        except (InvalidTag, ValueError) as problem:
            raise ArtifactDamaged(f"{self._name} is damaged in segment {index}") from problem


def open_bytes(sealed: Buffer, key: bytes, name: str) -> bytes:
    """The whole of a small artifact.

    Raises:
        ArtifactDamaged
    """
    view = memoryview(sealed)
    artifact = SealedArtifact(lambda offset, size: bytes(view[offset : offset + size]), len(view), key, name)
    return b"".join(artifact.read(0, artifact.plain_bytes))


def write_all(file: int, chunks: Iterator[bytes]) -> int:
    """Write to an open file; returns the bytes written."""
    written = 0
    for chunk in chunks:
        left = memoryview(chunk)
        written += len(left)
        while left:
            left = left[os.write(file, left) :]
    return written


def _segments(plain_bytes: int) -> int:
    return max(-(-plain_bytes // SEGMENT_BYTES), 1)


def _nonce(index: int) -> bytes:
    return index.to_bytes(12, "big")


def _bound(name: str, index: int, *, last: bool) -> bytes:
    return name.encode() + b"\0" + index.to_bytes(8, "big") + (_LAST if last else _NOT_LAST)


def _cipher(key: bytes, salt: bytes, name: str) -> AESGCM:
    """Under a key that seals this one artifact: numbers are nonces that never come twice with it."""
    # HKDF's expand step: a data key is uniformly random already.
    derived = hmac.new(key, b"stoker artifact " + salt + name.encode() + b"\x01", hashlib.sha256).digest()
    return AESGCM(derived)
