"""What every adapter of StreamSource promises: the fake, and botocore's against a moto server.

moto never ends a shard, expires no iterator and throttles nothing (its NextShardIterator is always there); what
the adapters make of those answers is in tests/unit/aws.
"""

import json
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any, Protocol

import boto3
import pytest
from moto.server import ThreadedMotoServer

from stoker.aws.clients import AwsClients
from stoker.aws.dynamodb_source import DynamoDbSource
from stoker.aws.kinesis_source import KinesisSource
from stoker.aws.stream_calls import DYNAMODB_STREAMS, KINESIS, StreamCalls
from stoker.core.clock import SystemClock
from stoker.services.streams import Position, SourceGone, Start, StreamSource
from stoker.store.memory_streams import MemoryStream

REGION = "us-east-1"
OLDEST = Position(start=Start.OLDEST)


class Stream(Protocol):
    """A stream to test with."""

    source: StreamSource
    arn: str

    def put(self, name: str) -> None: ...


class InMemory:
    arn = "arn:aws:kinesis:us-east-1:000000000000:stream/s"

    def __init__(self) -> None:
        self._stream = MemoryStream("shard")
        self.source: StreamSource = self._stream

    def put(self, name: str) -> None:
        self._stream.put("shard", name, name, time.time())


class InKinesis:
    def __init__(self, client: Any, name: str) -> None:
        self._client = client("kinesis")
        self._client.create_stream(StreamName=name, ShardCount=1)
        self.arn = self._client.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"][
            "StreamARN"
        ]
        self.source: StreamSource = KinesisSource(StreamCalls(AwsClients({}), KINESIS, SystemClock()))

    def put(self, name: str) -> None:
        self._client.put_record(StreamARN=self.arn, Data=name.encode(), PartitionKey=name)


class InDynamoDb:
    def __init__(self, client: Any, name: str) -> None:
        self._client, self._table = client("dynamodb"), name
        made = self._client.create_table(
            TableName=name,
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
            StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"},
        )
        self.arn = made["TableDescription"]["LatestStreamArn"]
        self.source: StreamSource = DynamoDbSource(
            StreamCalls(AwsClients({}), DYNAMODB_STREAMS, SystemClock())
        )

    def put(self, name: str) -> None:
        self._client.put_item(TableName=self._table, Item={"id": {"S": name}, "bytes": {"B": b"foobar"}})


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture(params=["memory", "kinesis", "dynamodb"])
async def stream(
    request: pytest.FixtureRequest, server: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Stream]:
    for service in ("KINESIS", "DYNAMODB", "DYNAMODB_STREAMS"):
        monkeypatch.setenv(f"AWS_ENDPOINT_URL_{service}", server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")

    def client(service: str) -> Any:
        keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret"}
        return boto3.client(service, endpoint_url=server, region_name=REGION, **keys)

    name = f"s{time.monotonic_ns()}"
    made: Stream = InMemory()
    if request.param != "memory":
        made = InKinesis(client, name) if request.param == "kinesis" else InDynamoDb(client, name)
    yield made
    await made.source.close()


async def keys_from(stream: Stream, position: Position, limit: int = 100) -> list[tuple[str, str]]:
    """(order key, sequence number) of what lies behind a position."""
    (shard,) = await stream.source.shards(stream.arn)
    iterator: str | None = await stream.source.iterator(stream.arn, shard.shard_id, position)
    found: list[tuple[str, str]] = []
    for _ in range(20):
        assert iterator is not None
        read = await stream.source.read(stream.arn, shard.shard_id, iterator, limit=limit)
        assert len(read.records) <= limit
        found += [(record.order_key, record.sequence_number) for record in read.records]
        iterator = read.iterator
        if not read.records and not read.behind:
            return found
    raise AssertionError("the stream has no end")


async def test_records_come_in_their_order_however_many_at_once(stream: Stream) -> None:
    assert await keys_from(stream, OLDEST) == []
    for number in range(5):
        stream.put(f"k{number}")
    whole = await keys_from(stream, OLDEST)
    assert len(whole) == 5
    assert await keys_from(stream, OLDEST, limit=2) == whole
    assert [int(number) for _, number in whole] == sorted(int(number) for _, number in whole)


async def test_reading_goes_on_behind_a_record(stream: Stream) -> None:
    for number in range(4):
        stream.put(f"k{number}")
    whole = await keys_from(stream, OLDEST)
    after = Position(start=Start.AFTER, sequence_number=whole[1][1])
    assert await keys_from(stream, after) == whole[2:]


async def test_the_latest_is_behind_everything(stream: Stream) -> None:
    stream.put("old")
    (shard,) = await stream.source.shards(stream.arn)
    iterator = await stream.source.iterator(stream.arn, shard.shard_id, Position(start=Start.LATEST))
    stream.put("new")
    read = await stream.source.read(stream.arn, shard.shard_id, iterator, limit=10)
    assert len(read.records) == 1
    assert "new" in json.dumps(read.records[0].order_key)


async def test_a_time_gives_what_arrived_since_and_maybe_more(stream: Stream) -> None:
    stream.put("old")
    time.sleep(0.05)
    since_s = time.time()
    stream.put("new")
    found = await keys_from(stream, Position(start=Start.SINCE, since_s=since_s))
    assert "new" in found[-1][0]


async def test_records_carry_what_an_event_shows(stream: Stream) -> None:
    stream.put("one")
    (shard,) = await stream.source.shards(stream.arn)
    iterator = await stream.source.iterator(stream.arn, shard.shard_id, OLDEST)
    (record,) = (await stream.source.read(stream.arn, shard.shard_id, iterator, limit=1)).records
    assert abs(record.arrived_at_s - time.time()) < 60
    assert record.size_bytes > 0
    json.dumps(record.event)
    assert await stream.source.retention_s(stream.arn) == 86_400.0


async def test_a_stream_that_is_not_there_is_gone(stream: Stream) -> None:
    if isinstance(stream.source, MemoryStream):
        stream.source.gone = SourceGone("gone")
    with pytest.raises(SourceGone):
        await stream.source.shards(stream.arn.replace("/s", "/nosuch"))
