"""Sends records of ended events to SQS, SNS, EventBridge and S3. What the records say is not known here."""

import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from queue import Full
from typing import Any

import msgspec
from botocore.exceptions import BotoCoreError, ClientError

from stoker.aws.clients import AwsClients
from stoker.aws.queue_urls import QueueUrls
from stoker.core.threads import CallThreads
from stoker.services.delivery import DeliveryFailed
from stoker.services.queue import Delivery, DeliveryKind

SEND_THREADS = 8
SNS_MESSAGE_MAX_BYTES = 262_144
"""A larger record goes without its payloads (API reference, OnFailure)."""

_DETAIL_TYPE = "Lambda Function Invocation Result - "


class AwsSender:
    """The Sender port over botocore."""

    def __init__(self, clients: AwsClients) -> None:
        self._clients = clients
        self._urls = QueueUrls(clients)
        self._threads = CallThreads("stoker-send", threads_max=SEND_THREADS)
        self._ways: dict[str, Callable[[Delivery, str], None]] = {
            "sqs": self._to_queue,
            "sns": self._to_topic,
            "events": self._to_bus,
            "s3": self._to_bucket,
        }

    async def send(self, delivery: Delivery) -> None:
        service, region = _service_and_region(delivery)
        way = self._ways.get(service)
        if way is None:
            raise DeliveryFailed(f"nothing can be sent to {service!r}")
        try:
            await self._threads.call(lambda: way(delivery, region))
        except (BotoCoreError, ClientError, Full) as problem:
            self._urls.forget(delivery.destination)
            raise DeliveryFailed(str(problem) or "too many calls wait") from problem

    def _to_queue(self, delivery: Delivery, region: str) -> None:
        self._clients.client("sqs", region).send_message(
            QueueUrl=self._urls.url(delivery.destination),
            MessageBody=delivery.body.decode(errors="replace"),
            MessageAttributes=_attributes(delivery),
        )

    def _to_topic(self, delivery: Delivery, region: str) -> None:
        body = delivery.body
        if len(body) > SNS_MESSAGE_MAX_BYTES and delivery.kind is not DeliveryKind.DEAD_LETTER:
            body = _without_payloads(body)
        self._clients.client("sns", region).publish(
            TopicArn=delivery.destination,
            Message=body.decode(errors="replace"),
            MessageAttributes=_attributes(delivery),
        )

    def _to_bus(self, delivery: Delivery, region: str) -> None:
        entry = {
            "EventBusName": delivery.destination,
            "Source": "lambda",
            "DetailType": _DETAIL_TYPE + ("Success" if delivery.kind is DeliveryKind.SUCCESS else "Failure"),
            "Detail": delivery.body.decode(errors="replace"),
            "Resources": [delivery.destination, delivery.function_arn],
            "Time": datetime.fromtimestamp(delivery.created_at_s, UTC),
        }
        answer = self._clients.client("events", region).put_events(Entries=[entry])
        if answer["FailedEntryCount"]:
            failed = answer["Entries"][0]
            raise DeliveryFailed(f"{failed.get('ErrorCode')}: {failed.get('ErrorMessage')}")

    def _to_bucket(self, delivery: Delivery, region: str) -> None:
        self._clients.client("s3", region).put_object(
            Bucket=delivery.destination.rpartition(":")[2],
            Key=_object_key(delivery),
            Body=delivery.body,
            ContentType="application/json",
        )


def _service_and_region(delivery: Delivery) -> tuple[str, str]:
    """Buckets' ARNs name no region: then it is the function's."""
    parts = delivery.destination.split(":")
    return parts[2], parts[3] or delivery.function_arn.split(":")[3]


def _attributes(delivery: Delivery) -> dict[str, Any]:
    return {
        name: {"DataType": "Number" if name == "ErrorCode" else "String", "StringValue": value}
        for name, value in delivery.attributes.items()
    }


def _without_payloads(body: bytes) -> bytes:
    record: dict[str, msgspec.Raw] = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    return msgspec.json.encode(
        {name: value for name, value in record.items() if name not in ("requestPayload", "responsePayload")}
    )


def _object_key(delivery: Delivery) -> str:
    """``aws/lambda/async/<function>/YYYY/MM/DD/YYYY-MM-DDTHH.MM.SS-<uuid>``, the same if sent again.

    Of a batch that was given up ``aws/lambda/<mapping>/<shard>/…`` (developer guide, failed batches).
    """
    moment = datetime.fromtimestamp(delivery.created_at_s, UTC)
    if delivery.kind is DeliveryKind.DISCARDED_BATCH:
        mapping, shard, name = delivery.delivery_id.split(" ")
        folder = f"{mapping}/{shard}"
    else:
        name = str(uuid.uuid5(uuid.NAMESPACE_OID, delivery.delivery_id))
        folder = f"async/{delivery.function_arn.split(':')[6]}"
    return f"aws/lambda/{folder}/{moment:%Y/%m/%d}/{moment:%Y-%m-%dT%H.%M.%S}-{name}"
