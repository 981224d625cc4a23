"""Reads the streams of DynamoDB tables: shards, iterators, records as events show them."""

from typing import Any

import msgspec

from stoker.aws.stream_calls import StreamCalls
from stoker.services.streams import Position, Shard, Start, StreamRead, StreamRecord

READ_MAX = 1000
"""Records of one GetRecords."""
RETENTION_S = 86_400.0
RECORD_OVERHEAD_BYTES = 512

_ITERATORS = {
    Start.OLDEST: "TRIM_HORIZON",
    Start.LATEST: "LATEST",
    Start.SINCE: "TRIM_HORIZON",  # these streams know no times: who reads leaves out what came before
    Start.AFTER: "AFTER_SEQUENCE_NUMBER",
}


class DynamoDbSource:
    """The StreamSource port."""

    def __init__(self, calls: StreamCalls) -> None:
        self._calls = calls

    async def shards(self, arn: str) -> list[Shard]:
        found: list[Shard] = []
        options: dict[str, Any] = {}
        while True:
            answer = (await self._calls.call(arn, "DescribeStream", StreamArn=arn, **options))[
                "StreamDescription"
            ]
            found += [_shard(shard) for shard in answer["Shards"]]
            if not (last := answer.get("LastEvaluatedShardId")):
                return found
            options = {"ExclusiveStartShardId": last}

    async def iterator(self, arn: str, shard_id: str, position: Position) -> str:
        options: dict[str, Any] = {"ShardIteratorType": _ITERATORS[position.start]}
        if position.start is Start.AFTER:
            options["SequenceNumber"] = position.sequence_number
        answer = await self._calls.call(arn, "GetShardIterator", StreamArn=arn, ShardId=shard_id, **options)
        return str(answer["ShardIterator"])

    async def read(self, arn: str, shard_id: str, iterator: str, *, limit: int) -> StreamRead:
        del shard_id
        most = min(limit, READ_MAX)
        answer = await self._calls.call(arn, "GetRecords", ShardIterator=iterator, Limit=most)
        records = [_record(arn, record) for record in answer["Records"]]
        # A read may be short of records, or have none, before the end (API reference): what says that
        # everything was read is an empty one.
        return StreamRead(
            records=records, iterator=answer.get("NextShardIterator") or None, behind=bool(records)
        )

    async def retention_s(self, arn: str) -> float:
        del arn
        return RETENTION_S

    async def close(self) -> None:
        await self._calls.close()


def _shard(answer: dict[str, Any]) -> Shard:
    parent = answer.get("ParentShardId")
    numbers: dict[str, Any] = answer.get("SequenceNumberRange") or {}
    return Shard(
        shard_id=answer["ShardId"],
        parents=(parent,) if parent else (),
        closed=numbers.get("EndingSequenceNumber") is not None,
    )


def _record(arn: str, answer: dict[str, Any]) -> StreamRecord:
    change: dict[str, Any] = answer["dynamodb"]
    arrived_at_s = float(change["ApproximateCreationDateTime"])
    shown_s = int(arrived_at_s) if arrived_at_s.is_integer() else arrived_at_s
    change = {**change, "ApproximateCreationDateTime": shown_s}
    event: dict[str, Any] = {
        "eventID": answer["eventID"],
        "eventName": answer["eventName"],
        "eventVersion": "1.1",
        "eventSource": "aws:dynamodb",
        "awsRegion": arn.split(":")[3],
        "dynamodb": change,
        "eventSourceARN": arn,
    }
    if identity := answer.get("userIdentity"):
        event["userIdentity"] = {"principalId": identity.get("PrincipalId"), "type": identity.get("Type")}
    return StreamRecord(
        sequence_number=change["SequenceNumber"],
        order_key=msgspec.json.encode(change["Keys"], order="sorted").decode(),
        arrived_at_s=arrived_at_s,
        size_bytes=len(msgspec.json.encode(change)) + RECORD_OVERHEAD_BYTES,
        event=event,
    )
