"""Reads SQS through botocore. A long poll holds a thread; with more queues than threads they are shorter."""

import base64
from collections.abc import Callable, Sequence
from queue import Full
from typing import Any, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from stoker.aws.clients import AwsClients
from stoker.aws.queue_urls import QueueUrls
from stoker.core.threads import CallThreads
from stoker.services.sources import MessageAttribute, QueueMessage, SourceFailed

POLL_THREADS = 64
SETTLE_THREADS = 8
"""For deletions, which must not wait behind long polls."""
BATCH_MAX = 10
"""Entries of one DeleteMessageBatch."""

T = TypeVar("T")


class AwsQueueSource:
    """The QueueSource port over botocore."""

    def __init__(self, clients: AwsClients) -> None:
        self._clients = clients
        self._urls = QueueUrls(clients)
        self._polls = CallThreads("stoker-poll", threads_max=POLL_THREADS)
        self._settling = CallThreads("stoker-settle", threads_max=SETTLE_THREADS)
        self._polling = 0

    async def visibility_s(self, arn: str) -> int:
        def ask() -> int:
            answer = self._client(arn).get_queue_attributes(
                QueueUrl=self._urls.url(arn), AttributeNames=["VisibilityTimeout"]
            )
            return int(answer["Attributes"]["VisibilityTimeout"])

        return await self._called(self._settling, arn, ask)

    async def receive(self, arn: str, *, limit: int, wait_s: int) -> list[QueueMessage]:
        abandoned: list[bool] = []

        def ask() -> list[QueueMessage]:
            if abandoned:
                return []
            # Every queue must have its turn within seconds, however many there are.
            shorter_s = max(1, 20 * POLL_THREADS // max(1, self._polling))
            answer = self._client(arn).receive_message(
                QueueUrl=self._urls.url(arn),
                MaxNumberOfMessages=min(limit, BATCH_MAX),
                WaitTimeSeconds=min(wait_s, shorter_s),
                AttributeNames=["All"],
                MessageAttributeNames=["All"],
            )
            found = [_message(message) for message in answer.get("Messages", [])]
            if abandoned and found:
                self._release(arn, [message.receipt for message in found])
                return []
            return found

        self._polling += 1
        try:
            return await self._called(self._polls, arn, ask)
        except BaseException:
            abandoned.append(True)
            raise
        finally:
            self._polling -= 1

    async def delete(self, arn: str, receipts: Sequence[str]) -> None:
        def ask() -> None:
            for first in range(0, len(receipts), BATCH_MAX):
                entries = [
                    {"Id": str(number), "ReceiptHandle": receipt}
                    for number, receipt in enumerate(receipts[first : first + BATCH_MAX])
                ]
                answer = self._client(arn).delete_message_batch(QueueUrl=self._urls.url(arn), Entries=entries)
                for failed in answer.get("Failed", []):
                    raise SourceFailed(f"{failed.get('Code')}: {failed.get('Message')}")

        if receipts:
            await self._called(self._settling, arn, ask)

    def release_nowait(self, arn: str, receipts: Sequence[str]) -> None:
        self._settling.begin(lambda: self._release(arn, receipts))

    def _release(self, arn: str, receipts: Sequence[str]) -> None:
        for first in range(0, len(receipts), BATCH_MAX):
            entries = [
                {"Id": str(number), "ReceiptHandle": receipt, "VisibilityTimeout": 0}
                for number, receipt in enumerate(receipts[first : first + BATCH_MAX])
            ]
            self._client(arn).change_message_visibility_batch(QueueUrl=self._urls.url(arn), Entries=entries)

    async def _called(self, threads: CallThreads, arn: str, ask: Callable[[], T]) -> T:
        try:
            return await threads.call(ask)
        except (BotoCoreError, ClientError, Full) as problem:
            self._urls.forget(arn)
            raise SourceFailed(str(problem) or "too many calls wait") from problem

    def _client(self, arn: str) -> Any:
        return self._clients.client("sqs", arn.split(":")[3])


def _message(answer: dict[str, Any]) -> QueueMessage:
    return QueueMessage(
        message_id=answer["MessageId"],
        receipt=answer["ReceiptHandle"],
        body=answer["Body"],
        md5_of_body=answer["MD5OfBody"],
        md5_of_attributes=answer.get("MD5OfMessageAttributes"),
        attributes=answer.get("Attributes", {}),
        message_attributes={
            name: _attribute(value) for name, value in answer.get("MessageAttributes", {}).items()
        },
    )


def _attribute(value: dict[str, Any]) -> MessageAttribute:
    binary = value.get("BinaryValue")
    return MessageAttribute(
        data_type=value["DataType"],
        string_value=value.get("StringValue"),
        binary_value=None if binary is None else base64.b64encode(binary).decode(),
    )
