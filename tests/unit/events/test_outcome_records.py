"""Records of how events ended, against what AWS sent (recorded 24-11-2025 and 27-11-2025)."""

import json
from typing import Any

import msgspec
import pytest

from stoker.events.outcome_records import Ending, dead_letter_attributes, delivery, invocation_record
from stoker.events.retries import DropReason
from stoker.services.events import Attempt, AttemptOutcome
from stoker.services.functions import FunctionKey
from stoker.services.queue import DeliveryKind, QueuedEvent

ARN = "arn:aws:lambda:us-east-1:111111111111:function:f"
EVENT = QueuedEvent(
    request_id="5f8d",
    key=FunctionKey("111111111111", "us-east-1", "f"),
    qualifier="",
    payload=b'{"raise_error": 1}',
    accepted_at_s=0.0,
    due_at_s=0.0,
    attempts=2,
)
ERROR = {"errorMessage": "intentional", "errorType": "Exception", "requestId": "5f8d", "stackTrace": ["a"]}
FAILED = Attempt(AttemptOutcome.FUNCTION_ERROR, "", json.dumps(ERROR).encode(), "Unhandled", "$LATEST")
NOW_S = 1_700_000_000.25


def ending(reason: DropReason | None, attempt: Attempt | None, **event: object) -> Ending:
    changed = msgspec.structs.replace(EVENT, **event)
    return Ending(event=changed, reason=reason, attempt=attempt, now_s=NOW_S)


def record(*arguments: Any, **event: object) -> Any:
    return json.loads(invocation_record(ending(*arguments, **event)))


def test_retries_exhausted_as_recorded() -> None:
    assert record(DropReason.RETRIES_EXHAUSTED, FAILED) == {
        "version": "1.0",
        "timestamp": "2023-11-14T22:13:20.250Z",
        "requestContext": {
            "requestId": "5f8d",
            "functionArn": f"{ARN}:$LATEST",
            "condition": "RetriesExhausted",
            "approximateInvokeCount": 3,
        },
        "requestPayload": {"raise_error": 1},
        "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
        "responsePayload": ERROR,
    }


def test_age_exceeded_after_the_first_attempt_as_recorded() -> None:
    shown = record(DropReason.EVENT_AGE_EXCEEDED, FAILED, attempts=0)
    assert shown["requestContext"]["condition"] == "EventAgeExceeded"
    assert shown["requestContext"]["approximateInvokeCount"] == 1
    assert shown["responsePayload"] == ERROR


def test_success_names_the_version_that_ran_and_the_alias_that_was_called() -> None:
    succeeded = Attempt(AttemptOutcome.SUCCEEDED, "", b"[1, 2]", None, "7")
    shown = record(None, succeeded, attempts=1, qualifier="live")
    assert shown["requestContext"] == {
        "requestId": "5f8d",
        "functionArn": f"{ARN}:live",
        "condition": "Success",
        "approximateInvokeCount": 2,
    }
    assert shown["responseContext"] == {"statusCode": 200, "executedVersion": "7"}
    assert shown["responsePayload"] == [1, 2]


@pytest.mark.parametrize("attempt", [None, Attempt(AttemptOutcome.NO_CONCURRENCY)])
def test_what_never_ran_has_no_response(attempt: Attempt | None) -> None:
    shown = record(DropReason.ZERO_RESERVED_CONCURRENCY, attempt, attempts=0)
    assert "responseContext" not in shown
    assert "responsePayload" not in shown
    assert shown["requestContext"]["approximateInvokeCount"] == 0


@pytest.mark.parametrize(
    ("payload", "shown"), [(b"", None), (b"{oops", "{oops"), (b"\xff", "\ufffd"), (b'"x"', "x")]
)
def test_a_response_that_is_no_json_is_a_string(payload: bytes, shown: object) -> None:
    attempt = Attempt(AttemptOutcome.SUCCEEDED, "", payload, None, "$LATEST")
    assert record(None, attempt)["responsePayload"] == shown


def test_a_dead_letter_is_the_event_with_three_attributes() -> None:
    made = delivery(ending(DropReason.RETRIES_EXHAUSTED, FAILED), DeliveryKind.DEAD_LETTER, "arn:aws:sqs:::q")
    assert made.body == EVENT.payload
    assert made.attributes == {"RequestID": "5f8d", "ErrorCode": "200", "ErrorMessage": "intentional"}


@pytest.mark.parametrize(
    ("reason", "attempt", "event", "code"),
    [
        (DropReason.ZERO_RESERVED_CONCURRENCY, Attempt(AttemptOutcome.NO_CONCURRENCY), {}, "429"),
        (DropReason.EVENT_AGE_EXCEEDED, Attempt(AttemptOutcome.THROTTLED, "x"), {}, "429"),
        (DropReason.EVENT_AGE_EXCEEDED, Attempt(AttemptOutcome.UNAVAILABLE, "x"), {}, "500"),
        (DropReason.EVENT_AGE_EXCEEDED, None, {"throttles": 1}, "429"),
    ],
)
def test_the_code_of_a_dead_letter(reason: DropReason, attempt: Any, event: Any, code: str) -> None:
    assert dead_letter_attributes(ending(reason, attempt, **event))["ErrorCode"] == code


def test_a_long_error_message_is_cut_to_a_kilobyte_of_whole_characters() -> None:
    payload = json.dumps({"errorMessage": "x" + "é" * 2000}).encode()
    attempt = Attempt(AttemptOutcome.FUNCTION_ERROR, "", payload, "Unhandled", "$LATEST")
    message = dead_letter_attributes(ending(DropReason.RETRIES_EXHAUSTED, attempt))["ErrorMessage"]
    assert message == "x" + "é" * 511
