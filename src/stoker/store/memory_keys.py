"""Data keys in memory, for tests of whoever encrypts: nothing is secret here."""

import secrets
from collections.abc import Mapping

from stoker.core.errors import StokerError
from stoker.services.keys import DATA_KEY_BYTES, KeyRefused


class MemoryDataKeys:
    """The DataKeys port; ``failure`` is raised by every call while it is set."""

    def __init__(self) -> None:
        self.failure: StokerError | None = None
        self.generation = 1
        """Raise it by one for a new master key: what was wrapped earlier then wants to be wrapped again."""
        self._wrapped: dict[bytes, tuple[bytes, dict[str, str], str | None, int]] = {}

    async def generate(
        self, context: Mapping[str, str], kms_key_arn: str | None = None
    ) -> tuple[bytes, bytes]:
        self._fail()
        plain = secrets.token_bytes(DATA_KEY_BYTES)
        return plain, self._keep(plain, dict(context), kms_key_arn)

    async def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        self._fail()
        return self._find(wrapped, context)[0]

    async def rewrap(self, wrapped: bytes, context: Mapping[str, str]) -> bytes | None:
        self._fail()
        plain, kept, kms_key_arn, generation = self._find(wrapped, context)
        if kms_key_arn is not None or generation == self.generation:
            return None
        return self._keep(plain, kept, None)

    def _keep(self, plain: bytes, context: dict[str, str], kms_key_arn: str | None) -> bytes:
        wrapped = b"wrapped " + secrets.token_bytes(16)
        self._wrapped[wrapped] = (plain, context, kms_key_arn, self.generation)
        return wrapped

    def _find(
        self, wrapped: bytes, context: Mapping[str, str]
    ) -> tuple[bytes, dict[str, str], str | None, int]:
        found = self._wrapped.get(wrapped)
        if found is None or found[1] != dict(context):
            raise KeyRefused("InvalidCiphertextException", "not wrapped here, or for something else")
        return found

    def _fail(self) -> None:
        if self.failure is not None:
            raise self.failure
