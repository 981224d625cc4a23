"""Data keys under the master key, and the choice between it and KMS by what a wrapped key says of itself."""

import secrets
from collections.abc import Mapping

import msgspec

from stoker.services.keys import (
    ACCOUNT,
    DATA_KEY_BYTES,
    WRAPPED_BY_KMS,
    WRAPPED_BY_MASTER_KEY,
    DataKeys,
    KeyRefused,
)
from stoker.store.sealing import SealBroken, Sealer


class MasterDataKeys:
    """The DataKeys port under the master key. Without I/O; a key of KMS is not for here."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer

    async def generate(
        self, context: Mapping[str, str], kms_key_arn: str | None = None
    ) -> tuple[bytes, bytes]:
        if kms_key_arn is not None:
            raise KeyRefused("NotFoundException", f"{kms_key_arn} is a key of KMS, not the master key")
        plain = secrets.token_bytes(DATA_KEY_BYTES)
        return plain, self._sealer.seal(plain, _row(context), _scope(context))

    async def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        return self._open(wrapped, context)

    async def rewrap(self, wrapped: bytes, context: Mapping[str, str]) -> bytes | None:
        plain = self._open(wrapped, context)
        if not self._sealer.needs_resealing(wrapped):
            return None
        return self._sealer.seal(plain, _row(context), _scope(context))

    def _open(self, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        try:
            plain = self._sealer.open(wrapped, _row(context), _scope(context))
        except SealBroken as problem:
            raise KeyRefused("InvalidCiphertextException", str(problem)) from problem
        if len(plain) != DATA_KEY_BYTES:
            raise KeyRefused("InvalidCiphertextException", "what was wrapped is not a data key")
        return plain


class EitherDataKeys:
    """The DataKeys port over the master key and KMS."""

    def __init__(self, master: DataKeys, kms: DataKeys) -> None:
        self._master = master
        self._kms = kms

    async def generate(
        self, context: Mapping[str, str], kms_key_arn: str | None = None
    ) -> tuple[bytes, bytes]:
        return await (self._kms if kms_key_arn else self._master).generate(context, kms_key_arn or None)

    async def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        return await self._keeper(wrapped).unwrap(wrapped, context)

    async def rewrap(self, wrapped: bytes, context: Mapping[str, str]) -> bytes | None:
        return await self._keeper(wrapped).rewrap(wrapped, context)

    def _keeper(self, wrapped: bytes) -> DataKeys:
        keepers = {WRAPPED_BY_MASTER_KEY: self._master, WRAPPED_BY_KMS: self._kms}
        keeper = keepers.get(wrapped[:1])
        if keeper is None:
            raise KeyRefused("InvalidCiphertextException", "not a wrapped data key")
        return keeper


def _row(context: Mapping[str, str]) -> str:
    """The context in one way of writing: whatever its order, and no other context reads the same."""
    return "data key " + msgspec.json.encode(dict(context), order="sorted").decode()


def _scope(context: Mapping[str, str]) -> str:
    return f"data keys of account {context.get(ACCOUNT, '')}"
