"""Seals secrets at rest: AES-256-GCM under a master key that is a file of the data folder, or a setting.

A sealed value is format byte, key id, nonce, ciphertext. The associated data names the row it belongs to, so
that a value copied to another row does not open. Each scope (an account) has a sealing key of its own.
"""

import base64
import binascii
import hashlib
import hmac
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from stoker.core.errors import StokerError

KEY_BYTES = 32
_FORMAT = b"\x01"
_KEY_ID_BYTES = 4
_NONCE_BYTES = 12
_HEADER_BYTES = 1 + _KEY_ID_BYTES + _NONCE_BYTES


class MasterKeyError(StokerError):
    """The master key is missing, malformed or readable by others."""


class SealBroken(StokerError):
    """A sealed value is damaged, belongs elsewhere, or was sealed under a key that is not here."""


class Sealer:
    """Seals under the first key; opens under any, so that keys can be rotated."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        if not keys or any(len(key) != KEY_BYTES for key in keys):
            raise MasterKeyError(f"a master key is {KEY_BYTES} bytes")
        self._active_id = _key_id(keys[0])
        self._root = keys[0]
        self._keys = {_key_id(key): key for key in keys}

    def seal(self, plain: bytes, row: str, scope: str = "") -> bytes:
        """Encrypt ``plain`` for the row named ``row``."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = _cipher(self._root, scope).encrypt(nonce, plain, row.encode())
        return _FORMAT + self._active_id + nonce + sealed

    def open(self, sealed: bytes, row: str, scope: str = "") -> bytes:
        """Decrypt what ``seal`` made for the same row and scope.

        Raises:
            SealBroken: it cannot be opened.
        """
        if len(sealed) < _HEADER_BYTES or sealed[:1] != _FORMAT:
            raise SealBroken(f"{row}: not a sealed value")
        key_id = sealed[1 : 1 + _KEY_ID_BYTES]
        key = self._keys.get(key_id)
        if key is None:
            raise SealBroken(f"{row}: sealed under master key {key_id.hex()}, which is not here")
        nonce = sealed[1 + _KEY_ID_BYTES : _HEADER_BYTES]
        try:
            return _cipher(key, scope).decrypt(nonce, sealed[_HEADER_BYTES:], row.encode())
        except InvalidTag as problem:
            raise SealBroken(f"{row}: the sealed value does not belong here or is damaged") from problem

    def needs_resealing(self, sealed: bytes) -> bool:
        """Whether the value is under a key that is no longer the active one."""
        return sealed[1 : 1 + _KEY_ID_BYTES] != self._active_id

    def derive(self, purpose: str) -> bytes:
        """A key of its own for another purpose (signing URLs, session keys); the same after a restart."""
        return derive(self._root, purpose)


def _cipher(key: bytes, scope: str) -> AESGCM:
    return AESGCM(derive(key, f"seal {scope}" if scope else "seal"))


def derive(key: bytes, purpose: str) -> bytes:
    """HKDF-SHA-256's expand step, one block: the master key is uniformly random already."""
    return hmac.new(key, b"stoker " + purpose.encode() + b"\x01", hashlib.sha256).digest()


def load_master_keys(file: Path, setting: str | None = None) -> list[bytes]:
    """The keys of ``setting`` (STOKER_MASTER_KEY), else of the file, which is made when there is none.

    Both hold base64 of 32 bytes, several separated by white space; the first is the active one.

    Raises:
        MasterKeyError: malformed, or the file is open to others.
    """
    if setting:
        return _parse(setting, "STOKER_MASTER_KEY")
    if not file.exists():
        _create(file)
    mode = file.stat().st_mode
    if mode & 0o077:
        raise MasterKeyError(f"{file} is open to others (mode {mode & 0o777:o}); it must be 600")
    return _parse(file.read_text(), str(file))


def _parse(text: str, where: str) -> list[bytes]:
    try:
        keys = [base64.b64decode(word, validate=True) for word in text.split()]
    except binascii.Error as problem:
        raise MasterKeyError(f"{where}: not base64") from problem
    if not keys or any(len(key) != KEY_BYTES for key in keys):
        raise MasterKeyError(f"{where}: a master key is base64 of {KEY_BYTES} bytes")
    return keys


def _create(file: Path) -> None:
    """Appears whole or not at all, and never replaces a key that another process made meanwhile."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(base64.b64encode(secrets.token_bytes(KEY_BYTES)) + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
        try:
            os.link(temporary, file)
        except FileExistsError:
            return
    finally:
        temporary.unlink()
    folder = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _key_id(key: bytes) -> bytes:
    return derive(key, "key id")[:_KEY_ID_BYTES]
