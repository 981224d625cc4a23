"""The durable queue of asynchronous events. An event is on it before its caller is told 202."""

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


class QueueFull(StokerError):
    """The queue's byte limit is reached; the event was not accepted."""


class EventExists(StokerError):
    """An event with that request id is on the queue already."""


class EventQueue(Protocol):
    """At least once: an event taken but not settled appears again after its lease, or after a restart."""

    async def put(self, event: QueuedEvent) -> None:
        """Durable when it returns.

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

    async def settle(self, request_id: str) -> None:
        """The event is done with; idempotent."""
        ...

    async def next_due_s(self) -> float | None:
        """When the earliest event falls due, or None when the queue is empty."""
        ...

    async def depth(self) -> tuple[int, int]:
        """(events, bytes) waiting."""
        ...
