"""Slow, silent, rude and vanishing peers on real sockets, and the server's graceful end."""

import asyncio
import contextlib
import socket

import pytest

from stoker.http.client import ClientLimits, HttpClient, Origin
from stoker.http.errors import (
    ConnectFailed,
    ExchangeTimeout,
    PeerVanished,
    PoolExhausted,
    ResponseInvalid,
)
from stoker.http.limits import ServerLimits
from stoker.http.messages import Reply, Request
from stoker.http.server import HttpServer

QUICK = ServerLimits(
    header_timeout_s=0.4,
    body_idle_timeout_s=0.4,
    keep_alive_timeout_s=0.4,
    write_idle_timeout_s=0.4,
    linger_timeout_s=0.4,
    sweep_interval_s=0.05,
)


class Waiting:
    """Keeps every reply until the test answers it."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.replies: list[Reply] = []
        self.arrived = asyncio.Event()

    def __call__(self, request: Request, reply: Reply) -> None:
        self.requests.append(request)
        self.replies.append(reply)
        self.arrived.set()


def echo(request: Request, reply: Reply) -> None:
    reply.send(200, [], request.body)


@contextlib.asynccontextmanager
async def serving(handler, limits=None):
    server = HttpServer(handler, limits)
    await server.start_tcp("127.0.0.1", 0)
    try:
        yield server, int(server.addresses[0].rpartition(":")[2])
    finally:
        await server.close(0)


async def connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", port)


async def until_closed(reader: asyncio.StreamReader) -> bytes:
    return await asyncio.wait_for(reader.read(), 5)


async def test_slow_headers_get_408():
    async with serving(echo, QUICK) as (server, port):
        reader, writer = await connect(port)

        async def drip() -> None:
            with contextlib.suppress(ConnectionError):
                for byte in b"GET / HTTP/1.1\r\nHost: a\r\n" * 20:
                    writer.write(bytes([byte]))
                    await asyncio.sleep(0.05)

        dripping = asyncio.create_task(drip())
        answer = await until_closed(reader)
        dripping.cancel()
        assert answer.startswith(b"HTTP/1.1 408 ")
        writer.close()
        for _ in range(100):
            if server.statistics().connections == 0:
                break
            await asyncio.sleep(0.02)
        assert server.statistics().connections == 0


async def test_silent_and_idle_connections_are_closed():
    async with serving(echo, QUICK) as (_, port):
        silent, writer_1 = await connect(port)
        kept, writer_2 = await connect(port)
        writer_2.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert await until_closed(silent) == b""
        assert (await until_closed(kept)).count(b"HTTP/1.1 200") == 1
        writer_1.close()
        writer_2.close()


async def test_slow_body_gets_408():
    async with serving(echo, QUICK) as (_, port):
        reader, writer = await connect(port)
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
        assert (await until_closed(reader)).startswith(b"HTTP/1.1 408 ")
        writer.close()


async def test_a_peer_that_never_reads_is_cut_off():
    async with serving(lambda q, r: r.send(200, [], b"x" * 20_000_000), QUICK) as (server, port):
        sock = socket.create_connection(("127.0.0.1", port))
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await asyncio.sleep(0.1)
        assert server.statistics().connections == 1
        for _ in range(100):
            await asyncio.sleep(0.05)
            if server.statistics().connections == 0:
                break
        assert server.statistics().connections == 0
        sock.close()


async def test_the_handler_learns_of_a_vanished_client():
    handler = Waiting()
    async with serving(handler) as (_, port):
        reader, writer = await connect(port)
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await asyncio.wait_for(handler.arrived.wait(), 5)
        gone = asyncio.Event()
        handler.replies[0].on_disconnect(gone.set)
        writer.close()
        await asyncio.wait_for(gone.wait(), 5)
        assert handler.replies[0].closed
        del reader


async def test_a_vanished_uploader_fails_the_stream():
    handler = Waiting()
    async with serving(handler) as (_, port):
        _, writer = await connect(port)
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5000000\r\n\r\nabc")
        await asyncio.wait_for(handler.arrived.wait(), 5)
        stream = handler.requests[0].stream
        assert stream is not None
        writer.close()
        with pytest.raises(PeerVanished):
            await asyncio.wait_for(stream.read(5_000_000), 5)


async def test_a_refused_upload_still_reads_its_answer():
    # The client sends everything before it reads: closing early would reset the connection under it.
    async with serving(lambda q, r: r.send(403, [], b"no")) as (_, port):
        reader, writer = await connect(port)
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 20000000\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            for _ in range(200):
                writer.write(b"x" * 100_000)
                await writer.drain()
        answer = await until_closed(reader)
        assert answer.startswith(b"HTTP/1.1 403 ")
        assert answer.endswith(b"\r\n\r\nno")
        writer.close()


async def test_too_many_connections_get_503():
    async with serving(echo, ServerLimits(max_connections=2)) as (_, port):
        kept = [await connect(port) for _ in range(2)]
        await asyncio.sleep(0.05)
        reader, writer = await connect(port)
        assert (await until_closed(reader)).startswith(b"HTTP/1.1 503 ")
        for _, each in [*kept, (reader, writer)]:
            each.close()


async def test_graceful_close_finishes_what_is_in_flight():
    handler = Waiting()
    async with serving(handler) as (server, port):
        idle, idle_writer = await connect(port)
        busy, busy_writer = await connect(port)
        busy_writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await asyncio.wait_for(handler.arrived.wait(), 5)
        closing = asyncio.create_task(server.close(5))
        assert await until_closed(idle) == b""
        with pytest.raises(ConnectionRefusedError):
            await connect(port)
        assert not closing.done()
        handler.replies[0].send(200, [], b"done")
        answer = await until_closed(busy)
        assert b"connection: close" in answer
        assert answer.endswith(b"done")
        await asyncio.wait_for(closing, 2)
        idle_writer.close()
        busy_writer.close()


async def test_graceful_close_cuts_what_does_not_finish():
    handler = Waiting()
    async with serving(handler) as (server, port):
        reader, writer = await connect(port)
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await asyncio.wait_for(handler.arrived.wait(), 5)
        await asyncio.wait_for(server.close(0.1), 2)
        assert handler.replies[0].closed
        with contextlib.suppress(ConnectionError):
            assert await until_closed(reader) == b""
        writer.close()


# The client against servers that misbehave.


@contextlib.asynccontextmanager
async def scripted(*answers: bytes | None):
    """A raw server: the n-th request of all connections gets the n-th answer; None closes without one."""
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                answer = answers[min(len(seen), len(answers) - 1)]
                seen.append(head)
                if answer is None:
                    break
                writer.write(answer)
                if b"onnection: close" in answer:
                    break
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    client = HttpClient(ClientLimits(connect_timeout_s=2))
    try:
        yield client, Origin("127.0.0.1", server.sockets[0].getsockname()[1]), seen
    finally:
        await client.close()
        server.close()


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def test_a_stale_connection_is_retried_once_for_idempotent_requests():
    async with scripted(OK, None, OK) as (client, origin, seen):
        assert (await client.request("GET", origin)).body == b"ok"
        assert (await client.request("GET", origin)).body == b"ok"
        assert len(seen) == 3


async def test_a_stale_connection_is_not_retried_for_others():
    async with scripted(OK, None, OK) as (client, origin, seen):
        await client.request("GET", origin)
        with pytest.raises(PeerVanished):
            await client.request("POST", origin, idempotent=None)
        assert len(seen) == 2
        assert (await client.request("POST", origin)).body == b"ok"


async def test_a_fresh_connection_is_not_retried():
    async with scripted(None) as (client, origin, seen):
        with pytest.raises(PeerVanished):
            await client.request("GET", origin)
        assert len(seen) == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nok",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"v" * 100_000 + b"\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 999999 OK\r\n\r\n",
    ],
)
async def test_invalid_answers(answer: bytes):
    async with scripted(answer) as (client, origin, _):
        with pytest.raises(ResponseInvalid):
            await client.request("GET", origin, timeout_s=5)


async def test_unasked_answers_poison_the_connection():
    async with scripted(OK + OK, OK) as (client, origin, _):
        with contextlib.suppress(ResponseInvalid):
            await client.request("GET", origin)
        await asyncio.sleep(0.05)
        assert (await client.request("GET", origin)).body == b"ok"


async def test_a_late_unasked_answer_is_not_taken_for_the_next_one():
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        if connections == 1:
            await asyncio.sleep(0.05)
            writer.write(OK.replace(b"ok", b"no"))
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with HttpClient() as client:
        origin = Origin("127.0.0.1", server.sockets[0].getsockname()[1])
        assert (await client.request("GET", origin)).body == b"ok"
        await asyncio.sleep(0.2)
        assert (await client.request("GET", origin, timeout_s=5)).body == b"ok"
        assert connections == 2
    server.close()


async def test_interim_answers_are_skipped_and_bodies_may_end_with_the_connection():
    early = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    async with scripted(early + b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end") as parts:
        client, origin, _ = parts
        assert (await client.request("GET", origin)).body == b"until the end"


async def test_a_truncated_body_is_an_error():
    cut = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 100\r\n\r\nshort"
    async with scripted(cut) as (client, origin, _):
        with pytest.raises(PeerVanished):
            await client.request("GET", origin)


async def test_time_out_and_cancellation_free_the_connection():
    handler = Waiting()
    async with serving(handler) as (server, port), HttpClient() as client:
        origin = Origin("127.0.0.1", port)
        with pytest.raises(ExchangeTimeout):
            await client.request("GET", origin, timeout_s=0.1)
        asking = asyncio.create_task(client.request("GET", origin))
        await asyncio.sleep(0.1)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await asyncio.sleep(0.1)
        assert server.statistics().connections == 0
        assert all(reply.closed for reply in handler.replies)


async def test_the_pool_is_bounded_and_fair():
    handler = Waiting()
    limits = ClientLimits(max_connections_per_origin=2, max_waiting_per_origin=1)
    async with serving(handler) as (server, port), HttpClient(limits) as client:
        origin = Origin("127.0.0.1", port)
        asking = [asyncio.create_task(client.request("GET", origin)) for _ in range(3)]
        await asyncio.sleep(0.1)
        assert len(handler.replies) == server.statistics().connections == 2
        with pytest.raises(PoolExhausted):
            await client.request("GET", origin)
        handler.replies[0].send(200, [])
        await asyncio.sleep(0.1)
        assert len(handler.replies) == 3
        handler.replies[1].abort()
        handler.replies[2].send(200, [])
        results = await asyncio.gather(*asking, return_exceptions=True)
        assert sorted(type(r).__name__ for r in results) == ["PeerVanished", "Response", "Response"]


async def test_a_waiter_inherits_the_slot_of_a_lost_connection():
    handler = Waiting()
    async with (
        serving(handler) as (_, port),
        HttpClient(ClientLimits(max_connections_per_origin=1)) as client,
    ):
        origin = Origin("127.0.0.1", port)
        first = asyncio.create_task(client.request("GET", origin))
        second = asyncio.create_task(client.request("GET", origin))
        await asyncio.sleep(0.1)
        handler.replies[0].abort()
        with pytest.raises(PeerVanished):
            await first
        await asyncio.sleep(0.1)
        handler.replies[1].send(200, [])
        assert (await second).status == 200


async def test_idle_client_connections_are_closed():
    async with serving(echo) as (server, port), HttpClient(ClientLimits(idle_timeout_s=0.2)) as client:
        await client.request("GET", Origin("127.0.0.1", port))
        assert server.statistics().connections == 1
        await asyncio.sleep(0.6)
        assert server.statistics().connections == 0


async def test_refused_connections():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    async with HttpClient() as client:
        for _ in range(3):
            with pytest.raises(ConnectFailed):
                await client.request("GET", Origin("127.0.0.1", port))


async def test_a_failing_body_source_never_looks_complete():
    handler = Waiting()

    async def broken():
        yield b"x" * 10
        raise ValueError("source")

    async with serving(handler) as (_, port), HttpClient() as client:
        with pytest.raises((PeerVanished, ValueError)):
            await client.request("POST", Origin("127.0.0.1", port), body=broken())
        await asyncio.sleep(0.1)
        assert handler.requests == []
