"""What the readers of Kinesis and DynamoDB Streams make of answers and errors that moto does not give."""

import datetime
from collections.abc import Callable
from typing import Any, cast

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from stoker.aws.clients import AwsClients
from stoker.aws.dynamodb_source import DynamoDbSource
from stoker.aws.kinesis_source import KinesisSource
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
MOMENT = datetime.datetime(2026, 1, 31, 12, 0, 0, 250_000, tzinfo=datetime.UTC)


class Clients:
    """One client whose every operation answers alike, and remembers what it was asked."""

    def __init__(self, answer: Callable[[str, dict[str, Any]], Any]) -> None:
        self._answer = answer
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def client(self, service: str, region: str) -> Any:
        assert service in ("kinesis", "dynamodbstreams")
        assert region == "eu-west-1"
        return self

    def __getattr__(self, operation: str) -> Callable[..., Any]:
        def call(**options: Any) -> Any:
            self.asked.append((operation, options))
            return self._answer(operation, options)

        return call


def kinesis(answer: Callable[[str, dict[str, Any]], Any]) -> tuple[KinesisSource, Clients]:
    clients = Clients(answer)
    return KinesisSource(cast(AwsClients, clients)), clients


def dynamodb(answer: Callable[[str, dict[str, Any]], Any]) -> tuple[DynamoDbSource, Clients]:
    clients = Clients(answer)
    return DynamoDbSource(cast(AwsClients, clients)), clients


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("ProvisionedThroughputExceededException", SourceThrottled),
        ("LimitExceededException", SourceThrottled),
        ("ExpiredIteratorException", IteratorExpired),
        ("TrimmedDataAccessException", PositionGone),
        ("InvalidArgumentException", PositionGone),
        ("ResourceNotFoundException", SourceGone),
        ("AccessDeniedException", SourceDenied),
        ("InternalFailure", SourceFailed),
    ],
)
async def test_errors_are_told_apart(code: str, kind: type[SourceFailed]) -> None:
    def answer(operation: str, _options: dict[str, Any]) -> Any:
        raise ClientError({"Error": {"Code": code, "Message": "no"}}, operation)

    for source, arn in ((kinesis(answer)[0], KINESIS), (dynamodb(answer)[0], TABLE)):
        with pytest.raises(kind) as raised:
            await source.read(arn, "shard", "iterator", limit=10)
        assert type(raised.value) is kind


async def test_a_server_that_does_not_answer_is_a_failure() -> None:
    def answer(_operation: str, _options: dict[str, Any]) -> Any:
        raise EndpointConnectionError(endpoint_url="http://nowhere")

    with pytest.raises(SourceFailed):
        await kinesis(answer)[0].shards(KINESIS)


async def test_a_closed_shard_of_kinesis_ends_and_a_consumer_is_read_as_its_stream() -> None:
    source, clients = kinesis(lambda _operation, _options: {"Records": [], "MillisBehindLatest": 0})
    read = await source.read(f"{KINESIS}/consumer/c:1", "shard", "iterator", limit=99_999)
    assert read.iterator is None
    assert not read.behind
    assert clients.asked == [
        ("get_records", {"StreamARN": KINESIS, "ShardIterator": "iterator", "Limit": 10_000})
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
            "ApproximateCreationDateTime": MOMENT.replace(microsecond=0),
            "Keys": {"id": {"S": "x"}},
            "OldImage": {"all": {"L": [{"B": b"foobar"}, {"M": {"set": {"BS": [b"a", b"b"]}}}]}},
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
    assert record.event["dynamodb"]["ApproximateCreationDateTime"] == int(MOMENT.timestamp())
    assert record.event["userIdentity"] == {"principalId": "dynamodb.amazonaws.com", "type": "Service"}
    assert record.event["eventSourceARN"] == TABLE


async def test_records_of_kinesis_keep_milliseconds() -> None:
    answer = {
        "Data": b"hello",
        "PartitionKey": "k",
        "SequenceNumber": "7",
        "ApproximateArrivalTimestamp": MOMENT,
    }
    source, _ = kinesis(lambda _operation, _options: {"Records": [answer], "NextShardIterator": "n"})
    (record,) = (await source.read(KINESIS, "shard-1", "iterator", limit=10)).records
    assert record.event["kinesis"]["approximateArrivalTimestamp"] == MOMENT.timestamp()
    assert record.event["kinesis"]["data"] == "aGVsbG8="
    assert record.event["eventID"] == "shard-1:7"
