"""What goes in and out of the Runtime API: the invocation handed to a runtime and the events it causes."""

from typing import Protocol

import msgspec

MAX_RESPONSE_BYTES = 6_291_556
"""Largest response of a buffered invocation: 6 MiB + 100 bytes (AWS Lambda quotas)."""


class RuntimeInvocation(msgspec.Struct, frozen=True, kw_only=True):
    """One invocation as the runtime gets it. Every text must be printable: it becomes a header."""

    request_id: str
    deadline_ms: int
    """Milliseconds since the Unix epoch."""
    invoked_function_arn: str
    payload: bytes
    trace_id: str | None = None
    client_context: str | None = None
    """JSON text."""
    cognito_identity: str | None = None
    """JSON text."""
    tenant_id: str | None = None
    content_type: str = "application/json"


class RuntimeEvents(Protocol):
    """Called synchronously by the server while it handles a request; must neither block nor raise."""

    def on_ready(self) -> None:
        """The runtime waits in ``/next``: after the first time its Init is over, after later ones it is idle.

        Called also when an invocation is already pending; that one is delivered right after.
        """
        ...

    def on_response(self, request_id: str, body: bytes, content_type: str) -> None:
        """The function answered."""
        ...

    def on_error(self, request_id: str, error_type: str, body: bytes) -> None:
        """The function failed. ``body`` is what it posted, normally JSON with errorMessage and so on.

        A response over ``MAX_RESPONSE_BYTES`` arrives here as ``Function.ResponseSizeTooLarge``.
        """
        ...

    def on_init_error(self, error_type: str, body: bytes) -> None:
        """The runtime could not load the function; it exits now."""
        ...

    def on_connection_lost(self) -> None:
        """No connection of the runtime is left. A hint: the end of its process is what counts."""
        ...
