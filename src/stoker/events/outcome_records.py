"""The records that tell of an asynchronous event's end, as AWS writes them. Pure."""

from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from stoker.events.retries import DropReason
from stoker.services.events import Attempt, AttemptOutcome
from stoker.services.functions import LATEST
from stoker.services.queue import Delivery, DeliveryKind, QueuedEvent

ERROR_MESSAGE_MAX_BYTES: Final = 1024
"""Of a dead letter's ErrorMessage attribute (developer guide, dead-letter queues)."""

_THROTTLED: Final = "Rate Exceeded."


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """How an event ended. ``reason``: None, it succeeded. ``attempt``: the last, if one was made."""

    event: QueuedEvent
    reason: DropReason | None
    attempt: Attempt | None
    now_s: float

    @property
    def function_arn(self) -> str:
        """As the event named it, always with a qualifier."""
        return f"{self.event.key.arn}:{self.event.qualifier or LATEST}"


def invocation_record(ending: Ending) -> bytes:
    """The JSON document for an OnSuccess or OnFailure destination."""
    event, attempt = ending.event, ending.attempt
    ran = attempt if attempt is not None and attempt.executed_version is not None else None
    record: dict[str, Any] = {
        "version": "1.0",
        "timestamp": timestamp(ending.now_s),
        "requestContext": {
            "requestId": event.request_id,
            "functionArn": ending.function_arn,
            "condition": "Success" if ending.reason is None else ending.reason.value,
            "approximateInvokeCount": event.attempts + (ran is not None),
        },
        "requestPayload": _embedded(event.payload),
    }
    if ran is not None:
        context: dict[str, Any] = {"statusCode": 200, "executedVersion": ran.executed_version}
        if ran.function_error is not None:
            context["functionError"] = ran.function_error
        record["responseContext"] = context
        record["responsePayload"] = _embedded(ran.payload)
    return msgspec.json.encode(record)


def delivery(ending: Ending, kind: DeliveryKind, destination: str) -> Delivery:
    """What is sent to ``destination``, due at once: a record, or as a dead letter the event itself."""
    dead = kind is DeliveryKind.DEAD_LETTER
    return Delivery(
        delivery_id=f"{ending.event.request_id} {kind.value}",
        kind=kind,
        request_id=ending.event.request_id,
        function_arn=ending.function_arn,
        destination=destination,
        body=ending.event.payload if dead else invocation_record(ending),
        attributes=dead_letter_attributes(ending) if dead else {},
        created_at_s=ending.now_s,
        due_at_s=ending.now_s,
    )


def dead_letter_attributes(ending: Ending) -> dict[str, str]:
    """RequestID, ErrorCode (the HTTP status) and ErrorMessage, the first KB of it."""
    code, message = _error(ending)
    cut = message.encode()[:ERROR_MESSAGE_MAX_BYTES].decode(errors="ignore")
    attributes = {"RequestID": ending.event.request_id, "ErrorCode": str(code)}
    return {**attributes, "ErrorMessage": cut} if cut else attributes


def timestamp(at_s: float) -> str:
    """``2026-01-31T12:00:00.000Z``."""
    moment = datetime.fromtimestamp(at_s, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"


def _error(ending: Ending) -> tuple[int, str]:
    attempt = ending.attempt
    if ending.reason is DropReason.ZERO_RESERVED_CONCURRENCY:
        return 429, _THROTTLED
    if attempt is None:
        return (429, _THROTTLED) if ending.event.throttles else (200, "")
    match attempt.outcome:
        case AttemptOutcome.THROTTLED:
            return 429, _THROTTLED
        case AttemptOutcome.FUNCTION_ERROR:
            return 200, _error_message(attempt.payload)
        case _:
            return 500, attempt.detail


def _error_message(payload: bytes) -> str:
    try:
        return msgspec.json.decode(payload, type=_FunctionError).error_message
    except msgspec.DecodeError:
        return payload.decode(errors="replace")


class _FunctionError(msgspec.Struct):
    error_message: str = msgspec.field(name="errorMessage")


def _embedded(payload: bytes) -> msgspec.Raw | str | None:
    """A payload inside a record; what is no JSON (custom runtimes may answer so) as a string."""
    if not payload:
        return None
    try:
        msgspec.json.decode(payload)
    except (msgspec.DecodeError, RecursionError):
        return payload.decode(errors="replace")
    return msgspec.Raw(payload)
