"""Which connection to an origin serves the next exchange. Decisions only; connecting is the client's."""

import asyncio
from collections import deque

from stoker.http.errors import PoolExhausted
from stoker.http.exchange import ClientConnection
from stoker.http.limits import ClientLimits


class OriginPool:
    """The connections to one origin: most recently used first, bounded, waiters in order."""

    def __init__(self, limits: ClientLimits) -> None:
        self._limits = limits
        self._idle: list[ClientConnection] = []
        self._taken: set[ClientConnection] = set()
        self._waiters: deque[asyncio.Future[ClientConnection | None]] = deque()
        self._slots_used = 0

    @property
    def unused(self) -> bool:
        """No connection, nobody waiting."""
        return self._slots_used == 0 and not self._waiters

    @property
    def idle_count(self) -> int:
        """Connections that wait for an exchange."""
        return len(self._idle)

    def take_nowait(self) -> ClientConnection | None:
        """An idle connection, or None."""
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                self._taken.add(connection)
                return connection
            connection.transport.abort()
        return None

    def reserve_nowait(self) -> bool:
        """Whether a new connection may be made; if so its slot is taken until it is gone."""
        if self._slots_used >= self._limits.max_connections_per_origin:
            return False
        self._slots_used += 1
        return True

    async def wait_turn(self) -> ClientConnection | None:
        """A connection that became free, or None: a slot is reserved for a new one. Raises PoolExhausted."""
        if len(self._waiters) >= self._limits.max_waiting_per_origin:
            raise PoolExhausted("too many requests wait for a connection")
        waiter: asyncio.Future[ClientConnection | None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            self._undo(waiter)
            raise

    def _undo(self, waiter: "asyncio.Future[ClientConnection | None]") -> None:
        """The waiter is gone; what it was just given goes to the next."""
        if waiter.cancelled() or not waiter.done():
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            return
        connection = waiter.result()
        if connection is None:
            self.slot_freed()
        else:
            self._put_back(connection)

    def connected(self, connection: ClientConnection) -> None:
        """A new connection fills its reserved slot and is taken."""
        self._taken.add(connection)

    def slot_freed(self) -> None:
        """A reserved or used slot is free again; a waiter inherits it."""
        waiter = self._next_waiter()
        if waiter is None:
            self._slots_used -= 1
        else:
            waiter.set_result(None)

    def _next_waiter(self) -> "asyncio.Future[ClientConnection | None] | None":
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                return waiter
        return None

    # ConnectionOwner.

    def exchange_over(self, connection: ClientConnection) -> None:
        """Take a connection back, or let it close."""
        self._taken.discard(connection)
        if connection.usable:
            self._put_back(connection)
        elif not connection.lost:
            connection.transport.close()

    def _put_back(self, connection: ClientConnection) -> None:
        self._taken.discard(connection)
        waiter = self._next_waiter()
        if waiter is not None:
            self._taken.add(connection)
            waiter.set_result(connection)
        elif len(self._idle) < self._limits.max_idle_per_origin:
            connection.idle_since_s = asyncio.get_running_loop().time()
            self._idle.append(connection)
        else:
            connection.transport.close()

    def connection_gone(self, connection: ClientConnection) -> None:
        """Forget a closed connection."""
        self._taken.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        self.slot_freed()

    # Ends.

    def close_idle(self, idle_before_s: float) -> None:
        """Close what has been idle since before then (loop time)."""
        stale = [c for c in self._idle if c.idle_since_s <= idle_before_s]
        for connection in stale:
            self._idle.remove(connection)
            connection.transport.close()

    def abort_all(self) -> None:
        """Cut every connection; exchanges under way fail with PeerVanished."""
        for connection in (*self._idle, *self._taken):
            connection.abort()
        self._idle.clear()
