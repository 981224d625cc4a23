"""Where master keys are kept: a file of the data folder, or a setting. What they seal is not known here."""

import base64
import binascii
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from stoker.store.sealing import KEY_BYTES, MasterKeyError, key_id

KEYS_MAX = 64
"""In the file: what a session is of is tried with each."""
SETTING = "STOKER_MASTER_KEY"


class MasterKeys:
    """The keys, the active one first. Changes are durable when they return; one process changes them."""

    def __init__(self, file: Path, setting: str | None = None) -> None:
        self._file = file
        self._fixed = bool(setting)
        self.keys = load_master_keys(file, setting)

    @property
    def source(self) -> str:
        """The file, or the name of the setting."""
        return SETTING if self._fixed else str(self._file)

    def add(self) -> list[bytes]:
        """A new active key in front of the others.

        Raises:
            MasterKeyError: the keys are a setting, or too many.
        """
        self._check_changeable("put base64 of 32 random bytes in front of what is there, and start again")
        if len(self.keys) >= KEYS_MAX:
            raise MasterKeyError(f"{self._file} holds {len(self.keys)} keys: retire old ones first")
        return self._changed([secrets.token_bytes(KEY_BYTES), *load_master_keys(self._file)])

    def remove(self, key_ids: frozenset[bytes]) -> list[bytes]:
        """Those keys go; the active one cannot.

        Raises:
            MasterKeyError: the keys are a setting.
        """
        shown = " ".join(sorted(each.hex() for each in key_ids))
        self._check_changeable(f"take the keys {shown} out of it, and start again")
        active, *others = load_master_keys(self._file)
        return self._changed([active, *(key for key in others if key_id(key) not in key_ids)])

    def _changed(self, keys: list[bytes]) -> list[bytes]:
        _replace(self._file, keys)
        self.keys = keys
        return keys

    def _check_changeable(self, instead: str) -> None:
        if self._fixed:
            raise MasterKeyError(f"the master keys are those of {SETTING}: {instead}")


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
    temporary = _written(file, [secrets.token_bytes(KEY_BYTES)])
    try:
        os.link(temporary, file)
    except FileExistsError:
        return
    finally:
        temporary.unlink()
    _sync(file.parent)


def _replace(file: Path, keys: Sequence[bytes]) -> None:
    """The old file or the new one, whole, whatever happens."""
    temporary = _written(file, keys)
    try:
        temporary.rename(file)
    except OSError:
        temporary.unlink()
        raise
    _sync(file.parent)


def _written(file: Path, keys: Sequence[bytes]) -> Path:
    """A durable file beside ``file``, for its owner only."""
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(b"".join(base64.b64encode(key) + b"\n" for key in keys))
            stream.flush()
            os.fsync(stream.fileno())
    except OSError:
        temporary.unlink()
        raise
    return temporary


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
