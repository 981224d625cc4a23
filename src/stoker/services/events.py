"""One attempt at an asynchronous event: from ``events`` to ``frontend``. The caller was authorised before."""

import enum
from typing import Protocol

import msgspec

from stoker.services.queue import QueuedEvent


class AttemptOutcome(enum.Enum):
    """What became of an attempt; every value asks for another decision."""

    SUCCEEDED = "succeeded"
    FUNCTION_ERROR = "function error"
    THROTTLED = "throttled"
    UNAVAILABLE = "unavailable"
    """The service could not run it (no room, the function's state); as a 5xx."""
    NO_CONCURRENCY = "reserved concurrency is zero"
    FUNCTION_GONE = "the function was deleted"


class Attempt(msgspec.Struct, frozen=True):
    """An attempt's outcome with what a person may want to know of it."""

    outcome: AttemptOutcome
    detail: str = ""
    payload: bytes = b""
    """What the function answered, its error included."""
    function_error: str | None = None
    executed_version: str | None = None
    """The version that ran; None when none did."""


class EventInvoker(Protocol):
    """Runs events of the durable queue."""

    async def run_event(self, event: QueuedEvent) -> Attempt:
        """Run one attempt to its end. Failures that decide what comes next are outcomes."""
        ...
