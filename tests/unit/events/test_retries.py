"""What becomes of an event after an attempt: AWS's figures, as a table."""

import msgspec
import pytest

from stoker.events.retries import Drop, DropReason, Retry, RetryPolicy, Settle, decide, is_too_old
from stoker.services.events import Attempt, AttemptOutcome
from stoker.services.functions import FunctionKey
from stoker.services.queue import QueuedEvent

EVENT = QueuedEvent(
    request_id="r",
    key=FunctionKey("000000000000", "us-east-1", "f"),
    qualifier="",
    payload=b"{}",
    accepted_at_s=1000.0,
    due_at_s=1000.0,
)
POLICY = RetryPolicy()


def after(
    outcome: AttemptOutcome,
    now_s: float = 1000.0,
    policy: RetryPolicy = POLICY,
    chance: float = 1.0,
    **changes: object,
):
    return decide(msgspec.structs.replace(EVENT, **changes), Attempt(outcome), now_s, policy, chance=chance)


def test_success_settles() -> None:
    assert after(AttemptOutcome.SUCCEEDED) == Settle()


def test_a_function_error_is_tried_twice_more_after_one_and_two_minutes() -> None:
    first = after(AttemptOutcome.FUNCTION_ERROR, now_s=1010.0)
    assert isinstance(first, Retry)
    assert (first.event.due_at_s, first.event.attempts) == (1070.0, 1)
    second = after(AttemptOutcome.FUNCTION_ERROR, now_s=1080.0, attempts=1)
    assert isinstance(second, Retry)
    assert (second.event.due_at_s, second.event.attempts) == (1200.0, 2)
    assert second.event.request_id == EVENT.request_id
    assert after(AttemptOutcome.FUNCTION_ERROR, attempts=2) == Drop(DropReason.RETRIES_EXHAUSTED)


@pytest.mark.parametrize("outcome", [AttemptOutcome.THROTTLED, AttemptOutcome.UNAVAILABLE])
def test_what_could_not_be_started_backs_off_from_a_second_to_five_minutes(outcome: AttemptOutcome) -> None:
    waits: list[float] = []
    for throttles in [*range(10), 2000]:
        decision = after(outcome, throttles=throttles)
        assert isinstance(decision, Retry)
        assert decision.event.throttles == throttles + 1
        assert decision.event.attempts == 0
        waits.append(decision.event.due_at_s - 1000.0)
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


def test_back_offs_are_spread_by_half() -> None:
    for chance, due_at_s in ((0.0, 1004.0), (0.5, 1006.0), (1.0, 1008.0)):
        decision = after(AttemptOutcome.THROTTLED, throttles=3, chance=chance)
        assert isinstance(decision, Retry)
        assert decision.event.due_at_s == due_at_s


def test_a_function_error_starts_the_back_off_anew() -> None:
    decision = after(AttemptOutcome.FUNCTION_ERROR, throttles=7)
    assert isinstance(decision, Retry)
    assert decision.event.throttles == 0


def test_six_hours_are_the_end() -> None:
    six_hours_s = 6 * 3600.0
    assert not is_too_old(EVENT, 1000.0 + six_hours_s, POLICY)
    assert is_too_old(EVENT, 1000.1 + six_hours_s, POLICY)
    late_s = 1000.0 + six_hours_s - 299.0
    assert after(AttemptOutcome.THROTTLED, now_s=late_s, throttles=9) == Drop(DropReason.EVENT_AGE_EXCEEDED)
    assert isinstance(after(AttemptOutcome.THROTTLED, now_s=late_s, throttles=8), Retry)


def test_what_can_never_run_is_dropped_at_once() -> None:
    assert after(AttemptOutcome.NO_CONCURRENCY) == Drop(DropReason.ZERO_RESERVED_CONCURRENCY)
    assert after(AttemptOutcome.FUNCTION_GONE) == Drop(DropReason.FUNCTION_DELETED)


def test_waits_scale_and_ages_do_not() -> None:
    policy = RetryPolicy(scale=0.01)
    decision = after(AttemptOutcome.FUNCTION_ERROR, policy=policy)
    assert isinstance(decision, Retry)
    assert decision.event.due_at_s == pytest.approx(1000.6)
    assert not is_too_old(EVENT, 2000.0, policy)
