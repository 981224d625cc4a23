"""SQS messages as events: their shape, which a filter keeps, which a function says it failed. Pure."""

from collections.abc import Callable, Sequence
from typing import Any, Final, cast

import msgspec

from stoker.events.filters import compile_text_filter
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
    """Whether a message of a queue (its ARN) is kept; None: every one is."""
    keeps = compile_text_filter(patterns, "body")
    if keeps is None:
        return None
    return lambda message, arn: keeps(message_record(message, arn, batched=False), message.body)


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
