"""What the pollers of streams share: what they know of their mapping, what they use, what they count."""

from collections.abc import Awaitable, Callable
from random import Random
from typing import Final

import msgspec

from stoker.core.clock import Clock
from stoker.events.read_pace import ReadPace
from stoker.events.stream_batches import BatchRules
from stoker.services.events import EventInvoker
from stoker.services.functions import FunctionKey
from stoker.services.streams import (
    Position,
    SourceDenied,
    SourceGone,
    SourceThrottled,
    StreamCheckpoints,
    StreamSource,
)

BACKOFF_FIRST_S: Final = 0.5
BACKOFF_MAX_S: Final = 30.0

BROKEN_AFTER: Final = 4
"""Failures one behind the other, after which a stream is asked at the pace of the idle ones."""

BUFFERS_MAX_BYTES: Final = 512 * 1024 * 1024
"""Of the records of all shards; a shard of which nothing waits may read all the same."""

RESULT_NOTHING: Final = "No records processed"
RESULT_OK: Final = "OK"
RESULT_FUNCTION_FAILED: Final = "PROBLEM: Function call failed"
RESULT_INTERNAL: Final = "PROBLEM: internal Lambda error. Please contact Lambda customer support."


class StreamMapping(msgspec.Struct, frozen=True, kw_only=True):
    """What a poller needs to know of its mapping."""

    uuid: str
    kind: str
    """The service in the ARN: kinesis or dynamodb."""
    source_arn: str
    function: FunctionKey
    qualifier: str
    function_arn: str
    rules: BatchRules
    lanes: int = 1
    """ParallelizationFactor."""
    position: Position
    on_failure: str | None = None
    filters: tuple[str, ...] = ()


class StreamCounts(msgspec.Struct):
    """Counted over all shards since the start."""

    records: int = 0
    filtered: int = 0
    reads: int = 0
    invocations: int = 0
    failures: int = 0
    throttles: int = 0
    processed: int = 0
    discarded: int = 0
    source_errors: int = 0


class Buffers(msgspec.Struct):
    """What is buffered of all shards."""

    used_bytes: int = 0

    @property
    def full(self) -> bool:
        """Whether shards of which something waits are to read nothing more."""
        return self.used_bytes >= BUFFERS_MAX_BYTES


class StreamParts(msgspec.Struct, frozen=True, kw_only=True):
    """Ports and shared objects."""

    source: StreamSource
    checkpoints: StreamCheckpoints
    invoker: EventInvoker
    clock: Clock
    random: Random
    counts: StreamCounts
    buffers: Buffers
    role_arn: Callable[[FunctionKey, str], Awaitable[str]]
    """The execution role of a function at a qualifier; empty when there is none."""
    starting: ReadPace
    idle: ReadPace
    report: Callable[[str], None]
    """Told how the mapping's last batch went, or what is wrong with its stream."""
    report_read: Callable[[], None]
    """Told that the stream can be read, at first and again."""
    delivery_added: Callable[[], None]
    owner: str
    """Who leases shards: this process."""


_DENIED: Final = "PROBLEM: Cannot access stream "
_GONE: Final = "PROBLEM: Stream not found: "


def result_of_source(error: Exception, arn: str) -> str | None:
    """How a read that failed is shown; None: not at all. AWS's words for these are not documented."""
    if isinstance(error, SourceThrottled):
        return None
    if isinstance(error, SourceDenied):
        return (
            f"{_DENIED}{arn}. Please ensure the role can perform the GetRecords, "
            "GetShardIterator, DescribeStream, ListShards, and ListStreams Actions on your stream in IAM."
        )
    return f"{_GONE}{arn}" if isinstance(error, SourceGone) else RESULT_INTERNAL


def tells_of_source(result: str) -> bool:
    """Whether a result is of ``result_of_source``."""
    return result == RESULT_INTERNAL or result.startswith((_DENIED, _GONE))


def backoff_s(failures: int, random: Random) -> float:
    """Before try number ``failures + 1``: twice as long each time, less up to a half."""
    longest_s = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2.0 ** min(failures, 32))
    return longest_s * (0.5 + random.random() / 2)
