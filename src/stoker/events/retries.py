"""What becomes of an asynchronous event after an attempt. Pure; figures and conditions are AWS's."""

import enum

import msgspec

from stoker.services.events import Attempt, AttemptOutcome
from stoker.services.queue import QueuedEvent

RETRY_WAITS_S = (60.0, 120.0)
"""After the first and the second function error; there is no third retry."""
BACKOFF_FIRST_S = 1.0
BACKOFF_MAX_S = 300.0
MAXIMUM_EVENT_AGE_S = 6 * 3600.0


class RetryPolicy(msgspec.Struct, frozen=True):
    """How long and how often an event is tried. ``scale`` multiplies the waits, not the event's age."""

    scale: float = 1.0
    waits_s: tuple[float, ...] = RETRY_WAITS_S
    maximum_age_s: float = MAXIMUM_EVENT_AGE_S


class DropReason(enum.Enum):
    """Why an event will not be tried again; the values are the ``condition`` of AWS's failure records."""

    RETRIES_EXHAUSTED = "RetriesExhausted"
    EVENT_AGE_EXCEEDED = "EventAgeExceeded"
    ZERO_RESERVED_CONCURRENCY = "ZeroReservedConcurrency"
    FUNCTION_DELETED = "FunctionDeleted"


class Settle(msgspec.Struct, frozen=True):
    """The event succeeded."""


class Drop(msgspec.Struct, frozen=True):
    """The event is given up."""

    reason: DropReason


class Retry(msgspec.Struct, frozen=True):
    """The event goes back on the queue as it is here."""

    event: QueuedEvent


Decision = Settle | Drop | Retry


def is_too_old(event: QueuedEvent, now_s: float, policy: RetryPolicy) -> bool:
    """Whether an event may not even be tried any more."""
    return now_s - event.accepted_at_s > policy.maximum_age_s


def decide(
    event: QueuedEvent, attempt: Attempt, now_s: float, policy: RetryPolicy, *, chance: float
) -> Decision:
    """What to do with an event after an attempt that ended at ``now_s`` (wall clock).

    ``chance`` (0 to 1) spreads back-offs: without it, events that were throttled together would all come
    back together, and all but one be throttled again.
    """
    match attempt.outcome:
        case AttemptOutcome.SUCCEEDED:
            return Settle()
        case AttemptOutcome.FUNCTION_ERROR:
            if event.attempts >= len(policy.waits_s):
                return Drop(DropReason.RETRIES_EXHAUSTED)
            wait_s = policy.waits_s[event.attempts]
            return _again(event, now_s, wait_s, policy, attempts=event.attempts + 1, throttles=0)
        case AttemptOutcome.THROTTLED | AttemptOutcome.UNAVAILABLE:
            # The exponent is bounded, since 2.0 ** throttles overflows after a thousand of them.
            longest_s = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2.0 ** min(event.throttles, 32))
            wait_s = longest_s * (0.5 + chance / 2)
            return _again(
                event, now_s, wait_s, policy, attempts=event.attempts, throttles=event.throttles + 1
            )
        case AttemptOutcome.NO_CONCURRENCY:
            return Drop(DropReason.ZERO_RESERVED_CONCURRENCY)
        case AttemptOutcome.FUNCTION_GONE:
            return Drop(DropReason.FUNCTION_DELETED)


def _again(
    event: QueuedEvent, now_s: float, wait_s: float, policy: RetryPolicy, *, attempts: int, throttles: int
) -> Decision:
    due_at_s = now_s + wait_s * policy.scale
    if due_at_s - event.accepted_at_s > policy.maximum_age_s:
        return Drop(DropReason.EVENT_AGE_EXCEEDED)
    return Retry(msgspec.structs.replace(event, due_at_s=due_at_s, attempts=attempts, throttles=throttles))
