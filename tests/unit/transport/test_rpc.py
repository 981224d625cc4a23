"""Calls between processes: deadlines, limits, what breaks a connection, and what its end does to either side."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.core.errors import ServiceError
from stoker.services import lambda_types, logs_types
from stoker.services.context import RequestContext
from stoker.services.lambda_types import CreateFunctionRequest, FunctionCode, FunctionConfiguration
from stoker.transport import rpc
from stoker.transport.frames import (
    ANSWER,
    CALL,
    FRAME_MAX_BYTES,
    RECEIVE_BYTES,
    FrameConnection,
    FrameError,
)
from stoker.transport.remote import handler_operations, modelled_operation, remote_handlers
from stoker.transport.rpc import DeadlineExceeded, Operation, PeerLost, RpcPeer
from tests.simulation.frontend.virtual_time import run_virtually

ECHO = Operation("echo", tuple[bytes], bytes, deadline_s=60.0)
SLEEP = Operation("sleep", tuple[float], float, deadline_s=30.0, cancellable=True)
CHANGE = Operation("change", tuple[float], float, deadline_s=30.0)


class Other:
    """The other side, and what it saw."""

    def __init__(self) -> None:
        self.ended: list[str] = []
        self.reports: list[str] = []
        self.peer = RpcPeer(
            {ECHO: self._echo, SLEEP: self._waiting("sleep"), CHANGE: self._waiting("change")},
            report=lambda what, _error: self.reports.append(what),
        )

    async def _echo(self, data: bytes) -> bytes:
        return data

    def _waiting(self, name: str) -> rpc.Handle:
        async def wait(seconds: float) -> float:
            try:
                await asyncio.sleep(seconds)
            except asyncio.CancelledError:
                self.ended.append(f"{name} cancelled")
                raise
            self.ended.append(f"{name} done")
            return seconds

        return wait


@contextlib.asynccontextmanager
async def connected() -> AsyncIterator[tuple[RpcPeer, Other]]:
    ours, theirs = socket.socketpair()
    caller, other = RpcPeer({}), Other()
    await caller.attach(ours)
    await other.peer.attach(theirs)
    yield caller, other
    for peer in (caller, other.peer):
        await peer.close()
        await peer.wait_ended()


def test_answers_find_their_calls_whatever_their_order() -> None:
    async def story() -> None:
        async with connected() as (caller, other):
            waits = [3.0, 1.0, 2.0, 0.5]
            assert await asyncio.gather(*(caller.call(SLEEP, wait) for wait in waits)) == waits
            statistics = other.peer.statistics()
            assert (statistics.calls, statistics.in_flight) == (4, 0)

    run_virtually(story())


def test_both_sides_may_call_on_one_connection() -> None:
    async def story() -> None:
        ours, theirs = socket.socketpair()
        one, two = Other(), Other()
        await one.peer.attach(ours)
        await two.peer.attach(theirs)
        assert await asyncio.gather(one.peer.call(ECHO, b"a"), two.peer.call(ECHO, b"b")) == [b"a", b"b"]
        await one.peer.close()
        await two.peer.wait_ended()

    run_virtually(story())


def test_a_deadline_ends_the_call_on_both_sides() -> None:
    async def story() -> None:
        async with connected() as (caller, other):
            with pytest.raises(DeadlineExceeded, match="sleep was not answered within 30 s"):
                await caller.call(SLEEP, 1000.0)
            await asyncio.sleep(0.1)
            assert other.ended == ["sleep cancelled"]
            assert await caller.call(ECHO, b"next") == b"next"

    run_virtually(story())


def test_what_changes_something_is_not_stopped_half_way() -> None:
    async def story() -> None:
        async with connected() as (caller, other):
            calls = [asyncio.create_task(caller.call(each, 5.0)) for each in (SLEEP, CHANGE)]
            await asyncio.sleep(1)
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
            await asyncio.sleep(0.1)
            assert other.ended == ["sleep cancelled"]
            await asyncio.sleep(5)
            assert other.ended == ["sleep cancelled", "change done"]
            # The late answer has no call any more and hurts nobody.
            assert await caller.call(ECHO, b"next") == b"next"

    run_virtually(story())


def test_a_call_that_is_cancelled_before_it_began_leaves_nothing() -> None:
    async def story() -> None:
        async with connected() as (caller, other):
            call = asyncio.create_task(caller.call(SLEEP, 5.0))
            await asyncio.sleep(0)
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
            await asyncio.sleep(1)
            assert other.peer.statistics().in_flight == 0

    run_virtually(story())


def test_the_end_of_the_caller_ends_what_only_it_waits_for() -> None:
    async def story() -> None:
        ours, theirs = socket.socketpair()
        caller, other = RpcPeer({}), Other()
        await caller.attach(ours)
        await other.peer.attach(theirs)
        calls = [asyncio.create_task(caller.call(each, 5.0)) for each in (SLEEP, CHANGE)]
        await asyncio.sleep(1)
        caller.hang_up()
        for call in calls:
            with pytest.raises(PeerLost):
                await call
        with pytest.raises(PeerLost):
            await caller.call(ECHO, b"")
        await other.peer.wait_ended()
        await asyncio.sleep(10)
        assert other.ended == ["sleep cancelled", "change done"]
        assert other.peer.statistics().in_flight == 0

    run_virtually(story())


def test_calls_under_way_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc, "CALLS_MAX", 3)

    async def story() -> None:
        async with connected() as (caller, _):
            calls = [asyncio.create_task(caller.call(SLEEP, 5.0)) for _ in range(4)]
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert results[:3] == [5.0] * 3
            assert isinstance(results[3], ServiceError)
            assert results[3].code == "ServiceUnavailableException"
            assert await caller.call(SLEEP, 1.0) == 1.0

    run_virtually(story())


def test_nothing_more_is_read_while_requests_hold_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc, "SERVED_MAX_BYTES", 100_000)

    async def story() -> None:
        release = asyncio.Event()
        began: list[int] = []

        async def hold(data: bytes) -> bytes:
            began.append(len(data))
            await release.wait()
            return b"held"

        ours, theirs = socket.socketpair()
        caller, server = RpcPeer({}), RpcPeer({ECHO: hold})
        await caller.attach(ours)
        await server.attach(theirs)
        calls = [asyncio.create_task(caller.call(ECHO, b"x" * 400_000)) for _ in range(10)]
        await asyncio.sleep(1)
        assert len(began) == 1
        release.set()
        assert await asyncio.gather(*calls) == [b"held"] * 10
        await caller.close()
        await server.close()

    run_virtually(story())


def test_a_caller_waits_while_the_other_side_does_not_read() -> None:
    async def story() -> None:
        ours, theirs = socket.socketpair()
        caller, other = RpcPeer({}), Other()
        await caller.attach(ours)
        first = asyncio.create_task(caller.call(ECHO, b"x" * 6_000_000))
        await asyncio.sleep(0.1)
        second = asyncio.create_task(caller.call(ECHO, b"y"))
        await asyncio.sleep(5)
        # Queued behind the first in the caller, not in the buffer of the connection.
        assert caller._frames.full
        assert len(caller._pending) == 1
        await other.peer.attach(theirs)
        assert (await first, await second) == (b"x" * 6_000_000, b"y")
        await caller.close()
        await other.peer.wait_ended()

    run_virtually(story())


def test_a_message_that_is_too_large_fails_its_call_only() -> None:
    async def story() -> None:
        async with connected() as (caller, _):
            with pytest.raises(FrameError, match="too large"):
                await caller.call(ECHO, b"x" * FRAME_MAX_BYTES)
            assert await caller.call(ECHO, b"next") == b"next"

    run_virtually(story())


def head(size_bytes: int, call: int, kind: int, name_length: int) -> bytes:
    return struct.pack("<IIBB", size_bytes, call, kind, name_length)


@pytest.mark.parametrize(
    "sent",
    [
        head(FRAME_MAX_BYTES + 1, 0, CALL, 4),
        head(4, 0, 9, 4) + b"echo",
        head(2, 0, CALL, 4) + b"echo",
        head(5, 0, CALL, 4) + b"what\x90",
        head(5, 0, CALL, 4) + b"echo\xc1",
        head(6, 0, CALL, 4) + b"echo\x91\x01",
        2 * (head(5 + 10, 7, CALL, 5) + b"sleep\x91\xcb" + struct.pack(">d", 9.0)),
    ],
    ids=["size", "kind", "name-length", "operation", "encoding", "type", "twice"],
)
def test_nonsense_ends_the_connection(sent: bytes) -> None:
    async def story() -> None:
        ours, theirs = socket.socketpair()
        other = Other()
        await other.peer.attach(theirs)
        ours.setblocking(False)
        ours.sendall(sent)
        async with asyncio.timeout(60):
            await other.peer.wait_ended()
        assert other.reports == ["the connection to another process was cut"]
        ours.close()
        await other.peer.close()

    run_virtually(story())


class Recorded:
    """A FrameReceiver that keeps what it got."""

    def __init__(self) -> None:
        self.frames: list[tuple[int, int, bytes, bytes]] = []

    def frame_received(self, kind: int, call: int, name: bytes, message: memoryview) -> None:
        self.frames.append((kind, call, name, bytes(message)))

    def connection_ended(self, reason: Exception) -> None:
        raise AssertionError(reason)


@given(
    sizes=st.lists(
        st.sampled_from([0, 1, 100, 5_000, RECEIVE_BYTES - 20, RECEIVE_BYTES - 10, RECEIVE_BYTES, 700_000]),
        max_size=6,
    ),
    cut=st.sampled_from([1_000, 65_536, RECEIVE_BYTES, 1 << 22]),
    first=st.integers(1, 40),
)
def test_frames_arrive_however_the_stream_is_cut(sizes: list[int], cut: int, first: int) -> None:
    wanted = [
        (ANSWER, number, b"n" * (number % 3), bytes([number]) * size) for number, size in enumerate(sizes)
    ]
    stream = b"".join(
        head(len(name) + len(message), call, kind, len(name)) + name + message
        for kind, call, name, message in wanted
    )
    receiver = Recorded()
    connection = FrameConnection(receiver)
    at, size_bytes = 0, first
    while at < len(stream):
        buffer = connection.get_buffer(-1)
        assert len(buffer) > 0
        piece = stream[at : at + min(size_bytes, len(buffer))]
        buffer[: len(piece)] = piece
        connection.buffer_updated(len(piece))
        at, size_bytes = at + len(piece), cut
    assert receiver.frames == wanted


def test_every_operation_of_the_model_can_be_asked_for() -> None:
    for service, types in (("lambda", lambda_types), ("logs", logs_types)):
        for name in types.INPUT:
            if types.INPUT[name] is not None:
                assert modelled_operation(service, name).name == f"{service}.{name}"


def test_a_modelled_operation_crosses_with_all_its_members() -> None:
    context = RequestContext("r", "000000000000", "us-east-1", "AKIA", "arn", "127.0.0.1:1", "http://x")
    request = CreateFunctionRequest(
        function_name="f", role="r", code=FunctionCode(zip_file=b"\x00\xff" * 10), tags={"a": "ü"}
    )
    answer = FunctionConfiguration(function_name="f", timeout=3)
    seen: list[object] = []

    async def create(*arguments: object) -> FunctionConfiguration:
        seen.extend(arguments)
        return answer

    async def delete(*_arguments: object) -> None:
        raise ServiceError("ResourceNotFoundException", "no", fields={"Type": "User"})

    async def story() -> None:
        ours, theirs = socket.socketpair()
        caller = RpcPeer({})
        server = RpcPeer(handler_operations({"lambda": {"CreateFunction": create, "DeleteFunction": delete}}))
        await caller.attach(ours)
        await server.attach(theirs)
        remote = remote_handlers(caller, {"lambda": ("CreateFunction", "DeleteFunction")})["lambda"]
        assert await remote["CreateFunction"](context, request) == answer
        assert seen == [context, request]
        with pytest.raises(ServiceError) as refused:
            await remote["DeleteFunction"](context, lambda_types.DeleteFunctionRequest(function_name="f"))
        assert refused.value.fields == {"Type": "User"}
        await caller.close()
        await server.close()

    run_virtually(story())
