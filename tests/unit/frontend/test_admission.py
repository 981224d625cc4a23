"""Admission: reserved and account concurrency, and the request rate."""

import pytest

from stoker.core.errors import ServiceError
from stoker.frontend.admission import Admission, Admitted
from stoker.services.functions import FunctionKey

F = FunctionKey("000000000000", "us-east-1", "f")
G = FunctionKey("000000000000", "us-east-1", "g")


def enter(
    admission: Admission,
    key: FunctionKey = F,
    *,
    reserved: int | None = None,
    total: int = 0,
    event: bool = False,
    now_s: float = 0.0,
) -> Admitted:
    return admission.enter(key, reserved=reserved, total_reserved=total, event=event, now_s=now_s)


def reason_of(call: pytest.ExceptionInfo[ServiceError]) -> str:
    assert call.value.code == "TooManyRequestsException"
    assert call.value.message == "Rate Exceeded."
    assert call.value.fields["Type"] == "User"
    return call.value.fields["Reason"]


def test_reserved_concurrency_is_a_ceiling() -> None:
    admission = Admission()
    first = enter(admission, reserved=2)
    enter(admission, reserved=2)
    with pytest.raises(ServiceError) as refused:
        enter(admission, reserved=2)
    assert reason_of(refused) == "ReservedFunctionConcurrentInvocationLimitExceeded"
    admission.leave(first)
    enter(admission, reserved=2)
    assert admission.in_flight(F) == 2
    assert admission.statistics().throttled == 1


def test_zero_reserved_concurrency_lets_nobody_in() -> None:
    with pytest.raises(ServiceError) as refused:
        enter(Admission(), reserved=0)
    assert reason_of(refused) == "ReservedFunctionConcurrentInvocationLimitExceeded"


def test_the_unreserved_share_what_reservations_leave() -> None:
    admission = Admission(10)
    admitted = [enter(admission, key, total=7) for key in (F, G, F)]
    with pytest.raises(ServiceError) as refused:
        enter(admission, G, total=7)
    assert reason_of(refused) == "ConcurrentInvocationLimitExceeded"
    enter(admission, FunctionKey("000000000000", "us-east-1", "h"), reserved=7, total=7)
    admission.leave(admitted[0])
    enter(admission, G, total=7)


def test_accounts_and_regions_have_their_own_concurrency() -> None:
    admission = Admission(1)
    enter(admission)
    enter(admission, FunctionKey("111111111111", "us-east-1", "f"))
    enter(admission, FunctionKey("000000000000", "eu-west-1", "f"))
    with pytest.raises(ServiceError):
        enter(admission, G)


def test_what_ran_before_a_reservation_counts_against_it() -> None:
    admission = Admission(10)
    running = [enter(admission) for _ in range(3)]
    with pytest.raises(ServiceError):
        enter(admission, reserved=3, total=3)
    admission.leave(running.pop())
    reserved = enter(admission, reserved=3, total=3)
    for admitted in (*running, reserved):
        admission.leave(admitted)
    assert admission.statistics().in_flight == 0
    for _ in range(7):
        enter(admission, G, total=3)
    with pytest.raises(ServiceError):
        enter(admission, G, total=3)


def test_ten_requests_a_second_for_each_unit_of_concurrency() -> None:
    admission = Admission(2)
    for _ in range(20):
        admission.leave(enter(admission, now_s=5.0))
    with pytest.raises(ServiceError) as refused:
        enter(admission, now_s=5.0)
    assert reason_of(refused) == "FunctionInvocationRateLimitExceeded"
    for _ in range(10):
        admission.leave(enter(admission, now_s=5.5))
    with pytest.raises(ServiceError):
        enter(admission, now_s=5.5)


def test_the_rate_of_a_reserved_function_is_its_own() -> None:
    admission = Admission(1000)
    for _ in range(10):
        admission.leave(enter(admission, reserved=1, total=1))
    with pytest.raises(ServiceError) as refused:
        enter(admission, reserved=1, total=1)
    assert reason_of(refused) == "ReservedFunctionInvocationRateLimitExceeded"
    enter(admission, G, total=1)


def test_events_leave_half_of_the_unreserved_to_callers() -> None:
    admission = Admission(10)
    for _ in range(5):
        enter(admission, event=True)
    with pytest.raises(ServiceError) as refused:
        enter(admission, event=True)
    assert reason_of(refused) == "ConcurrentInvocationLimitExceeded"
    for _ in range(5):
        enter(admission)
    with pytest.raises(ServiceError):
        enter(admission)


def test_one_event_may_always_run() -> None:
    admission = Admission(1)
    admission.leave(enter(admission, event=True))


def test_events_have_no_request_rate() -> None:
    admission = Admission(2)
    for _ in range(100):
        admission.leave(enter(admission, event=True))
    for _ in range(100):
        admission.leave(enter(admission, reserved=1, total=1, event=True))


def test_functions_that_rest_are_forgotten_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stoker.frontend.admission.FUNCTIONS_KEPT", 3)
    admission = Admission()
    busy = enter(admission)
    for number in range(20):
        admission.leave(enter(admission, FunctionKey("000000000000", "us-east-1", f"n{number}")))
    assert admission.in_flight(F) == 1
    assert len(admission._functions) <= 4
    admission.leave(busy)
