"""Seals one chunk of an image so that equal chunks are equal objects, and opens it again.

Convergent encryption, as in "On-demand Container Loading in AWS Lambda" (section 3.2): whoever knows a chunk
can derive its key, nobody else can; the salt bounds in time what equal chunks share. Knows no store.
"""

import hashlib
from hmac import compare_digest

import msgspec
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR

from stoker.core.errors import StokerError

CHUNK_BYTES = 512 * 1024
"""Of an image's address space; a sealed chunk is shorter when the chunk ends in zeros."""

SALT_BYTES = 32
KEY_BYTES = 32
NAME_BYTES = 32

SEALED_MIN_BYTES = 64
"""Shorter chunks keep so many of their zeros: two short contents may well have the same ciphertext, and would
have one name."""

_COUNTER = bytes(16)
"""Fixed: a key encrypts one plaintext only, the one that it was derived from."""

_STRIPPED_AT_ONCE_BYTES = 64 * 1024

Buffer = bytes | bytearray | memoryview
Scratch = bytearray | memoryview


class ChunkDamaged(StokerError):
    """The content is not what was sealed under that name."""


class SealedChunk(msgspec.Struct, frozen=True):
    """A chunk as it is stored: ``name`` is the SHA-256 of ``content``, which opens with ``key`` alone.

    ``content`` lies in the scratch buffer when there was one, and is good until that is used again.
    """

    name: bytes
    key: bytes
    content: bytes | memoryview


def seal_chunk(plain: Buffer, salt: bytes, scratch: Scratch | None = None) -> SealedChunk | None:
    """Seal up to CHUNK_BYTES, of which trailing zeros do not count; None for a hole, all zeros, not stored.

    The same bytes and salt give the same name and content, everywhere. ``scratch``, of CHUNK_BYTES, spares a
    fresh buffer: faulting one in costs as much as sealing does.
    """
    with memoryview(plain).cast("B") as view:
        if len(view) > CHUNK_BYTES:
            raise ValueError(f"a chunk has at most {CHUNK_BYTES} bytes, not {len(view)}")
        if len(salt) != SALT_BYTES:
            raise ValueError(f"a salt has {SALT_BYTES} bytes, not {len(salt)}")
        length = significant_bytes(view)
        if length == 0:
            return None
        source = view[:length]
        if length < SEALED_MIN_BYTES:
            source = memoryview(bytes(source).ljust(SEALED_MIN_BYTES, b"\0"))
        key = hashlib.sha256(salt)
        key.update(source)
        content = _run(key.digest(), source, scratch)
    return SealedChunk(hashlib.sha256(content).digest(), key.digest(), content)


def open_chunk(
    content: Buffer, name: bytes, key: bytes, scratch: Scratch | None = None
) -> bytes | memoryview:
    """What was sealed; zeros follow it to the end of the chunk. Its name is checked before it is decrypted.

    The answer lies in ``scratch`` when that is given, as with ``seal_chunk``.

    Raises:
        ChunkDamaged: ``content`` has another name.
    """
    if not SEALED_MIN_BYTES <= len(content) <= CHUNK_BYTES or not compare_digest(
        hashlib.sha256(content).digest(), name
    ):
        raise ChunkDamaged(f"chunk {name.hex()} is damaged")
    return _run(key, content, scratch)


def significant_bytes(view: memoryview) -> int:
    """How many bytes are left when trailing zeros are not counted."""
    end = len(view)
    while end and view[end - 1] == 0:
        start = max(0, end - _STRIPPED_AT_ONCE_BYTES)
        kept = len(bytes(view[start:end]).rstrip(b"\0"))
        end = start + kept
    return end


def _run(key: bytes, source: Buffer, scratch: Scratch | None) -> bytes | memoryview:
    """AES-256-CTR, which is its own inverse."""
    cipher = Cipher(AES256(key), CTR(_COUNTER)).encryptor()
    if scratch is None:
        return cipher.update(source)
    if len(scratch) < CHUNK_BYTES:
        raise ValueError(f"a scratch buffer has at least {CHUNK_BYTES} bytes, not {len(scratch)}")
    done = cipher.update_into(source, scratch)
    return memoryview(scratch)[:done]
