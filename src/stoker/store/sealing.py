"""Seals secrets at rest: AES-256-GCM under a master key. Where that key is kept is not known here.

A sealed value is format byte, key id, nonce, ciphertext. The associated data names the row it belongs to, so
that a value copied to another row does not open. Each scope (an account) has a sealing key of its own.
"""

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from stoker.core.errors import StokerError

KEY_BYTES = 32
CIPHERS_KEPT = 256
"""Making one takes longer than sealing with it."""
_FORMAT = b"\x01"
KEY_ID_BYTES = 4
_NONCE_BYTES = 12
_HEADER_BYTES = 1 + KEY_ID_BYTES + _NONCE_BYTES


class MasterKeyError(StokerError):
    """The master key is missing, malformed or readable by others."""


class SealBroken(StokerError):
    """A sealed value is damaged, belongs elsewhere, or was sealed under a key that is not here."""


class Sealer:
    """Seals under the first key; opens under any, so that keys can be rotated. Safe in any thread."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._ring = _ring(keys)

    def use(self, keys: Sequence[bytes]) -> None:
        """Take these keys in the place of the others, the active one first."""
        self._ring = _ring(keys)

    @property
    def key_ids(self) -> tuple[bytes, ...]:
        """Of every key, the active one first. An id says nothing about its key."""
        return tuple(self._ring)

    def seal(self, plain: bytes, row: str, scope: str = "") -> bytes:
        """Encrypt ``plain`` for the row named ``row``."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        active_id, key = next(iter(self._ring.items()))
        sealed = _cipher(key, scope).encrypt(nonce, plain, row.encode())
        return _FORMAT + active_id + nonce + sealed

    def open(self, sealed: bytes, row: str, scope: str = "") -> bytes:
        """Decrypt what ``seal`` made for the same row and scope.

        Raises:
            SealBroken: it cannot be opened.
        """
        if len(sealed) < _HEADER_BYTES or sealed[:1] != _FORMAT:
            raise SealBroken(f"{row}: not a sealed value")
        under = sealed_under(sealed)
        key = self._ring.get(under)
        if key is None:
            raise SealBroken(f"{row}: sealed under master key {under.hex()}, which is not here")
        nonce = sealed[1 + KEY_ID_BYTES : _HEADER_BYTES]
        try:
            return _cipher(key, scope).decrypt(nonce, sealed[_HEADER_BYTES:], row.encode())
        except InvalidTag as problem:
            raise SealBroken(f"{row}: the sealed value does not belong here or is damaged") from problem

    def needs_resealing(self, sealed: bytes) -> bool:
        """Whether the value is under a key that is no longer the active one."""
        return sealed_under(sealed) != self.key_ids[0]

    def derive(self, purpose: str) -> tuple[bytes, ...]:
        """Keys for another purpose (signing URLs, sessions), one of each master key, the active one's first.

        Make with the first, accept what any of them made: it outlives a rotation until the old key goes.
        """
        return tuple(derive(key, purpose) for key in self._ring.values())


def sealed_under(sealed: bytes) -> bytes:
    """The id of the key that a value is sealed under."""
    return sealed[1 : 1 + KEY_ID_BYTES]


def _ring(keys: Sequence[bytes]) -> dict[bytes, bytes]:
    if not keys or any(len(key) != KEY_BYTES for key in keys):
        raise MasterKeyError(f"a master key is {KEY_BYTES} bytes")
    return {key_id(key): key for key in keys}


@lru_cache(CIPHERS_KEPT)
def _cipher(key: bytes, scope: str) -> AESGCM:
    return AESGCM(derive(key, f"seal {scope}" if scope else "seal"))


def derive(key: bytes, purpose: str) -> bytes:
    """HKDF-SHA-256's expand step, one block: the master key is uniformly random already."""
    return hmac.new(key, b"stoker " + purpose.encode() + b"\x01", hashlib.sha256).digest()


def key_id(key: bytes) -> bytes:
    """Tells keys apart, and says nothing about the key."""
    return derive(key, "key id")[:KEY_ID_BYTES]
