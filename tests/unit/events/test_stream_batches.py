"""Batches of streams: sizes, ages, halves, retries; property: no record is lost or doubled by a decision."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.events.stream_answers import first_failed, window_state
from stoker.events.stream_batches import (
    AGE_EXCEEDED,
    PAYLOAD_MAX_BYTES,
    RETRIES_EXHAUSTED,
    BatchRules,
    Work,
    after_attempt,
    batch_length,
    without_old,
)
from stoker.services.events import Attempt, AttemptOutcome
from stoker.services.streams import StreamRecord

RAISED = Attempt(AttemptOutcome.FUNCTION_ERROR, function_error="Unhandled", executed_version="1")
FINE = Attempt(AttemptOutcome.SUCCEEDED, executed_version="1")


def record(number: int, *, arrived_at_s: float = 1000.0, size_bytes: int = 100) -> StreamRecord:
    return StreamRecord(
        sequence_number=str(number),
        order_key="k",
        arrived_at_s=arrived_at_s,
        size_bytes=size_bytes,
        event={},
    )


def work(count: int, **changes: object) -> Work:
    made = Work(records=tuple(record(number) for number in range(count)))
    return msgspec.structs.replace(made, **changes)


def test_a_batch_has_at_most_its_size_and_is_full_then() -> None:
    rules = BatchRules(batch_size=3)
    assert batch_length([record(n) for n in range(2)], rules) == (2, False)
    assert batch_length([record(n) for n in range(3)], rules) == (3, True)
    assert batch_length([record(n) for n in range(9)], rules) == (3, True)


def test_a_batch_is_cut_at_the_payload_limit_and_has_one_record_at_least() -> None:
    rules = BatchRules(batch_size=100)
    half = PAYLOAD_MAX_BYTES // 2
    assert batch_length([record(n, size_bytes=half) for n in range(3)], rules) == (2, True)
    assert batch_length([record(0, size_bytes=9 * half), record(1)], rules) == (1, True)


def test_a_batch_ends_where_a_window_does_but_not_at_a_record_that_came_late() -> None:
    rules = BatchRules(batch_size=100, tumbling_s=10)
    times = [1005.0, 1001.0, 1009.9, 999.0, 1010.0]
    pending = [record(number, arrived_at_s=at_s) for number, at_s in enumerate(times)]
    assert batch_length(pending, rules) == (4, True)


@pytest.mark.parametrize(
    "outcome", [AttemptOutcome.THROTTLED, AttemptOutcome.UNAVAILABLE, AttemptOutcome.NO_CONCURRENCY]
)
def test_what_did_not_reach_the_function_does_not_count(outcome: AttemptOutcome) -> None:
    rules = BatchRules(batch_size=10, retries_max=0, bisects=True)
    step = after_attempt(rules, work(4), Attempt(outcome), None)
    assert step.rest == (work(4),)
    assert step.waits
    assert step.discard is None


def test_retries_are_counted_and_end() -> None:
    rules, left, tries = BatchRules(batch_size=10, retries_max=2), work(4), 0
    while True:
        tries += 1
        step = after_attempt(rules, left, RAISED, None)
        if step.discard is not None:
            break
        (left,) = step.rest
    assert tries == 3
    assert step.discard.condition == RETRIES_EXHAUSTED
    assert step.discard.work.invocations == 3
    assert not step.waits


def test_a_partial_failure_is_cut_where_the_function_says() -> None:
    for bisects in (False, True):
        step = after_attempt(BatchRules(batch_size=10, bisects=bisects), work(6), FINE, 2)
        assert step.done == 2
        assert [one.sequence_number for one in step.rest[0].records] == ["2", "3", "4", "5"]


@given(
    count=st.integers(1, 40),
    failing=st.sets(st.integers(0, 39)),
    partial=st.booleans(),
    bisects=st.booleans(),
    retries=st.integers(0, 3),
)
def test_every_record_is_done_or_given_up_once_and_in_order(
    count: int, failing: set[int], partial: bool, bisects: bool, retries: int
) -> None:
    rules = BatchRules(batch_size=100, retries_max=retries, bisects=bisects)
    works, ended, attempts = [work(count)], list[int](), 0
    while works:
        now = works.pop(0)
        bad = [index for index, one in enumerate(now.records) if int(one.sequence_number) in failing]
        attempts += 1
        failed_at = bad[0] if bad and partial else None
        step = after_attempt(rules, now, RAISED if bad and not partial else FINE, failed_at)
        ended += [int(one.sequence_number) for one in now.records[: step.done]]
        if step.discard is not None:
            ended += [int(one.sequence_number) for one in step.discard.work.records]
        works[:0] = step.rest
    assert ended == list(range(count))
    assert attempts <= 2 * count * (retries + 2)


def test_leading_records_that_are_too_old_are_cut_off() -> None:
    records = tuple(record(number, arrived_at_s=float(number)) for number in range(6))
    discard, left = without_old(Work(records=records), 63.0, 60)
    assert discard is not None
    assert discard.condition == AGE_EXCEEDED
    assert [one.sequence_number for one in discard.work.records] == ["0", "1", "2"]
    assert [one.sequence_number for one in left.records] == ["3", "4", "5"]
    assert without_old(Work(records=records), 1e9, -1) == (None, Work(records=records))


@pytest.mark.parametrize(
    "payload",
    [b"", b"null", b"{}", b'""', b'{"batchItemFailures": []}', b'{"batchItemFailures": null}', b'{"x": 1}'],
)
def test_answers_that_are_success(payload: bytes) -> None:
    assert first_failed(payload, ["1", "2"]) is None


@pytest.mark.parametrize(
    "failure",
    [
        {},
        {"foo": "1"},
        {"foo": None},
        {"itemIdentifier": None},
        {"itemIdentifier": ""},
        {"itemIdentifier": "9"},
        {"itemIdentifier": 1},
        "1",
    ],
)
def test_answers_that_fail_the_whole_batch(failure: object) -> None:
    payload = msgspec.json.encode({"batchItemFailures": [{"itemIdentifier": "2"}, failure]})
    assert first_failed(payload, ["1", "2"]) == 0


@pytest.mark.parametrize(
    "payload", [b"[", b"[]", b"1", b'"text"', b'{"batchItemFailures": 1}', b"[" * 100_000]
)
def test_malformed_answers_fail_the_whole_batch(payload: bytes) -> None:
    assert first_failed(payload, ["1", "2"]) == 0


def test_the_lowest_of_what_failed_counts() -> None:
    names = ["9", "10", "111"]
    payload = msgspec.json.encode({"batchItemFailures": [{"itemIdentifier": one} for one in ("111", "10")]})
    assert first_failed(payload, names) == 1


def test_a_state_is_an_object() -> None:
    assert bytes(window_state(b'{"state": {"a": [1]}}') or b"") == b'{"a": [1]}'
    for payload in (
        b"",
        b"null",
        b"{}",
        b'{"state": null}',
        b'{"state": 1}',
        b'{"state": [1]}',
        b"[",
        b"[" * 9999,
    ):
        assert window_state(payload) is None
