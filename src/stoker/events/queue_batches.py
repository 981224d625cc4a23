"""SQS messages as events: their shape, which a filter keeps, which a function says it failed. Pure."""

from collections.abc import Callable, Sequence
from typing import Any, Final, cast

import msgspec

from stoker.events.filters import MISSING, Test, compile_filters
from stoker.services.sources import QueueMessage

PAYLOAD_MAX_BYTES: Final = 6_291_456 - 65_536
"""Of a batch: the limit of synchronous invocations, less what surrounds the records."""
RECORD_OVERHEAD_BYTES: Final = 1024


def message_record(message: QueueMessage, arn: str, *, batched: bool) -> dict[str, Any]:
    """One element of Records. ``batched``: with a batching window a missing digest is shown as null."""
    record: dict[str, Any] = {
        "messageId": message.message_id,
        "receiptHandle": message.receipt,
        "body": message.body,
        "attributes": message.attributes,
        "messageAttributes": {
            name: {
                **cast("dict[str, Any]", msgspec.to_builtins(value)),
                "stringListValues": [],
                "binaryListValues": [],
            }
            for name, value in message.message_attributes.items()
        },
        "md5OfBody": message.md5_of_body,
        "eventSource": "aws:sqs",
        "eventSourceARN": arn,
        "awsRegion": arn.split(":")[3],
    }
    if message.md5_of_attributes is not None or batched:
        record["md5OfMessageAttributes"] = message.md5_of_attributes
    return record


def event_of(messages: Sequence[QueueMessage], arn: str, *, batched: bool) -> bytes:
    """The payload of an invocation."""
    return msgspec.json.encode(
        {"Records": [message_record(message, arn, batched=batched) for message in messages]}
    )


def size_bytes(message: QueueMessage) -> int:
    """About what a message takes of a payload, escapes of JSON included."""
    attributes = sum(
        len(name) + len(value.string_value or value.binary_value or "")
        for name, value in message.message_attributes.items()
    )
    return len(msgspec.json.encode(message.body)) + 4 * attributes + RECORD_OVERHEAD_BYTES


def compile_message_filter(patterns: Sequence[str]) -> Callable[[QueueMessage, str], bool] | None:
    """Whether a message of a queue (its ARN) is kept; None: every one is.

    A body that is a JSON object is matched as such by patterns that want an object, one that is none as text
    by those that want text; the other two combinations never match (developer guide, filtering with SQS).
    """
    tests = [(_wants_object(pattern), cast(Test, compile_filters([pattern]))) for pattern in patterns]
    if not tests:
        return None

    def keeps(message: QueueMessage, arn: str) -> bool:
        record = message_record(message, arn, batched=False)
        decoded = _object(message.body)
        as_object = {**record, "body": decoded}
        as_text = {**record, "body": message.body if decoded is MISSING else MISSING}
        return any(test(as_object if wants_object else as_text) for wants_object, test in tests)

    return keeps


def failed_messages(payload: bytes, message_ids: Sequence[str]) -> frozenset[str]:
    """The messages that a function with ReportBatchItemFailures did not process.

    All of them where its answer is malformed or names a message that is none (developer guide, SQS errors).
    """
    everything = frozenset(message_ids)
    try:
        answer = msgspec.json.decode(payload or b"null", type=_Answer | None)
    except (msgspec.DecodeError, RecursionError):
        return everything
    failures = None if answer is None else answer.batch_item_failures
    failed = frozenset(one.item_identifier for one in failures or ())
    return failed if failed <= everything else everything


class _Failure(msgspec.Struct):
    item_identifier: str = msgspec.field(name="itemIdentifier")


class _Answer(msgspec.Struct):
    batch_item_failures: list[_Failure] | None = msgspec.field(name="batchItemFailures", default=None)


def _wants_object(pattern: str) -> bool:
    return not isinstance(msgspec.json.decode(pattern, type=dict[str, Any]).get("body"), list)


def _object(body: str) -> Any:
    try:
        decoded: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return MISSING
    return decoded if isinstance(decoded, dict) else MISSING  # pyright: ignore[reportUnknownVariableType]
