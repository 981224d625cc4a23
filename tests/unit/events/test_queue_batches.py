"""SQS messages as events: the recorded shape, filters on bodies, and what partial answers mean."""

import json
from typing import Any

import msgspec
import pytest

from stoker.events.queue_batches import compile_message_filter, event_of, failed_messages
from stoker.services.sources import MessageAttribute, QueueMessage

ARN = "arn:aws:sqs:eu-west-1:111111111111:q"
ATTRIBUTES = {"ApproximateReceiveCount": "1", "SenderId": "s", "SentTimestamp": "1"}
MESSAGE = QueueMessage(
    message_id="m",
    receipt="r",
    body='{"message": 1}',
    md5_of_body="d",
    attributes=ATTRIBUTES,
    md5_of_attributes="e",
    message_attributes={"Author": MessageAttribute(string_value="John", data_type="String")},
)


def test_a_record_as_recorded() -> None:
    assert json.loads(event_of([MESSAGE], ARN, batched=False)) == {
        "Records": [
            {
                "messageId": "m",
                "receiptHandle": "r",
                "body": '{"message": 1}',
                "attributes": ATTRIBUTES,
                "messageAttributes": {
                    "Author": {
                        "stringValue": "John",
                        "stringListValues": [],
                        "binaryListValues": [],
                        "dataType": "String",
                    }
                },
                "md5OfBody": "d",
                "md5OfMessageAttributes": "e",
                "eventSource": "aws:sqs",
                "eventSourceARN": ARN,
                "awsRegion": "eu-west-1",
            }
        ]
    }


def test_a_digest_that_is_not_there_is_null_with_a_window_and_left_out_without() -> None:
    plain = msgspec.structs.replace(MESSAGE, message_attributes={}, md5_of_attributes=None)
    (record,) = json.loads(event_of([plain], ARN, batched=True))["Records"]
    assert record["md5OfMessageAttributes"] is None
    (record,) = json.loads(event_of([plain], ARN, batched=False))["Records"]
    assert "md5OfMessageAttributes" not in record


@pytest.mark.parametrize(
    ("pattern", "body", "kept"),
    [
        ({"body": {"a": [1]}}, '{"a": 1}', True),
        ({"body": {"a": [1]}}, '{"a": 2}', False),
        ({"body": {"a": [1]}}, "text", False),
        ({"body": ["text"]}, "text", True),
        ({"body": ["text"]}, "other", False),
        ({"body": ["text"]}, '{"text": 1}', False),
        ({"messageAttributes": {"Author": {"stringValue": ["John"]}}}, "text", True),
        ({"messageAttributes": {"Author": {"stringValue": ["Jane"]}}}, "text", False),
    ],
)
def test_filters_on_bodies_and_on_the_rest(pattern: Any, body: str, kept: bool) -> None:
    keeps = compile_message_filter([json.dumps(pattern)])
    assert keeps is not None
    assert keeps(msgspec.structs.replace(MESSAGE, body=body), ARN) is kept


@pytest.mark.parametrize(
    ("answer", "failed"),
    [
        ("", set()),
        ("null", set()),
        ("{}", set()),
        ('{"batchItemFailures": null}', set()),
        ('{"batchItemFailures": []}', set()),
        ('{"batchItemFailures": [{"itemIdentifier": "b"}]}', {"b"}),
        ('{"batchItemFailures": [{"itemIdentifier": ""}]}', {"a", "b"}),
        ('{"batchItemFailures": [{"itemIdentifier": null}]}', {"a", "b"}),
        ('{"batchItemFailures": [{"itemIdentifiers": "b"}]}', {"a", "b"}),
        ('{"batchItemFailures": [{"itemIdentifier": "c"}]}', {"a", "b"}),
        ('{"batchItemFailures": "b"}', {"a", "b"}),
        ('"done"', {"a", "b"}),
        ("{oops", {"a", "b"}),
        ("[" * 5000, {"a", "b"}),
    ],
)
def test_what_a_partial_answer_means(answer: str, failed: set[str]) -> None:
    assert failed_messages(answer.encode(), ["a", "b"]) == failed
