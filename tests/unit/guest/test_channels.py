"""A guest's channels become connections to local sockets; one that breaks a rule is ended and costs little."""

import asyncio
import socket

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stoker.sandbox.guest.channels import Channels
from stoker.sandbox.guest.contract import (
    CHANNELS_MAX,
    FRAME,
    FRAME_BYTES_MAX,
    PORT_OUTPUT,
    PORT_RUNTIME,
    WINDOW_BYTES,
    FrameKind,
)


class Host:
    """The channels of one port, a guest's end of it, and the local ends that were opened."""

    def __init__(self) -> None:
        self.guest, self.device = socket.socketpair()
        self.guest.setblocking(False)
        self.device.setblocking(False)
        self.opened: list[tuple[int, socket.socket]] = []
        self.ended: list[str | None] = []
        self.channels = Channels(self._connect, self.ended.append)

    async def start(self) -> None:
        await asyncio.get_running_loop().create_connection(lambda: self.channels, sock=self.device)

    def _connect(self, port: int) -> socket.socket:
        if port == PORT_OUTPUT and self.opened:
            raise ConnectionRefusedError
        here, there = socket.socketpair()
        for end in (here, there):
            end.setblocking(False)
        self.opened.append((port, there))
        return here

    async def send(self, number: int, kind: int, argument: int = 0, data: bytes = b"") -> None:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(self.guest, FRAME.pack(number, kind, 0, argument) + data)
        await asyncio.sleep(0.001)

    async def receive(self) -> tuple[int, int, int, bytes]:
        async with asyncio.timeout(2):
            number, kind, _, argument = FRAME.unpack(await self._exactly(FRAME.size))
            data = await self._exactly(argument) if kind == FrameKind.DATA else b""
        return number, kind, argument, data

    async def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = await asyncio.get_running_loop().sock_recv(self.guest, count - len(data))
            assert piece, "ended"
            data += piece
        return data

    def close(self) -> None:
        self.channels.close()
        self.guest.close()
        for _, end in self.opened:
            end.close()


async def test_bytes_go_both_ways_and_ends_too() -> None:
    host = Host()
    await host.start()
    await host.send(3, FrameKind.OPEN, PORT_RUNTIME)
    await host.send(3, FrameKind.DATA, 4, b"next")
    ((port, local),) = host.opened
    assert port == PORT_RUNTIME
    assert local.recv(10) == b"next"
    assert await host.receive() == (3, FrameKind.CREDIT, 4, b"")
    local.send(b"event")
    assert await host.receive() == (3, FrameKind.DATA, 5, b"event")
    await host.send(3, FrameKind.END)
    assert local.recv(10) == b""
    local.close()
    assert await host.receive() == (3, FrameKind.END, 0, b"")
    await host.send(3, FrameKind.OPEN, PORT_RUNTIME)
    assert len(host.opened) == 2
    assert host.ended == []
    host.close()


async def test_who_does_not_read_gets_no_more_than_a_window() -> None:
    host = Host()
    await host.start()
    await host.send(0, FrameKind.OPEN, PORT_RUNTIME)
    _, local = host.opened[0]
    sent = 0
    for _ in range(100):
        try:
            sent += local.send(bytes(65536))
        except BlockingIOError:
            await asyncio.sleep(0.001)
    got = 0
    while got < WINDOW_BYTES:
        _, _, argument, _ = await host.receive()
        got += argument
    assert got == WINDOW_BYTES < sent
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await host.receive()
    await host.send(0, FrameKind.CREDIT, 100)
    assert (await host.receive())[2] == 100
    host.close()


async def test_nobody_there_is_a_reset() -> None:
    host = Host()
    await host.start()
    await host.send(0, FrameKind.OPEN, PORT_OUTPUT)
    await host.send(1, FrameKind.OPEN, PORT_OUTPUT)
    assert await host.receive() == (1, FrameKind.RESET, 0, b"")
    host.close()


RULES = [
    ("a channel that is not open", [(5, FrameKind.DATA, 1, b"x")]),
    ("an opening", [(CHANNELS_MAX, FrameKind.OPEN, PORT_RUNTIME, b"")]),
    ("an opening", [(0, FrameKind.OPEN, 22, b"")]),
    ("an opening", [(0, FrameKind.OPEN, PORT_RUNTIME, b"")] * 2),
    ("credit", [(0, FrameKind.OPEN, PORT_RUNTIME, b""), (0, FrameKind.CREDIT, 1, b"")]),
    ("a frame that is none", [(0, FrameKind.DATA, FRAME_BYTES_MAX + 1, b"")]),
    ("of no kind", [(0, FrameKind.OPEN, PORT_RUNTIME, b""), (0, 77, 0, b"")]),
    (
        "more than its window",
        [(0, FrameKind.OPEN, PORT_RUNTIME, b""), (0, FrameKind.END, 0, b""), (0, FrameKind.DATA, 1, b"x")],
    ),
]


@pytest.mark.parametrize(("why", "frames"), RULES)
async def test_a_broken_rule_ends_the_guest(why: str, frames: list[tuple[int, int, int, bytes]]) -> None:
    host = Host()
    await host.start()
    for frame in frames:
        await host.send(*frame)
    assert len(host.ended) == 1
    assert why in (host.ended[0] or "")
    host.close()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=64),
            st.builds(
                lambda number, kind, argument: (
                    FRAME.pack(number, kind, 0, argument)
                    + (bytes(argument) if kind == FrameKind.DATA else b"")
                ),
                st.integers(0, 3),
                st.integers(0, 6),
                st.sampled_from([0, 1, 100, PORT_RUNTIME, PORT_OUTPUT, 16384]),
            ),
        ),
        max_size=30,
    )
)
def test_no_bytes_of_a_guest_do_more_than_end_it(pieces: list[bytes]) -> None:
    async def run() -> None:
        host = Host()
        await host.start()
        for piece in pieces:
            host.channels.data_received(piece)
        await asyncio.sleep(0)
        assert len(host.opened) <= CHANNELS_MAX
        assert len(host.ended) <= 1
        host.close()
        assert len(host.ended) == 1

    asyncio.run(run())
