"""What all connections of one server share: the handler, its limits, the coarse clock, the memory budget."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from stoker.core.clock import Clock
from stoker.http.limits import ServerLimits
from stoker.http.messages import Handler, Headers, Request
from stoker.http.wire import date_line

if TYPE_CHECKING:
    from stoker.http.connection import ServerConnection

ServerErrorBody = Callable[[int, str], tuple[Headers, bytes]]
"""Shapes an answer that the server gives by itself: (status, reason) to headers and body."""

StreamsBody = Callable[[Request], bool]
"""Asked when the headers of a request with a body are complete: True streams the body whatever its size."""

ErrorReport = Callable[[str, BaseException], None]
"""Told of exceptions that handlers and callbacks let through: (what failed, the exception)."""

# How a response ends its head: indexes into ``ServerState.tails``.
KEEP, CLOSE, KEEP_1_0 = 0, 1, 2
_ENDINGS = (b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n", b"\r\nconnection: keep-alive\r\n\r\n")


class ServerStatistics(msgspec.Struct, frozen=True):
    """A moment of a server: open connections, requests being answered, bytes of bodies in memory."""

    connections: int
    in_flight: int
    buffered_bytes: int


def default_error_body(status: int, reason: str) -> tuple[Headers, bytes]:
    """Plain text; ``status`` is left to the status line."""
    return [(b"content-type", b"text/plain; charset=utf-8")], f"{reason}\n".encode()


def _report_to_loop(message: str, error: BaseException) -> None:
    asyncio.get_running_loop().call_exception_handler({"message": message, "exception": error})


class ServerState:
    """Mutable on purpose and touched by every request: plain slots, no methods on the hot path."""

    __slots__ = (
        "buffered_bytes",
        "clock",
        "closing",
        "connections",
        "dateless_tails",
        "emptied",
        "error_body",
        "handler",
        "limits",
        "now_s",
        "report",
        "streams_body",
        "tails",
    )

    def __init__(
        self,
        handler: Handler,
        limits: ServerLimits,
        clock: Clock,
        error_body: ServerErrorBody = default_error_body,
        streams_body: StreamsBody | None = None,
        report: ErrorReport | None = None,
    ) -> None:
        self.report = report or _report_to_loop
        self.handler = handler
        self.limits = limits
        self.clock = clock
        self.error_body = error_body
        self.streams_body = streams_body
        self.connections: set[ServerConnection] = set()
        self.buffered_bytes = 0
        self.closing = False
        self.emptied = asyncio.Event()
        self.dateless_tails = _ENDINGS
        self.tick()

    def tick(self) -> None:
        """Move the coarse clock; time-outs and the date header are as fine as this is called."""
        self.now_s = self.clock.monotonic_s()
        date = b"\r\n" + date_line(self.clock.now_s())
        self.tails = (date + _ENDINGS[KEEP], date + _ENDINGS[CLOSE], date + _ENDINGS[KEEP_1_0])

    def statistics(self) -> ServerStatistics:
        """Counted now."""
        busy = sum(1 for connection in self.connections if connection.busy)
        return ServerStatistics(len(self.connections), busy, self.buffered_bytes)
