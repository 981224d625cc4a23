"""Data keys of AWS KMS, or of a compatible server, through botocore."""

import asyncio
import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from queue import Full
from typing import Any, TypeVar

import msgspec
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

from stoker.aws.clients import AwsClients
from stoker.core.threads import CallThreads
from stoker.services.keys import DATA_KEY_BYTES, WRAPPED_BY_KMS, KeyRefused, KeyUnavailable

T = TypeVar("T")

KMS_THREADS = 8
ATTEMPTS = 3
WAIT_S = 0.1
"""Before the second attempt; doubled for each further one."""
CALL_TIMEOUT_S = 15.0
"""No attempt begins after this long."""
KEPT_MAX = 4096
"""Plain data keys in memory at one time; the oldest go first."""
CONTEXT_MAX_BYTES = 8192
"""Of an encryption context (KMS developer guide, quotas)."""

_KEY_ARN = re.compile(r"arn:aws[a-z-]*:kms:([a-z0-9-]{1,32}):\d{12}:key/[A-Za-z0-9-]{1,128}")
_ALIAS_ARN = re.compile(r"arn:aws[a-z-]*:kms:[a-z0-9-]+:\d{12}:alias/.+")
_AGAIN = frozenset(
    {
        "DependencyTimeoutException",
        "InternalFailure",
        "InternalServerError",
        "KMSInternalException",
        "KeyUnavailableException",
        "LimitExceededException",
        "RequestLimitExceeded",
        "ServiceUnavailable",
        "ServiceUnavailableException",
        "Throttling",
        "ThrottlingException",
    }
)
"""Codes that say nothing about the key: whoever asks again may get it."""


class KmsStatistics(msgspec.Struct, frozen=True):
    """Counted since the start."""

    answered: int
    refused: int
    unavailable: int
    kept: int
    """Plain data keys in memory now."""


class KmsDataKeys:
    """The DataKeys port over KMS. Whose credentials are used is botocore's own settings.

    Plain keys are kept in memory for ``kept_s``: what was just wrapped opens without a call, and a key that
    was disabled opens nothing once that time is over.
    """

    def __init__(
        self, clients: AwsClients, *, kept_s: float, monotonic_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._clients = clients
        self._threads = CallThreads("stoker-kms", threads_max=KMS_THREADS)
        self._kept = _KeptKeys(kept_s, monotonic_s)
        self._answers = self._refusals = self._failures = 0
        self._asked: dict[bytes, asyncio.Task[bytes]] = {}

    async def generate(
        self, context: Mapping[str, str], kms_key_arn: str | None = None
    ) -> tuple[bytes, bytes]:
        arn = kms_key_arn or ""
        region = _region(arn)
        _check(context)

        def ask() -> tuple[bytes, bytes]:
            answer = self._client(region).generate_data_key(
                KeyId=arn, NumberOfBytes=DATA_KEY_BYTES, EncryptionContext=dict(context)
            )
            return answer["Plaintext"], answer["CiphertextBlob"]

        plain, blob = await self._called(ask)
        wrapped = _wrapped(arn, blob)
        self._kept.keep(_name(wrapped, context), _data_key(plain))
        return plain, wrapped

    async def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        arn, blob = _parts(wrapped)
        region = _region(arn)
        _check(context)
        name = _name(wrapped, context)
        kept = self._kept.find(name)
        if kept is not None:
            return kept

        def ask() -> bytes:
            answer = self._client(region).decrypt(
                KeyId=arn, CiphertextBlob=blob, EncryptionContext=dict(context)
            )
            return answer["Plaintext"]

        # Many sandboxes may start at once: one question for all of them.
        asked = self._asked.get(name)
        if asked is None:
            asked = self._asked[name] = asyncio.create_task(self._asked_for(name, ask))
            asked.add_done_callback(lambda task: self._answered(name, task))
        return await asyncio.shield(asked)

    async def rewrap(self, wrapped: bytes, context: Mapping[str, str]) -> bytes | None:
        _parts(wrapped)
        return None

    def statistics(self) -> KmsStatistics:
        """Counts as of now."""
        return KmsStatistics(self._answers, self._refusals, self._failures, self._kept.count())

    async def _asked_for(self, name: bytes, ask: Callable[[], bytes]) -> bytes:
        plain = _data_key(await self._called(ask))
        self._kept.keep(name, plain)
        return plain

    def _answered(self, name: bytes, task: asyncio.Task[bytes]) -> None:
        del self._asked[name]
        if not task.cancelled():
            task.exception()  # whoever waited was told; perhaps nobody waits any more

    async def _called(self, ask: Callable[[], T]) -> T:
        try:
            answer = await self._tried(ask)
        except KeyRefused:
            self._refusals += 1
            raise
        except KeyUnavailable:
            self._failures += 1
            raise
        self._answers += 1
        return answer

    async def _tried(self, ask: Callable[[], T]) -> T:
        started_s = time.monotonic()
        for attempt in range(ATTEMPTS):
            last = attempt == ATTEMPTS - 1 or time.monotonic() - started_s > CALL_TIMEOUT_S
            try:
                return await self._threads.call(ask)
            except ClientError as problem:
                answer: Any = problem.response
                code, message = answer["Error"].get("Code", ""), answer["Error"].get("Message", "")
                if not _is_passing(answer, code):
                    raise KeyRefused(code, message) from problem
                if last:
                    raise KeyUnavailable(f"KMS: {code}: {message}") from problem
            except (HTTPClientError, Full) as problem:
                if last:
                    raise KeyUnavailable(f"KMS: {problem or 'too many calls wait'}") from problem
            except BotoCoreError as problem:  # no credentials, no such region, ...: no better next time
                raise KeyUnavailable(f"KMS: {problem}") from problem
            await asyncio.sleep(WAIT_S * 2**attempt)
        raise AssertionError("the last attempt returns or raises")

    def _client(self, region: str) -> Any:
        return self._clients.client("kms", region)


class _KeptKeys:
    """Plain keys for a while, by what they were wrapped as and for."""

    def __init__(self, kept_s: float, monotonic_s: Callable[[], float]) -> None:
        self._kept_s = kept_s
        self._now_s = monotonic_s
        self._keys: OrderedDict[bytes, tuple[float, bytes]] = OrderedDict()

    def keep(self, name: bytes, plain: bytes) -> None:
        self._drop_old()
        self._keys.pop(name, None)
        self._keys[name] = (self._now_s() + self._kept_s, plain)
        while len(self._keys) > KEPT_MAX:
            self._keys.popitem(last=False)

    def count(self) -> int:
        self._drop_old()
        return len(self._keys)

    def find(self, name: bytes) -> bytes | None:
        self._drop_old()
        found = self._keys.get(name)
        return None if found is None else found[1]

    def _drop_old(self) -> None:
        """All are kept equally long, so the oldest are in front."""
        while self._keys:
            name, (ends_s, _) = next(iter(self._keys.items()))
            if ends_s > self._now_s():
                return
            del self._keys[name]


def _wrapped(arn: str, blob: bytes) -> bytes:
    """Format byte, the ARN's length in two bytes, the ARN, what KMS gave."""
    return WRAPPED_BY_KMS + len(arn).to_bytes(2, "big") + arn.encode() + blob


def _parts(wrapped: bytes) -> tuple[str, bytes]:
    size = int.from_bytes(wrapped[1:3], "big")
    arn, blob = wrapped[3 : 3 + size], wrapped[3 + size :]
    if wrapped[:1] != WRAPPED_BY_KMS or not blob or not arn.isascii():
        raise KeyRefused("InvalidCiphertextException", "not a data key wrapped by KMS")
    return arn.decode(), blob


def _region(arn: str) -> str:
    if _ALIAS_ARN.fullmatch(arn):
        raise KeyRefused("InvalidArnException", "Key Aliases are not supported for this operation.")
    found = _KEY_ARN.fullmatch(arn)
    if found is None:
        raise KeyRefused("InvalidArnException", f"{arn} is not the ARN of a KMS key")
    return found[1]


def _check(context: Mapping[str, str]) -> None:
    size_bytes = sum(len(part.encode()) for item in context.items() for part in item)
    if size_bytes > CONTEXT_MAX_BYTES:
        raise KeyRefused(
            "ValidationException", f"an encryption context has {CONTEXT_MAX_BYTES} bytes at most"
        )


def _name(wrapped: bytes, context: Mapping[str, str]) -> bytes:
    parts = [wrapped, *(part.encode() for item in sorted(context.items()) for part in item)]
    return hashlib.sha256(b"".join(len(part).to_bytes(4, "big") + part for part in parts)).digest()


def _data_key(plain: bytes) -> bytes:
    if len(plain) != DATA_KEY_BYTES:
        raise KeyRefused("InvalidCiphertextException", f"KMS gave a key of {len(plain)} bytes")
    return plain


def _is_passing(answer: Any, code: str) -> bool:
    status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    return code in _AGAIN or status >= 500 or status == 429
