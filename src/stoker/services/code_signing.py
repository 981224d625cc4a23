"""Code signing configurations as they are kept, and which function uses which."""

from typing import Final

import msgspec

from stoker.services.functions import FunctionKey
from stoker.services.records import RecordKey

CODE_SIGNING_CONFIG: Final = "code-signing-config"
FUNCTION_CODE_SIGNING: Final = "function-code-signing"
"""Kinds. A function's record is owned by the function and has the configuration's ARN as its lookup."""


class CodeSigning(msgspec.Struct, frozen=True, kw_only=True):
    """One configuration; ``policy`` is ``Warn`` or ``Enforce``."""

    publishers: tuple[str, ...]
    policy: str = "Warn"
    description: str | None = None
    last_modified: str
    tags: dict[str, str] = {}


class FunctionCodeSigning(msgspec.Struct, frozen=True):
    """The configuration that a function's code is checked by."""

    arn: str


def code_signing_arn(key: RecordKey) -> str:
    """The ARN of a configuration."""
    return f"arn:aws:lambda:{key.region}:{key.account}:code-signing-config:{key.name}"


def function_code_signing_key(key: FunctionKey) -> RecordKey:
    """Where a function's choice is kept."""
    return RecordKey(FUNCTION_CODE_SIGNING, key.account, key.region, key.name, "")
