"""Environment variables under data keys of KMS. What they are for is not known here."""

import secrets

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from stoker.services.functions import SealedEnvironment
from stoker.services.keys import DataKeys, KeyRefused

_NONCE_BYTES = 12

_decode = msgspec.json.Decoder(dict[str, str]).decode


class KeptEnvironments:
    """The EnvironmentKeeper port: AES-256-GCM under a data key of its own each."""

    def __init__(self, data_keys: DataKeys) -> None:
        self._data_keys = data_keys

    async def seal(self, function_arn: str, variables: dict[str, str], kms_key_arn: str) -> SealedEnvironment:
        key, wrapped = await self._data_keys.generate(_context(function_arn), kms_key_arn)
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = AESGCM(key).encrypt(nonce, msgspec.json.encode(variables), function_arn.encode())
        return SealedEnvironment(wrapped=wrapped, sealed=nonce + sealed)

    async def open(self, function_arn: str, sealed: SealedEnvironment) -> dict[str, str]:
        key = await self._data_keys.unwrap(sealed.wrapped, _context(function_arn))
        nonce, content = sealed.sealed[:_NONCE_BYTES], sealed.sealed[_NONCE_BYTES:]
        try:
            return _decode(AESGCM(key).decrypt(nonce, content, function_arn.encode()))
        except (InvalidTag, ValueError) as problem:
            raise KeyRefused(
                "InvalidCiphertextException", "the environment variables are damaged"
            ) from problem


def _context(function_arn: str) -> dict[str, str]:
    """AWS Lambda's own encryption context."""
    return {"aws:lambda:FunctionArn": function_arn}
