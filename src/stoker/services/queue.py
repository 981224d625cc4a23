"""The durable queue of asynchronous events, and of the records of how they ended.

An event is on it before its caller is told 202, a record before its event is gone.
"""

import enum
from collections.abc import Sequence
from typing import Protocol

import msgspec

from stoker.core.errors import StokerError
from stoker.services.functions import FunctionKey


class QueuedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One asynchronous invocation that waits."""

    request_id: str
    key: FunctionKey
    qualifier: str
    """As the caller gave it; empty for none."""
    payload: bytes
    accepted_at_s: float
    due_at_s: float
    attempts: int = 0
    """Attempts that ended in a function error."""
    throttles: int = 0
    """Attempts that could not be started (429 or a system error), for the back-off."""
    client_context: str | None = None
    trace_id: str | None = None


class DeliveryKind(enum.Enum):
    """What a record is of; the values are what is stored."""

    SUCCESS = "success"
    FAILURE = "failure"
    DEAD_LETTER = "dead letter"
    DISCARDED_BATCH = "discarded batch"
    """Records of a stream that were given up; its id is the mapping's, the shard's and a UUID."""


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be sent to one destination after an event ended."""

    delivery_id: str
    kind: DeliveryKind
    request_id: str
    function_arn: str
    """Qualified, as records name it."""
    destination: str
    """An ARN."""
    body: bytes
    attributes: dict[str, str] = {}
    """Of a dead letter: RequestID, ErrorCode, ErrorMessage."""
    created_at_s: float
    due_at_s: float
    failures: int = 0
    """Times that the destination did not take it."""


class QueueFull(StokerError):
    """The queue's byte limit is reached; the event was not accepted."""


class EventExists(StokerError):
    """An event with that request id is on the queue already."""


class EventSink(Protocol):
    """Where whoever accepts events puts them."""

    async def put(self, event: QueuedEvent) -> None:
        """Durable when it returns.

        Raises:
            QueueFull, EventExists: nothing was written.
        """
        ...


class EventQueue(Protocol):
    """At least once: an event taken but not settled appears again after its lease, or after a restart."""

    async def put(self, event: QueuedEvent, *, lease_s: float = 0.0) -> None:
        """Durable when it returns; with ``lease_s`` whoever puts it has taken it already.

        Raises:
            QueueFull, EventExists: nothing was written.
        """
        ...

    async def take(self, *, now_s: float, limit: int, lease_s: float) -> list[QueuedEvent]:
        """Up to ``limit`` events that are due, hidden from other takers for ``lease_s``."""
        ...

    async def reschedule(self, event: QueuedEvent) -> None:
        """Put a taken event back with its new ``due_at_s`` and counters."""
        ...

    async def settle(self, request_id: str, deliveries: Sequence[Delivery] = ()) -> None:
        """The event is done with and ``deliveries`` wait, or neither.

        Idempotent: nothing is added for an event that is gone. Deliveries count against the byte
        limit but are never refused.
        """
        ...

    async def next_due_s(self) -> float | None:
        """When the earliest event falls due, or None when the queue is empty."""
        ...

    async def depth(self) -> tuple[int, int]:
        """(events, bytes) waiting."""
        ...


class DeliveryQueue(Protocol):
    """Deliveries of settled events. At least once, with leases as the events have them."""

    async def take(self, *, now_s: float, limit: int, lease_s: float) -> list[Delivery]:
        """Up to ``limit`` deliveries that are due, hidden from other takers for ``lease_s``."""
        ...

    async def postpone(self, deliveries: Sequence[Delivery]) -> None:
        """Put taken deliveries back with their new ``due_at_s`` and ``failures``."""
        ...

    async def remove(self, delivery_id: str) -> None:
        """The delivery is done with; idempotent."""
        ...

    async def next_due_s(self) -> float | None:
        """When the earliest falls due, or None when there is none."""
        ...

    async def count(self) -> int:
        """Deliveries that wait."""
        ...


class WaitingEvents(msgspec.Struct, frozen=True, kw_only=True):
    """The events of one function that were accepted and not settled."""

    function_arn: str
    waiting: int
    """All of them."""
    taken: int
    """Of these, those that run now or are about to."""
    retried: int
    """Of these, those that failed before."""
    attempts_max: int
    size_bytes: int
    oldest_accepted_at_s: float
    next_due_at_s: float | None
    """Of those that do not run; None when all do."""


class WaitingDeliveries(msgspec.Struct, frozen=True, kw_only=True):
    """Records of ended events that one destination has not taken yet."""

    function_arn: str
    destination: str
    kind: str
    waiting: int
    failures_max: int
    oldest_created_at_s: float
    next_due_at_s: float


class QueueReport(msgspec.Struct, frozen=True):
    """What waits, by function and by destination."""

    events: list[WaitingEvents]
    deliveries: list[WaitingDeliveries]
