"""The server protocol without sockets: a transport in memory that can be told to be slow or to vanish."""

import asyncio
from collections.abc import Iterable
from typing import Any

from stoker.core.clock import Clock, ManualClock
from stoker.http.connection import ServerConnection
from stoker.http.limits import ServerLimits
from stoker.http.messages import Handler
from stoker.http.state import ServerErrorBody, ServerState, StreamsBody, default_error_body


class MemoryTransport(asyncio.Transport):
    """Keeps what is written in ``written``; ``stuck`` simulates a peer that takes nothing."""

    def __init__(self, extra: dict[str, object] | None = None) -> None:
        super().__init__(extra or {"peername": ("192.0.2.7", 4711)})
        self.written = bytearray()
        self.writes = 0
        self.reading = True
        self.ended = False
        self.closing = False
        self.aborted = False
        self.stuck = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self.closing and not self.ended:
            self.written += data
            self.writes += 1

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def get_write_buffer_size(self) -> int:
        return len(self.written) if self.stuck else 0

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = self.aborted = True


class FakeServer:
    """One handler and connections in memory; what a real one reports is kept in ``reports``."""

    def __init__(
        self,
        handler: Handler,
        limits: ServerLimits | None = None,
        *,
        error_body: ServerErrorBody = default_error_body,
        streams_body: StreamsBody | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.reports: list[tuple[str, BaseException]] = []
        clock = clock or ManualClock()
        self.state = ServerState(
            handler, limits or ServerLimits(), clock, error_body, streams_body, self._report
        )

    def _report(self, message: str, error: BaseException) -> None:
        self.reports.append((message, error))

    def connect(self, **extra: Any) -> "FakePeer":
        """A new connection."""
        return FakePeer(ServerConnection(self.state), extra)


class FakePeer:
    """The client's end of one connection in memory."""

    def __init__(self, connection: ServerConnection, extra: dict[str, object]) -> None:
        self.connection = connection
        self.transport = MemoryTransport(extra)
        self._lost = False
        connection.connection_made(self.transport)
        self.settle()

    def send(self, *pieces: bytes) -> bytes:
        """Feed each piece as one read; returns all that was answered so far."""
        for piece in pieces:
            if not self._lost:
                self.connection.data_received(piece)
                self.settle()
        return bytes(self.transport.written)

    def vanish(self) -> None:
        """The peer is gone."""
        self.transport.closing = True
        self.settle()

    def settle(self) -> None:
        """Deliver a pending close, as the loop would."""
        if self.transport.closing and not self._lost:
            self._lost = True
            self.connection.connection_lost(None)

    @property
    def closed(self) -> bool:
        """The server ended the connection, or at least its side of it."""
        return self._lost or self.transport.closing or self.transport.ended
