"""The events that batches of a stream are, and the documents that tell of those given up. Pure."""

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from stoker.events.outcome_records import timestamp
from stoker.events.stream_batches import Discard
from stoker.services.queue import Delivery, DeliveryKind
from stoker.services.streams import OpenWindow, StreamRecord

KINESIS: Final = "kinesis"
DYNAMODB: Final = "dynamodb"


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Where records come from and to which function they go."""

    kind: str
    mapping: str
    source_arn: str
    function_arn: str
    shard_id: str


class Tumbling(msgspec.Struct, frozen=True, kw_only=True):
    """The window of a batch. ``final``: nothing more of it comes."""

    open: OpenWindow
    length_s: int
    final: bool = False


def event_of(
    origin: Origin, records: Sequence[StreamRecord], role_arn: str, tumbling: Tumbling | None
) -> bytes:
    """The payload of an invocation."""
    event: dict[str, Any] = {"Records": _elements(origin, records, role_arn)}
    if tumbling is not None:
        window = tumbling.open
        event["window"] = {
            "start": _seconds(window.start_s),
            "end": _seconds(window.start_s + tumbling.length_s),
        }
        event["state"] = window.state
        event["shardId"] = origin.shard_id
        event["eventSourceARN"] = origin.source_arn
        event["isFinalInvokeForWindow"] = tumbling.final
        event["isWindowTerminatedEarly"] = window.early
    return msgspec.json.encode(event)


def discard_delivery(
    origin: Origin, discard: Discard, destination: str, role_arn: str, now_s: float
) -> Delivery:
    """What an OnFailure destination is told; buckets get the records too, the others where they lie."""
    work = discard.work
    first, last = work.records[0], work.records[-1]
    name = f"{first.sequence_number} {last.sequence_number} {discard.condition}"
    request_id = work.request_id or str(uuid.uuid5(uuid.NAMESPACE_OID, f"{origin.mapping} {name}"))
    document: dict[str, Any] = {
        "requestContext": {
            "requestId": request_id,
            "functionArn": origin.function_arn,
            "condition": discard.condition,
            "approximateInvokeCount": max(1, work.invocations),
        }
    }
    if work.attempt is not None:
        document["responseContext"] = {
            "statusCode": 200,
            "executedVersion": work.attempt.executed_version,
            "functionError": work.attempt.function_error,
        }
    document["version"] = "1.0"
    document["timestamp"] = timestamp(now_s)
    document["KinesisBatchInfo" if origin.kind == KINESIS else "DDBStreamBatchInfo"] = _batch_info(
        origin, work.records
    )
    if destination.split(":")[2:3] == ["s3"]:
        document["payload"] = {"Records": _elements(origin, work.records, role_arn)}
    return Delivery(
        delivery_id=f"{origin.mapping} {origin.shard_id} {uuid.uuid5(uuid.NAMESPACE_OID, name)}",
        kind=DeliveryKind.DISCARDED_BATCH,
        request_id=request_id,
        function_arn=origin.function_arn,
        destination=destination,
        body=msgspec.json.encode(document),
        created_at_s=now_s,
        due_at_s=now_s,
    )


def _elements(origin: Origin, records: Sequence[StreamRecord], role_arn: str) -> list[dict[str, Any]]:
    if origin.kind == KINESIS:
        return [{**record.event, "invokeIdentityArn": role_arn} for record in records]
    return [record.event for record in records]


def _batch_info(origin: Origin, records: Sequence[StreamRecord]) -> dict[str, Any]:
    shown = timestamp if origin.kind == KINESIS else _seconds
    first, last = records[0], records[-1]
    return {
        "shardId": origin.shard_id,
        "startSequenceNumber": first.sequence_number,
        "endSequenceNumber": last.sequence_number,
        "approximateArrivalOfFirstRecord": shown(first.arrived_at_s),
        "approximateArrivalOfLastRecord": shown(last.arrived_at_s),
        "batchSize": len(records),
        "streamArn": origin.source_arn,
    }


def _seconds(at_s: float) -> str:
    return f"{datetime.fromtimestamp(at_s, UTC):%Y-%m-%dT%H:%M:%SZ}"
