"""Reads the streams of DynamoDB tables through botocore: shards, iterators, records as events show them."""

import base64
from typing import Any, cast

import msgspec

from stoker.aws.clients import AwsClients
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

    def __init__(self, clients: AwsClients) -> None:
        self._calls = StreamCalls(clients, "dynamodbstreams")

    async def shards(self, arn: str) -> list[Shard]:
        def ask(client: Any) -> list[Shard]:
            found: list[Shard] = []
            options: dict[str, Any] = {}
            while True:
                answer = client.describe_stream(StreamArn=arn, **options)["StreamDescription"]
                found += map(_shard, answer["Shards"])
                if not (last := answer.get("LastEvaluatedShardId")):
                    return found
                options = {"ExclusiveStartShardId": last}

        return await self._calls.call(arn, ask)

    async def iterator(self, arn: str, shard_id: str, position: Position) -> str:
        options: dict[str, Any] = {"ShardIteratorType": _ITERATORS[position.start]}
        if position.start is Start.AFTER:
            options["SequenceNumber"] = position.sequence_number

        def ask(client: Any) -> str:
            answer = client.get_shard_iterator(StreamArn=arn, ShardId=shard_id, **options)
            return str(answer["ShardIterator"])

        return await self._calls.call(arn, ask)

    async def read(self, arn: str, shard_id: str, iterator: str, *, limit: int) -> StreamRead:
        del shard_id

        def ask(client: Any) -> StreamRead:
            most = min(limit, READ_MAX)
            answer = client.get_records(ShardIterator=iterator, Limit=most)
            records = [_record(arn, record) for record in answer["Records"]]
            # A read may be short of records, or have none, before the end (API reference): what says that
            # everything was read is an empty one.
            return StreamRead(
                records=records, iterator=answer.get("NextShardIterator") or None, behind=bool(records)
            )

        return await self._calls.call(arn, ask)

    async def retention_s(self, arn: str) -> float:
        del arn
        return RETENTION_S


def _shard(answer: dict[str, Any]) -> Shard:
    parent = answer.get("ParentShardId")
    return Shard(
        shard_id=answer["ShardId"],
        parents=(parent,) if parent else (),
        closed="EndingSequenceNumber" in answer.get("SequenceNumberRange", {}),
    )


def _record(arn: str, answer: dict[str, Any]) -> StreamRecord:
    change = cast("dict[str, Any]", _shown(answer["dynamodb"]))
    arrived_at_s = float(answer["dynamodb"]["ApproximateCreationDateTime"].timestamp())
    change["ApproximateCreationDateTime"] = int(arrived_at_s) if arrived_at_s.is_integer() else arrived_at_s
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


def _shown(value: Any) -> Any:
    """Binary values in base64, as events have them."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dict):
        return {name: _shown(inner) for name, inner in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [_shown(inner) for inner in cast("list[Any]", value)]
    return value
