"""Reads Kinesis data streams through botocore: shards, iterators, records as events show them."""

import base64
from typing import Any

from stoker.aws.clients import AwsClients
from stoker.aws.stream_calls import StreamCalls
from stoker.services.streams import Position, Shard, Start, StreamRead, StreamRecord

READ_MAX = 10_000
"""Records of one GetRecords."""
RECORD_OVERHEAD_BYTES = 768
"""Of an event's record beside its data."""

_ITERATORS = {
    Start.OLDEST: "TRIM_HORIZON",
    Start.LATEST: "LATEST",
    Start.SINCE: "AT_TIMESTAMP",
    Start.AFTER: "AFTER_SEQUENCE_NUMBER",
}


class KinesisSource:
    """The StreamSource port. A consumer's stream is read as any other: its HTTP/2 push is not."""

    def __init__(self, clients: AwsClients) -> None:
        self._calls = StreamCalls(clients, "kinesis")

    async def shards(self, arn: str) -> list[Shard]:
        def ask(client: Any) -> list[Shard]:
            found: list[Shard] = []
            answer: dict[str, Any] = client.list_shards(StreamARN=stream_arn(arn))
            found += map(_shard, answer["Shards"])
            while token := answer.get("NextToken"):
                answer = client.list_shards(NextToken=token)
                found += map(_shard, answer["Shards"])
            return found

        return await self._calls.call(arn, ask)

    async def iterator(self, arn: str, shard_id: str, position: Position) -> str:
        options: dict[str, Any] = {"ShardIteratorType": _ITERATORS[position.start]}
        if position.start is Start.SINCE:
            options["Timestamp"] = position.since_s
        if position.start is Start.AFTER:
            options["StartingSequenceNumber"] = position.sequence_number

        def ask(client: Any) -> str:
            answer = client.get_shard_iterator(StreamARN=stream_arn(arn), ShardId=shard_id, **options)
            return str(answer["ShardIterator"])

        return await self._calls.call(arn, ask)

    async def read(self, arn: str, shard_id: str, iterator: str, *, limit: int) -> StreamRead:
        def ask(client: Any) -> StreamRead:
            most = min(limit, READ_MAX)
            answer = client.get_records(StreamARN=stream_arn(arn), ShardIterator=iterator, Limit=most)
            records = [_record(arn, shard_id, record) for record in answer["Records"]]
            behind = bool(answer.get("MillisBehindLatest")) or len(records) == most
            return StreamRead(
                records=records, iterator=answer.get("NextShardIterator") or None, behind=behind
            )

        return await self._calls.call(arn, ask)

    async def retention_s(self, arn: str) -> float:
        def ask(client: Any) -> float:
            answer = client.describe_stream_summary(StreamARN=stream_arn(arn))
            return float(answer["StreamDescriptionSummary"]["RetentionPeriodHours"]) * 3600.0

        return await self._calls.call(arn, ask)


def stream_arn(arn: str) -> str:
    """The stream of an ARN that may be a consumer's."""
    return arn.partition("/consumer/")[0]


def _shard(answer: dict[str, Any]) -> Shard:
    parents = (answer.get("ParentShardId"), answer.get("AdjacentParentShardId"))
    return Shard(
        shard_id=answer["ShardId"],
        parents=tuple(parent for parent in parents if parent),
        closed="EndingSequenceNumber" in answer.get("SequenceNumberRange", {}),
    )


def _record(arn: str, shard_id: str, answer: dict[str, Any]) -> StreamRecord:
    number, key = answer["SequenceNumber"], answer["PartitionKey"]
    data = base64.b64encode(answer["Data"]).decode()
    arrived_at_s = round(answer["ApproximateArrivalTimestamp"].timestamp(), 3)
    return StreamRecord(
        sequence_number=number,
        order_key=key,
        arrived_at_s=arrived_at_s,
        size_bytes=len(data) + len(key) + len(arn) + RECORD_OVERHEAD_BYTES,
        event={
            "kinesis": {
                "kinesisSchemaVersion": "1.0",
                "partitionKey": key,
                "sequenceNumber": number,
                "data": data,
                "approximateArrivalTimestamp": arrived_at_s,
            },
            "eventSource": "aws:kinesis",
            "eventVersion": "1.0",
            "eventID": f"{shard_id}:{number}",
            "eventName": "aws:kinesis:record",
            "awsRegion": arn.split(":")[3],
            "eventSourceARN": arn,
        },
    )
