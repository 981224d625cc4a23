"""Sending a record to its destination: from ``events`` to the clients of other AWS services."""

from typing import Protocol

from stoker.core.errors import StokerError
from stoker.services.queue import Delivery


class DeliveryFailed(StokerError):
    """The destination did not take it; its text says why and holds nothing of the record."""


class Sender(Protocol):
    """Sends to SQS, SNS, EventBridge and S3."""

    async def send(self, delivery: Delivery) -> None:
        """Returns when the destination has taken it. Raises DeliveryFailed."""
        ...
