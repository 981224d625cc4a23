"""Data keys: who encrypts code makes one per artifact and keeps it wrapped, never plain."""

from collections.abc import AsyncIterator, Mapping
from typing import Protocol

import msgspec

from stoker.core.errors import StokerError

DATA_KEY_BYTES = 32

ACCOUNT = "account"
"""The member of a context that says whose key it is: each account's are wrapped under a key of its own."""

WRAPPED_BY_MASTER_KEY = b"\x01"
WRAPPED_BY_KMS = b"\x02"
"""The first byte of a wrapped key."""


class KeyUnavailable(StokerError):
    """The key service did not answer; try again."""


class KeyRefused(StokerError):
    """The key service refused, or the wrapped key is damaged or belongs to another context.

    ``code`` is the service's own (``AccessDeniedException``, ``DisabledException``, ``NotFoundException``,
    ``InvalidCiphertextException``, ...).
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class DataKeys(Protocol):
    """Wraps data keys: under the master key, or under a key of KMS that a function names.

    ``context`` (account, artifact, ...) is authenticated: a wrapped key opens with the same context alone.
    KMS sees it, as the encryption context, and writes it to its audit log: nothing secret belongs there.
    """

    async def generate(
        self, context: Mapping[str, str], kms_key_arn: str | None = None
    ) -> tuple[bytes, bytes]:
        """A fresh data key of DATA_KEY_BYTES, plain and wrapped.

        Raises:
            KeyRefused, KeyUnavailable: only with ``kms_key_arn``.
        """
        ...

    async def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        """The plain key of what ``generate`` or ``rewrap`` returned for the same context.

        Raises:
            KeyRefused, KeyUnavailable
        """
        ...

    async def rewrap(self, wrapped: bytes, context: Mapping[str, str]) -> bytes | None:
        """The same key under the active master key; None when it is so wrapped already, or by KMS, which
        rotates by itself.

        Raises:
            KeyRefused: it cannot be opened.
        """
        ...


class WrappedKey(msgspec.Struct, frozen=True):
    """A wrapped data key where it lies."""

    name: str
    """Of the artifact or manifest, for whoever keeps it and for messages."""
    wrapped: bytes
    context: dict[str, str]


class WrappedKeys(Protocol):
    """Whoever keeps wrapped data keys beside what they open; what they open is never rewritten."""

    def wrapped_keys(self) -> AsyncIterator[WrappedKey]:
        """Every key kept here."""
        ...

    async def replace_wrapped(self, key: WrappedKey, wrapped: bytes) -> None:
        """Keep ``wrapped`` in the place of ``key.wrapped``, durably; nothing happens if that is gone."""
        ...


class MasterKeyStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A master key, and how much is sealed under it."""

    key_id: str
    active: bool
    added_at_s: float
    replaced_at_s: float | None
    """Since when another has been active."""
    sealed: dict[str, int]
    """By what it is: environment variables, access keys, data keys."""


class KeysReport(msgspec.Struct, frozen=True, kw_only=True):
    """The master keys. No key material is ever in it."""

    source: str
    """The file, or the setting, that holds them."""
    keys: list[MasterKeyStatus]
    missing: dict[str, int]
    """How much is sealed under keys that are not here, by key id: it cannot be opened."""
    resealing: bool
    trouble: str
    """What stopped the last attempt to seal everything under the active key; empty: nothing did."""


class RetirementRefused(StokerError):
    """A master key is still needed; nothing was removed."""
