"""The DNS forwarder of a host whose resolver is on loopback, where no sandbox reaches it.

Relays queries from the jail's two sockets to the host's resolvers, UDP and TCP. Understands a message's id
and length and nothing else. Everything is bounded, by source too: one sandbox cannot starve the others.
"""

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from stoker.sandbox.dns_messages import MESSAGE_BYTES_MAX, framed, is_query, server_failure
from stoker.sandbox.dns_resolvers import Resolvers
from stoker.sandbox.dns_upstream import (
    DNS_PORT,
    ResolverFailed,
    ask_by_datagram,
    ask_by_stream,
    read_message,
)

ANSWER_WITHIN_S: Final = 5.0
"""All resolvers together; glibc asks again after as long."""
IDLE_S: Final = 5.0
"""How long a TCP client may be silent, or not read."""
PAUSE_S: Final = 1.0
DATAGRAMS_MAX: Final = 512
DATAGRAMS_PER_SOURCE_MAX: Final = 32
STREAMS_MAX: Final = 128
STREAMS_PER_SOURCE_MAX: Final = 8
AT_ONCE_MAX: Final = 32
"""Datagrams or connections taken in one turn of the event loop."""

DnsSockets = tuple[socket.socket, socket.socket]
"""UDP, and TCP listening."""
_Ask = Callable[[str, int, bytes], Awaitable[bytes]]


class Shares:
    """Places that sources share: a limit for all and one for each."""

    def __init__(self, places: int, places_per_source: int) -> None:
        self._places = places
        self._places_per_source = places_per_source
        self._taken: Counter[str] = Counter()
        self._all = 0

    def take(self, source: str) -> bool:
        """A place for this source, or False when there is none."""
        if self._taken[source] >= self._places_per_source or self._all >= self._places:
            return False
        self._taken[source] += 1
        self._all += 1
        return True

    def give(self, source: str) -> None:
        """Return a place that was taken."""
        self._all -= 1
        self._taken[source] -= 1
        if self._taken[source] <= 0:
            del self._taken[source]


class DnsForwarder:
    """Serves the sockets it was given last. ``serve(None)`` stops it, ``close`` for good."""

    def __init__(self, resolvers: Resolvers, port: int = DNS_PORT) -> None:
        self._resolvers = resolvers
        self._port = port
        self._served: DnsSockets | None = None
        self._datagrams = Shares(DATAGRAMS_MAX, DATAGRAMS_PER_SOURCE_MAX)
        self._streams = Shares(STREAMS_MAX, STREAMS_PER_SOURCE_MAX)
        self._tasks: set[asyncio.Task[None]] = set()

    def serve(self, sockets: DnsSockets | None) -> None:
        """Leave the earlier sockets and serve these; they stay the caller's, open until the next call."""
        loop = asyncio.get_running_loop()
        for earlier in self._served or ():
            loop.remove_reader(earlier.fileno())
        for task in self._tasks:
            task.cancel()
        self._served = sockets
        if sockets is not None:
            udp, tcp = sockets
            udp.setblocking(False)
            tcp.setblocking(False)
            loop.add_reader(udp.fileno(), self._take_datagrams, udp)
            loop.add_reader(tcp.fileno(), self._take_streams, tcp)

    async def close(self) -> None:
        """Stop; nothing of it runs afterwards."""
        self.serve(None)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _take_datagrams(self, udp: socket.socket) -> None:
        for _ in range(AT_ONCE_MAX):
            try:
                query, peer = udp.recvfrom(MESSAGE_BYTES_MAX)
            except BlockingIOError:
                return
            if is_query(query) and self._datagrams.take(peer[0]):
                self._spawn(self._answer_datagram(udp, query, peer), self._datagrams, peer[0])

    def _take_streams(self, tcp: socket.socket) -> None:
        for _ in range(AT_ONCE_MAX):
            try:
                client, peer = tcp.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError:  # out of descriptors: the waiting connection would wake us again and again
                self._pause(tcp)
                return
            client.setblocking(False)
            if self._streams.take(peer[0]):
                self._spawn(self._answer_stream(client), self._streams, peer[0])
            else:
                client.close()

    def _pause(self, tcp: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(tcp.fileno())
        loop.call_later(PAUSE_S, self._go_on, tcp)

    def _go_on(self, tcp: socket.socket) -> None:
        if self._served is not None and self._served[1] is tcp:
            asyncio.get_running_loop().add_reader(tcp.fileno(), self._take_streams, tcp)

    def _spawn(self, work: Coroutine[Any, Any, None], shares: Shares, source: str) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)

        def ended(done: asyncio.Task[None]) -> None:
            self._tasks.discard(done)
            shares.give(source)

        task.add_done_callback(ended)

    async def _answer_datagram(self, udp: socket.socket, query: bytes, peer: Any) -> None:
        answer = await self._ask(ask_by_datagram, query)
        with contextlib.suppress(OSError):  # the sandbox has gone, or its queue is full: datagrams get lost
            udp.sendto(answer, peer)

    async def _answer_stream(self, client: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=client)
        try:
            while (query := await _next_query(reader)) is not None:
                writer.write(framed(await self._ask(ask_by_stream, query)))
                async with asyncio.timeout(IDLE_S):
                    await writer.drain()
        except (TimeoutError, OSError):
            return  # silent, gone, or does not read: the connection is all there is to end
        finally:
            writer.transport.abort()

    async def _ask(self, ask: _Ask, query: bytes) -> bytes:
        """The first resolver's answer, or SERVFAIL when none has one in time."""
        try:
            addresses = self._resolvers.current()
        except OSError:
            return server_failure(query)
        for address in addresses:
            with contextlib.suppress(TimeoutError, OSError, ResolverFailed):
                async with asyncio.timeout(ANSWER_WITHIN_S / len(addresses)):
                    return await ask(address, self._port, query)
        return server_failure(query)


async def _next_query(reader: asyncio.StreamReader) -> bytes | None:
    async with asyncio.timeout(IDLE_S):
        message = await read_message(reader)
    return message if message is not None and is_query(message) else None
