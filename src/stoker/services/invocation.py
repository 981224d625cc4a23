"""An invocation on its way: from ``api`` to ``frontend``, from ``frontend`` to ``worker`` and back."""

from collections.abc import Awaitable
from typing import Protocol

import msgspec

from stoker.core.arn import FunctionReference
from stoker.services.context import RequestContext


class InvokeRequest(msgspec.Struct, frozen=True):
    """What a caller asks: one event for one function. ``payload`` is known to be JSON."""

    function: FunctionReference
    payload: bytes
    invocation_type: str = "RequestResponse"
    """``RequestResponse``, ``Event`` or ``DryRun``."""
    log_tail: bool = False
    client_context: str | None = None
    """Base64 as the client sent it, at most 3,583 bytes."""
    trace_id: str | None = None


class InvokeResponse(msgspec.Struct, frozen=True):
    """What the caller gets: 200 with the payload, 202 or 204 without one."""

    status: int
    payload: bytes = b""
    function_error: str | None = None
    """``Unhandled`` (or ``Handled``) when the function, not the service, failed."""
    executed_version: str | None = None
    log_tail: bytes | None = None
    """The last 4 KB of this invocation's log, not yet base64."""


class Frontend(Protocol):
    """The data plane's door."""

    def invoke(self, context: RequestContext, request: InvokeRequest) -> Awaitable[InvokeResponse]:
        """Run one invocation, begun at once or when the answer is awaited.

        Cancelling the wait (the client went away) frees the caller, not the function: it runs to its end.

        Raises:
            ServiceError: at once or to whoever awaits, for every failure that is the caller's or the
                service's, never the function's.
        """
        ...


class Invocation(msgspec.Struct, frozen=True):
    """One event for one sandbox."""

    request_id: str
    payload: bytes
    invoked_arn: str
    trace_id: str
    client_context: str | None = None
    """JSON text, decoded."""
    want_log_tail: bool = False


class InvocationResult(msgspec.Struct, frozen=True):
    """How it went inside. ``healthy`` says whether the sandbox may serve another invocation."""

    payload: bytes
    function_error: str | None
    healthy: bool
    duration_ms: float
    init_ms: float | None = None
    log_tail: bytes | None = None
