"""Our client against our server over real TCP, Unix and TLS sockets."""

import asyncio
import hashlib
import http.client
import os
import socket
import ssl
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvloop

from stoker.http.client import HttpClient, Origin, unix_origin
from stoker.http.errors import BodyTooLarge, ConnectFailed, PeerVanished
from stoker.http.limits import ServerLimits
from stoker.http.messages import Reply, Request
from stoker.http.peers import Credentials, certificate_names, unix_credentials
from stoker.http.server import HttpServer

KINDS = ["tcp", "unix", "tls"]
TASKS: set[asyncio.Task[None]] = set()


def spawn(coroutine: object) -> None:
    task = asyncio.ensure_future(coroutine)  # type: ignore[arg-type]
    TASKS.add(task)
    task.add_done_callback(TASKS.discard)


def handler(request: Request, reply: Reply) -> None:
    """The server of all tests here: digests uploads, streams downloads, echoes the rest."""
    if request.path == b"/download":
        spawn(download(int(request.query), reply))
    elif request.path == b"/duplex":
        spawn(duplex(request, reply))
    elif request.stream is not None:
        spawn(digest(request, reply))
    else:
        headers = [(b"x-method", request.method), (b"x-secure", b"%d" % request.secure)]
        reply.send(200, headers, request.body)


async def download(size_bytes: int, reply: Reply) -> None:
    reply.start(200, [])
    sent = 0
    while sent < size_bytes:
        chunk = bytes([sent // 65536 % 256]) * min(65536, size_bytes - sent)
        await reply.write(chunk)
        sent += len(chunk)
    reply.finish([(b"x-sent", b"%d" % sent)])


async def digest(request: Request, reply: Reply) -> None:
    assert request.stream is not None
    sha = hashlib.sha256()
    async for chunk in request.stream:
        sha.update(chunk)
    reply.send(200, [], sha.hexdigest().encode())


async def duplex(request: Request, reply: Reply) -> None:
    assert request.stream is not None
    reply.start(200, [])
    async for chunk in request.stream:
        await reply.write(chunk.upper())
    reply.finish()


@asynccontextmanager
async def running(
    kind: str,
    folder: Path,
    tls: tuple[ssl.SSLContext, ssl.SSLContext],
    limits: ServerLimits | None = None,
) -> AsyncIterator[tuple[HttpServer, HttpClient, Origin]]:
    server = HttpServer(handler, limits, streams_body=lambda request: request.path == b"/duplex")
    if kind == "unix":
        path = str(folder / "http.sock")
        await server.start_unix(path)
        origin = unix_origin(path)
    else:
        await server.start_tcp("127.0.0.1", 0, ssl_context=tls[0] if kind == "tls" else None)
        host, _, port = server.addresses[0].rpartition(":")
        origin = Origin(host, int(port), secure=kind == "tls")
    client = HttpClient(ssl_context=tls[1])
    try:
        yield server, client, origin
    finally:
        await client.close()
        await server.close(1)
        assert server.statistics().connections == 0
        assert server.statistics().buffered_bytes == 0


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


async def test_the_loop_is_uvloop():
    assert isinstance(asyncio.get_running_loop(), uvloop.Loop)


async def test_exchange(kind, tmp_path, tls_contexts):
    async with running(kind, tmp_path, tls_contexts) as (server, client, origin):
        for body in (b"", b"small", os.urandom(300_000)):
            response = await client.request("POST", origin, b"/echo", body=body)
            assert (response.status, response.body) == (200, body)
            assert response.header(b"x-secure") == b"%d" % (kind == "tls")
        head = await client.request("HEAD", origin, b"/")
        assert (head.status, head.body, head.header(b"x-method")) == (200, b"", b"HEAD")
        assert (await client.request("GET", origin)).body == b""
        # All of it over one kept connection.
        assert server.statistics().connections == 1


async def test_large_upload_known_and_unknown_length(kind, tmp_path, tls_contexts):
    block = os.urandom(100_000)

    async def blocks() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield block

    expected = hashlib.sha256(block * 100).hexdigest().encode()
    async with running(kind, tmp_path, tls_contexts) as (_, client, origin):
        known = await client.request("PUT", origin, b"/up", body=block * 100)
        assert known.body == expected
        unknown = await client.request("PUT", origin, b"/up", body=blocks())
        assert unknown.body == expected


async def test_large_download_with_a_slow_reader_holds_the_writer_back(kind, tmp_path, tls_contexts):
    size = 30_000_000
    async with running(kind, tmp_path, tls_contexts) as (_, client, origin):
        async with await client.stream("GET", origin, b"/download?%d" % size) as response:
            await asyncio.sleep(0.2)
            assert response.body.buffered_bytes < 2_000_000
            got = 0
            async for chunk in response.body:
                got += len(chunk)
            assert got == size
            assert response.body.trailers == [(b"x-sent", b"%d" % size)]
        assert (await client.request("GET", origin)).status == 200


async def test_bodies_flow_both_ways_at_once(kind, tmp_path, tls_contexts):
    more = asyncio.Queue[bytes]()

    async def chunks() -> AsyncIterator[bytes]:
        while chunk := await more.get():
            yield chunk

    async with (
        running(kind, tmp_path, tls_contexts) as (_, client, origin),
        await client.stream("POST", origin, b"/duplex", body=chunks()) as response,
    ):
        for word in (b"one", b"two", b"three"):
            more.put_nowait(word)
            assert await asyncio.wait_for(anext(response.body), 5) == word.upper()
        more.put_nowait(b"")
        with pytest.raises(StopAsyncIteration):
            await asyncio.wait_for(anext(response.body), 5)


async def test_many_clients_at_once(kind, tmp_path, tls_contexts):
    async with running(kind, tmp_path, tls_contexts) as (server, client, origin):

        async def one(number: int) -> None:
            body = b"%d" % number * 100
            assert (await client.request("POST", origin, body=body)).body == body

        await asyncio.gather(*(one(n) for n in range(500)))
        assert server.statistics().connections <= 64


async def test_download_limit(kind, tmp_path, tls_contexts):
    async with running(kind, tmp_path, tls_contexts) as (_, client, origin):
        with pytest.raises(BodyTooLarge):
            await client.request("GET", origin, b"/download?1000000", max_response_bytes=10_000)
        assert (await client.request("GET", origin)).status == 200


async def test_unix_socket_permissions_and_leftovers(tmp_path):
    path = tmp_path / "s.sock"
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    server = HttpServer(handler)
    await server.start_unix(path, 0o660)
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert server.addresses == [str(path)]
    await server.close(0)
    assert not path.exists()
    path.write_text("precious")
    with pytest.raises(FileExistsError):
        await HttpServer(handler).start_unix(path)
    assert path.read_text() == "precious"


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
async def test_handed_over_listening_socket(family, tmp_path):
    listening = socket.socket(family)
    listening.bind(("127.0.0.1", 0) if family == socket.AF_INET else str(tmp_path / "h.sock"))
    listening.listen()
    server = HttpServer(handler)
    await server.start_socket(listening)
    origin = (
        Origin("127.0.0.1", listening.getsockname()[1])
        if family == socket.AF_INET
        else unix_origin(str(tmp_path / "h.sock"))
    )
    async with HttpClient() as client:
        assert (await client.request("POST", origin, body=b"x")).body == b"x"
    await server.close(1)


async def test_two_servers_share_a_port():
    servers = [HttpServer(handler), HttpServer(handler)]
    await servers[0].start_tcp("127.0.0.1", 0, reuse_port=True)
    port = int(servers[0].addresses[0].rpartition(":")[2])
    await servers[1].start_tcp("127.0.0.1", port, reuse_port=True)
    async with HttpClient() as client:
        assert (await client.request("GET", Origin("127.0.0.1", port))).status == 200
    for server in servers:
        await server.close(1)


def blocking_exchange(port: int) -> tuple[int, bytes, str | None]:
    """Python's own client as a second opinion, with 100-continue."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    body = b"y" * 2_000_000
    connection.request("PUT", "/up", body=body, headers={"Expect": "100-continue"})
    response = connection.getresponse()
    result = response.status, response.read(), response.getheader("Connection")
    connection.close()
    return result


async def test_a_foreign_client():
    server = HttpServer(handler)
    await server.start_tcp("127.0.0.1", 0)
    port = int(server.addresses[0].rpartition(":")[2])
    status, body, connection = await asyncio.to_thread(blocking_exchange, port)
    assert (status, body) == (200, hashlib.sha256(b"y" * 2_000_000).hexdigest().encode())
    assert connection is None
    await server.close(1)


async def test_unix_peers_show_their_credentials(tmp_path):
    seen: list[object] = []

    def whoami(request: Request, reply: Reply) -> None:
        seen.append(unix_credentials(request))
        reply.send(200, [])

    server = HttpServer(whoami)
    await server.start_unix(tmp_path / "s")
    await server.start_tcp("127.0.0.1", 0)
    async with HttpClient() as client:
        await client.request("GET", unix_origin(str(tmp_path / "s")))
        await client.request("GET", "http://" + server.addresses[1])
    await server.close(1)
    assert seen == [Credentials(os.getpid(), os.getuid(), os.getgid()), None]


async def test_mutual_tls_shows_the_clients_names(certificate_folder):
    seen: list[object] = []

    def whoami(request: Request, reply: Reply) -> None:
        seen.append(certificate_names(request))
        reply.send(200, [])

    demanding = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificate_folder / "cert.pem")
    demanding.load_cert_chain(certificate_folder / "cert.pem", certificate_folder / "key.pem")
    demanding.verify_mode = ssl.CERT_REQUIRED
    anonymous = ssl.create_default_context(cafile=certificate_folder / "cert.pem")
    known = ssl.create_default_context(cafile=certificate_folder / "cert.pem")
    known.load_cert_chain(certificate_folder / "cert.pem", certificate_folder / "key.pem")
    server = HttpServer(whoami)
    await server.start_tcp("127.0.0.1", 0, ssl_context=demanding)
    url = "https://" + server.addresses[0]
    async with HttpClient(ssl_context=known) as client:
        assert (await client.request("GET", url)).status == 200
    async with HttpClient(ssl_context=anonymous) as client:
        with pytest.raises((ConnectFailed, PeerVanished)):
            await client.request("POST", url)
    await server.close(1)
    assert seen == [frozenset({"localhost"})]
