"""Other AWS services for a Stoker under test: a moto server with queues, topics, buses and buckets."""

import time
from collections.abc import Callable
from typing import Any

import boto3
from moto.server import ThreadedMotoServer

from tests.running import REGION

WITHIN_S = 30.0
SERVICES = ("SQS", "SNS", "S3", "EVENTBRIDGE", "KINESIS", "DYNAMODB", "DYNAMODB_STREAMS")


class Elsewhere:
    """Another cloud's queues, topics, buses and buckets."""

    def __init__(self) -> None:
        self.server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self.server.start()
        host, port = self.server.get_host_and_port()
        self.endpoint = f"http://{host}:{port}"
        self.port = port

    def client(self, service: str) -> Any:
        keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret"}
        return boto3.client(service, endpoint_url=self.endpoint, region_name=REGION, **keys)

    def environment(self) -> dict[str, str]:
        """What a Stoker needs to reach it."""
        keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
        return {**{f"AWS_ENDPOINT_URL_{name}": self.endpoint for name in SERVICES}, **keys}

    def queue(self, name: str, **attributes: str) -> tuple[str, str]:
        """(URL, ARN) of a new queue."""
        url = self.client("sqs").create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
        shown = self.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
        return url, shown["Attributes"]["QueueArn"]

    def received(self, url: str, count: int = 1) -> list[dict[str, Any]]:
        """Messages as they come, deleted."""
        found: list[dict[str, Any]] = []
        service, deadline = self.client("sqs"), time.monotonic() + WITHIN_S
        while len(found) < count and time.monotonic() < deadline:
            answer = service.receive_message(
                QueueUrl=url, MessageAttributeNames=["All"], MaxNumberOfMessages=10, WaitTimeSeconds=1
            )
            for message in answer.get("Messages", []):
                service.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
                found.append(message)
        return found


def waited(look: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + WITHIN_S
    while not (found := look()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found
