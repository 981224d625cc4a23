"""Reads Kinesis data streams: shards, iterators, records as events show them."""

from typing import Any

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

    def __init__(self, calls: StreamCalls) -> None:
        self._calls = calls

    async def shards(self, arn: str) -> list[Shard]:
        answer = await self._calls.call(arn, "ListShards", StreamARN=stream_arn(arn))
        found = [_shard(shard) for shard in answer["Shards"]]
        while token := answer.get("NextToken"):
            answer = await self._calls.call(arn, "ListShards", NextToken=token)
            found += [_shard(shard) for shard in answer["Shards"]]
        return found

    async def iterator(self, arn: str, shard_id: str, position: Position) -> str:
        options: dict[str, Any] = {"ShardIteratorType": _ITERATORS[position.start]}
        if position.start is Start.SINCE:
            options["Timestamp"] = position.since_s
        if position.start is Start.AFTER:
            options["StartingSequenceNumber"] = position.sequence_number
        answer = await self._calls.call(
            arn, "GetShardIterator", StreamARN=stream_arn(arn), ShardId=shard_id, **options
        )
        return str(answer["ShardIterator"])

    async def read(self, arn: str, shard_id: str, iterator: str, *, limit: int) -> StreamRead:
        most = min(limit, READ_MAX)
        answer = await self._calls.call(
            arn, "GetRecords", StreamARN=stream_arn(arn), ShardIterator=iterator, Limit=most
        )
        records = [_record(arn, shard_id, record) for record in answer["Records"]]
        behind = bool(answer.get("MillisBehindLatest")) or len(records) == most
        return StreamRead(records=records, iterator=answer.get("NextShardIterator") or None, behind=behind)

    async def retention_s(self, arn: str) -> float:
        answer = await self._calls.call(arn, "DescribeStreamSummary", StreamARN=stream_arn(arn))
        return float(answer["StreamDescriptionSummary"]["RetentionPeriodHours"]) * 3600.0

    async def close(self) -> None:
        await self._calls.close()


def stream_arn(arn: str) -> str:
    """The stream of an ARN that may be a consumer's."""
    return arn.partition("/consumer/")[0]


def _shard(answer: dict[str, Any]) -> Shard:
    parents = (answer.get("ParentShardId"), answer.get("AdjacentParentShardId"))
    numbers: dict[str, Any] = answer.get("SequenceNumberRange") or {}
    return Shard(
        shard_id=answer["ShardId"],
        parents=tuple(parent for parent in parents if parent),
        closed=numbers.get("EndingSequenceNumber") is not None,
    )


def _record(arn: str, shard_id: str, answer: dict[str, Any]) -> StreamRecord:
    number, key, data = answer["SequenceNumber"], answer["PartitionKey"], answer["Data"]
    arrived_at_s = round(float(answer["ApproximateArrivalTimestamp"]), 3)
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
