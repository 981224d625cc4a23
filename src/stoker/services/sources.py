"""Reading what event source mappings name: from ``events`` to the clients of other AWS services."""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from stoker.core.errors import StokerError


class QueueMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A message of SQS, hidden from others until its visibility time-out."""

    message_id: str
    receipt: str
    body: str
    md5_of_body: str
    md5_of_attributes: str | None = None
    attributes: dict[str, str] = {}
    message_attributes: dict[str, "MessageAttribute"] = {}


class MessageAttribute(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One attribute that the sender gave, as events show it; binary values in base64."""

    string_value: str | None = msgspec.field(name="stringValue", default=None)
    binary_value: str | None = msgspec.field(name="binaryValue", default=None)
    data_type: str = msgspec.field(name="dataType")


class SourceFailed(StokerError):
    """The source did not do what was asked; its text says why and holds nothing of the records."""


class QueueSource(Protocol):
    """SQS queues by their ARNs. Everything raises SourceFailed."""

    async def visibility_s(self, arn: str) -> int:
        """How long received messages are hidden."""
        ...

    async def receive(self, arn: str, *, limit: int, wait_s: int) -> list[QueueMessage]:
        """Up to ``limit`` (10 at most) messages, after waiting ``wait_s`` (20 at most) for the first.

        Cancelled, whatever still arrives is made visible again.
        """
        ...

    async def delete(self, arn: str, receipts: Sequence[str]) -> None:
        """Delete received messages."""
        ...

    def release_nowait(self, arn: str, receipts: Sequence[str]) -> None:
        """Make received messages visible again, some time soon; failures leave it to their time-outs."""
        ...
