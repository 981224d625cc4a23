"""The DNS forwarder on loopback sockets, before a real small DNS server."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from stoker.sandbox import dns_forwarder
from stoker.sandbox.dns_forwarder import DATAGRAMS_PER_SOURCE_MAX, STREAMS_PER_SOURCE_MAX, DnsForwarder
from stoker.sandbox.dns_resolvers import Resolvers
from tests.integration.egress.fake_resolver import ADDRESS, FakeResolver, question

RESOLVER, FORWARDER, DEAD = "127.3.0.1", "127.3.0.2", "127.3.0.3"
RECORD = socket.inet_aton(ADDRESS)


@pytest.fixture
def resolver() -> Iterator[FakeResolver]:
    served = FakeResolver(RESOLVER, 0)
    yield served
    served.close()


@pytest.fixture
def resolv_conf(tmp_path: Path) -> Path:
    file = tmp_path / "resolv.conf"
    file.write_text(f"nameserver {RESOLVER}\n")
    return file


class Served:
    """A forwarder on sockets as the jail hands them over, and clients of it from any loopback address."""

    def __init__(self, forwarder: DnsForwarder) -> None:
        self.forwarder = forwarder
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind((FORWARDER, 0))
        self.address = self.udp.getsockname()
        self.tcp = socket.create_server(self.address, backlog=64)
        forwarder.serve((self.udp, self.tcp))

    def client(self, source: str = "127.3.1.1") -> socket.socket:
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        client.bind((source, 0))
        client.connect(self.address)
        client.setblocking(False)
        return client

    async def ask(self, query: bytes, source: str = "127.3.1.1", within_s: float = 2.0) -> bytes:
        with self.client(source) as client:
            client.send(query)
            return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, 65535), within_s)

    async def stream(self, source: str = "127.3.1.1") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(*self.address, local_addr=(source, 0))

    async def close(self) -> None:
        await self.forwarder.close()
        self.udp.close()
        self.tcp.close()


@pytest.fixture
async def served(resolver: FakeResolver, resolv_conf: Path) -> AsyncIterator[Served]:
    made = Served(DnsForwarder(Resolvers(resolv_conf), resolver.port))
    yield made
    await made.close()


def framed(message: bytes) -> bytes:
    return len(message).to_bytes(2, "big") + message


async def read_framed(reader: asyncio.StreamReader) -> bytes:
    return await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))


async def test_udp_answers_come_under_the_askers_id(served: Served, resolver: FakeResolver) -> None:
    answers = [await served.ask(question("a.example", bytes([7, i]))) for i in range(8)]
    assert [answer[:2] for answer in answers] == [bytes([7, i]) for i in range(8)]
    assert all(answer.endswith(RECORD) for answer in answers)
    ids, ports = zip(*resolver.seen, strict=True)
    assert len(set(ports)) > 4, "each query has a port of its own"
    assert len(set(ids)) > 4
    assert set(ids) != {bytes([7, i]) for i in range(8)}


async def test_an_answer_with_another_id_is_not_passed_on(served: Served) -> None:
    assert (await served.ask(question("forged.example"))).endswith(RECORD)


async def test_tcp_serves_several_queries_on_one_connection(served: Served) -> None:
    assert (await served.ask(question("big.example")))[2] & 0x02, "truncated over UDP"
    reader, writer = await served.stream()
    for i in range(3):
        writer.write(framed(question("big.example", bytes([9, i]))))
        answer = await asyncio.wait_for(read_framed(reader), 2)
        assert answer[:2] == bytes([9, i])
        assert answer.endswith(RECORD)
    writer.close()


async def test_the_next_resolver_is_asked_and_without_any_the_failure_is_told(
    served: Served, resolv_conf: Path
) -> None:
    resolv_conf.write_text(f"nameserver {DEAD}\nnameserver {RESOLVER}\n")
    assert (await served.ask(question("a.example"))).endswith(RECORD)
    resolv_conf.write_text(f"nameserver {DEAD}\n")
    began = time.monotonic()
    assert (await served.ask(question("a.example")))[3] & 0x0F == 2
    assert time.monotonic() - began < 1, "a refusal is known at once"


async def test_a_silent_resolver_is_given_up(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_forwarder, "ANSWER_WITHIN_S", 0.2)
    assert (await served.ask(question("silent.example")))[3] & 0x0F == 2
    reader, writer = await served.stream()
    writer.write(framed(question("silent.example")))
    assert (await asyncio.wait_for(read_framed(reader), 2))[3] & 0x0F == 2
    writer.close()


async def test_one_sandbox_does_not_starve_another(served: Served, resolver: FakeResolver) -> None:
    with served.client("127.3.1.1") as greedy:
        for i in range(200):
            greedy.send(question("silent.example", bytes([1, i])))
        await asyncio.sleep(0.1)
        assert (await served.ask(question("a.example"), "127.3.1.2")).endswith(RECORD)
    assert len(resolver.seen) == DATAGRAMS_PER_SOURCE_MAX + 1


async def test_connections_of_one_sandbox_are_counted_and_idle_ones_end(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dns_forwarder, "IDLE_S", 0.5)
    greedy = [await served.stream() for _ in range(STREAMS_PER_SOURCE_MAX + 4)]
    ended = [asyncio.ensure_future(reader.read(1)) for reader, _ in greedy]
    await asyncio.sleep(0.1)
    assert sum(one.done() for one in ended) == 4
    reader, writer = await served.stream("127.3.1.2")
    writer.write(framed(question("a.example")))
    assert (await asyncio.wait_for(read_framed(reader), 2)).endswith(RECORD)
    await asyncio.wait_for(asyncio.gather(*ended, return_exceptions=True), 3)
    again_reader, again = await served.stream()
    again.write(framed(question("a.example")))
    assert (await asyncio.wait_for(read_framed(again_reader), 2)).endswith(RECORD)
    for _, opened in [*greedy, (reader, writer), (again_reader, again)]:
        opened.close()


@pytest.mark.parametrize("junk", [b"", b"x", bytes(11), question("a.example")[:2] + b"\x81\x80" + bytes(8)])
async def test_junk_is_neither_answered_nor_passed_on(
    served: Served, resolver: FakeResolver, junk: bytes
) -> None:
    with served.client() as client:
        client.send(junk)
        assert (await served.ask(question("a.example"))).endswith(RECORD)
        with pytest.raises(BlockingIOError):
            client.recv(100)
    reader, writer = await served.stream()
    writer.write(framed(junk))
    assert await asyncio.wait_for(reader.read(1), 2) == b""
    writer.close()
    assert len(resolver.seen) == 1


async def test_it_moves_to_new_sockets_and_stops(served: Served, resolver: FakeResolver) -> None:
    with served.client() as waiting:
        waiting.send(question("silent.example"))
        await asyncio.sleep(0.05)
        served.forwarder.serve(None)
        waiting.send(question("a.example"))
        await asyncio.sleep(0.1)
        with pytest.raises(BlockingIOError):
            waiting.recv(100)
    assert len(resolver.seen) == 1
    moved = Served(served.forwarder)
    assert (await moved.ask(question("a.example"))).endswith(RECORD)
    await moved.close()
