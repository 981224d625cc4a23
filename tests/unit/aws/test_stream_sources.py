"""What the readers of Kinesis and DynamoDB Streams make of answers and errors that moto does not give."""

import json
from collections.abc import Callable
from typing import Any, cast

import pytest

from stoker.aws.clients import AwsClients
from stoker.aws.dynamodb_source import DynamoDbSource
from stoker.aws.kinesis_source import KinesisSource
from stoker.aws.stream_calls import KINESIS as KINESIS_API
from stoker.aws.stream_calls import StreamCalls, failure_of
from stoker.core.clock import SystemClock
from stoker.services.sources import SourceFailed
from stoker.services.streams import (
    IteratorExpired,
    PositionGone,
    SourceDenied,
    SourceGone,
    SourceThrottled,
)

KINESIS = "arn:aws:kinesis:eu-west-1:000000000000:stream/s"
TABLE = "arn:aws:dynamodb:eu-west-1:000000000000:table/t/stream/1"
MOMENT_S = 1_769_860_800.25


class Calls:
    """Answers as it is told, and remembers what it was asked."""

    def __init__(self, answer: Callable[[str, dict[str, Any]], Any]) -> None:
        self._answer = answer
        self.asked: list[tuple[str, dict[str, Any]]] = []

    async def call(self, arn: str, operation: str, **members: Any) -> Any:
        assert ":eu-west-1:" in arn
        self.asked.append((operation, members))
        return self._answer(operation, members)


def kinesis(answer: Callable[[str, dict[str, Any]], Any]) -> tuple[KinesisSource, Calls]:
    calls = Calls(answer)
    return KinesisSource(cast(StreamCalls, calls)), calls


def dynamodb(answer: Callable[[str, dict[str, Any]], Any]) -> tuple[DynamoDbSource, Calls]:
    calls = Calls(answer)
    return DynamoDbSource(cast(StreamCalls, calls)), calls


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("ProvisionedThroughputExceededException", SourceThrottled),
        ("LimitExceededException", SourceThrottled),
        ("com.amazonaws.kinesis.v20131202#ExpiredIteratorException", IteratorExpired),
        ("TrimmedDataAccessException", PositionGone),
        ("InvalidArgumentException", PositionGone),
        ("ResourceNotFoundException:http://x", SourceGone),
        ("AccessDeniedException", SourceDenied),
        ("InternalFailure", SourceFailed),
    ],
)
def test_errors_are_told_apart(code: str, kind: type[SourceFailed]) -> None:
    content = json.dumps({"__type": code, "message": "why"}).encode()
    problem = failure_of("GetRecords", 400, content)
    assert type(problem) is kind
    assert "why" in str(problem)


@pytest.mark.parametrize("content", [b"", b"<html>", b"[]", b'{"__type": 1}', b"[" * 100_000])
def test_errors_that_are_no_json_are_failures(content: bytes) -> None:
    assert type(failure_of("GetRecords", 503, content)) is SourceFailed


async def test_a_server_that_does_not_answer_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_KINESIS", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    calls = StreamCalls(AwsClients({}), KINESIS_API, SystemClock())
    with pytest.raises(SourceFailed):
        await calls.call(KINESIS, "ListShards", StreamARN=KINESIS)
    await calls.close()


async def test_a_closed_shard_of_kinesis_ends_and_a_consumer_is_read_as_its_stream() -> None:
    source, calls = kinesis(lambda _operation, _options: {"Records": [], "MillisBehindLatest": 0})
    read = await source.read(f"{KINESIS}/consumer/c:1", "shard", "iterator", limit=99_999)
    assert read.iterator is None
    assert not read.behind
    assert calls.asked == [
        ("GetRecords", {"StreamARN": KINESIS, "ShardIterator": "iterator", "Limit": 10_000})
    ]


async def test_shards_of_kinesis_are_listed_to_their_last_page() -> None:
    pages = {
        None: {
            "Shards": [
                {"ShardId": "a", "SequenceNumberRange": {"EndingSequenceNumber": "9"}},
                {"ShardId": "b", "SequenceNumberRange": {"EndingSequenceNumber": "9"}},
            ],
            "NextToken": "more",
        },
        "more": {"Shards": [{"ShardId": "c", "ParentShardId": "a", "AdjacentParentShardId": "b"}]},
    }
    source, _ = kinesis(lambda _operation, options: pages[options.get("NextToken")])
    found = await source.shards(KINESIS)
    assert [(one.shard_id, one.parents, one.closed) for one in found] == [
        ("a", (), True),
        ("b", (), True),
        ("c", ("a", "b"), False),
    ]


async def test_shards_of_a_table_are_listed_to_their_last_page() -> None:
    def answer(_operation: str, options: dict[str, Any]) -> Any:
        if "ExclusiveStartShardId" in options:
            return {"StreamDescription": {"Shards": [{"ShardId": "b", "ParentShardId": "a"}]}}
        return {"StreamDescription": {"Shards": [{"ShardId": "a"}], "LastEvaluatedShardId": "a"}}

    found = await dynamodb(answer)[0].shards(TABLE)
    assert [(one.shard_id, one.parents) for one in found] == [("a", ()), ("b", ("a",))]


async def test_a_record_of_a_table_is_shown_as_aws_does() -> None:
    answer = {
        "eventID": "id",
        "eventName": "REMOVE",
        "eventVersion": "1.1",
        "eventSource": "aws:dynamodb",
        "awsRegion": "eu-west-1",
        "dynamodb": {
            "ApproximateCreationDateTime": MOMENT_S // 1,
            "Keys": {"id": {"S": "x"}},
            "OldImage": {"all": {"L": [{"B": "Zm9vYmFy"}, {"M": {"set": {"BS": ["YQ==", "Yg=="]}}}]}},
            "SequenceNumber": "42",
            "SizeBytes": 9,
            "StreamViewType": "OLD_IMAGE",
        },
        "userIdentity": {"PrincipalId": "dynamodb.amazonaws.com", "Type": "Service"},
    }
    source, _ = dynamodb(lambda _operation, _options: {"Records": [answer], "NextShardIterator": "next"})
    read = await source.read(TABLE, "shard", "iterator", limit=10)
    (record,) = read.records
    assert read.iterator == "next"
    assert record.event["dynamodb"]["OldImage"] == {
        "all": {"L": [{"B": "Zm9vYmFy"}, {"M": {"set": {"BS": ["YQ==", "Yg=="]}}}]}
    }
    assert record.event["dynamodb"]["ApproximateCreationDateTime"] == int(MOMENT_S)
    assert record.event["userIdentity"] == {"principalId": "dynamodb.amazonaws.com", "type": "Service"}
    assert record.event["eventSourceARN"] == TABLE


async def test_records_of_kinesis_keep_milliseconds() -> None:
    answer = {
        "Data": "aGVsbG8=",
        "PartitionKey": "k",
        "SequenceNumber": "7",
        "ApproximateArrivalTimestamp": MOMENT_S,
    }
    source, _ = kinesis(lambda _operation, _options: {"Records": [answer], "NextShardIterator": "n"})
    (record,) = (await source.read(KINESIS, "shard-1", "iterator", limit=10)).records
    assert record.event["kinesis"]["approximateArrivalTimestamp"] == MOMENT_S
    assert record.event["kinesis"]["data"] == "aGVsbG8="
    assert record.event["eventID"] == "shard-1:7"
