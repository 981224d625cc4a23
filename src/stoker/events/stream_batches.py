"""How the records of a lane become batches: sizes, windows, ages, halves. Pure."""

from collections.abc import Sequence
from typing import Final

import msgspec

from stoker.services.events import Attempt, AttemptOutcome
from stoker.services.streams import StreamRecord

PAYLOAD_MAX_BYTES: Final = 6_291_456 - 65_536
"""Of a batch: the limit of synchronous invocations, less what surrounds the records."""
INFINITE: Final = -1


class BatchRules(msgspec.Struct, frozen=True, kw_only=True):
    """What a mapping says of its batches."""

    batch_size: int
    window_s: int = 0
    """MaximumBatchingWindowInSeconds."""
    tumbling_s: int = 0
    """TumblingWindowInSeconds; 0: none."""
    retries_max: int = INFINITE
    age_max_s: int = INFINITE
    bisects: bool = False
    reports_failures: bool = False


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """Records that are to be processed together, and what became of it so far."""

    records: Sequence[StreamRecord]
    failures: int = 0
    """Failed attempts that count against MaximumRetryAttempts."""
    invocations: int = 0
    attempt: Attempt | None = None
    """The last one that ran."""
    request_id: str = ""
    """Of that attempt."""


class Discard(msgspec.Struct, frozen=True):
    """Records that are given up, with the condition that their document names."""

    work: Work
    condition: str


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """What follows an attempt. ``done``: leading records of it that were processed."""

    done: int = 0
    discard: Discard | None = None
    rest: tuple[Work, ...] = ()
    failed: bool = False
    waits: bool = False
    """Before the rest is tried there is a pause."""


RETRIES_EXHAUSTED: Final = "RetryAttemptsExhausted"
AGE_EXCEEDED: Final = "RecordAgeExceeded"


def batch_length(pending: Sequence[StreamRecord], rules: BatchRules) -> tuple[int, bool]:
    """(leading records that make one batch, whether no more fit into it). One at least."""
    used_bytes = 0
    first = window_start_s(pending[0], rules.tumbling_s)
    for count, record in enumerate(pending):
        used_bytes += record.size_bytes
        other_window = window_start_s(record, rules.tumbling_s) > first
        if count >= rules.batch_size or other_window or (count and used_bytes > PAYLOAD_MAX_BYTES):
            return count, True
    return len(pending), len(pending) >= rules.batch_size or used_bytes >= PAYLOAD_MAX_BYTES


def window_start_s(record: StreamRecord, tumbling_s: int) -> float:
    """When the tumbling window of a record began: windows are cut by the time of arrival."""
    return record.arrived_at_s // tumbling_s * tumbling_s if tumbling_s else 0.0


def after_attempt(rules: BatchRules, work: Work, attempt: Attempt, failed_at: int | None) -> Step:
    """What becomes of a batch. ``failed_at``: of a success, the first record that was not processed.

    Throttles and failures of the service do not count against the retries; nor does halving a batch.
    """
    if attempt.outcome is AttemptOutcome.SUCCEEDED and failed_at is None:
        return Step(done=len(work.records))
    if attempt.outcome not in (AttemptOutcome.SUCCEEDED, AttemptOutcome.FUNCTION_ERROR):
        return Step(rest=(work,), waits=True, failed=True)
    ran = msgspec.structs.replace(work, invocations=work.invocations + 1, attempt=attempt)
    done = failed_at or 0
    left = msgspec.structs.replace(ran, records=ran.records[done:])
    if rules.bisects and (failed_at or len(left.records) > 1):
        if failed_at:  # where the function says it failed is where the batch is cut
            return Step(done=done, rest=(left,), failed=True, waits=True)
        return Step(rest=_halves(left), failed=True, waits=True)
    counted = msgspec.structs.replace(left, failures=left.failures + 1)
    if rules.retries_max != INFINITE and counted.failures > rules.retries_max:
        return Step(done=done, discard=Discard(counted, RETRIES_EXHAUSTED), failed=True)
    return Step(done=done, rest=(counted,), failed=True, waits=True)


def without_old(work: Work, now_s: float, age_max_s: float) -> tuple[Discard | None, Work]:
    """Cut off leading records that are older than ``age_max_s``; infinite: none is."""
    if age_max_s == INFINITE:
        return None, work
    old = 0
    while old < len(work.records) and now_s - work.records[old].arrived_at_s > age_max_s:
        old += 1
    if not old:
        return None, work
    gone = msgspec.structs.replace(work, records=work.records[:old])
    return Discard(gone, AGE_EXCEEDED), msgspec.structs.replace(work, records=work.records[old:])


def _halves(work: Work) -> tuple[Work, Work]:
    middle = len(work.records) // 2
    first, second = work.records[:middle], work.records[middle:]
    return msgspec.structs.replace(work, records=first), msgspec.structs.replace(work, records=second)
