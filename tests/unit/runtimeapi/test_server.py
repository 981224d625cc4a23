"""The Runtime API over a real socket: what each request gets, and what a hostile runtime cannot do."""

import asyncio
import base64
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from stoker.core.errors import IllegalTransition
from stoker.runtimeapi import RuntimeApi, RuntimeInvocation
from stoker.runtimeapi.limits import MAX_CONNECTIONS, MAX_HEAD_BYTES, REFUSED_BURST
from stoker.runtimeapi.states import State

API = "/2018-06-01/runtime"
ACCEPTED = (202, {"status": "OK"})


def invocation(request_id: str = "r1", payload: bytes = b'{"a":1}', **fields: Any) -> RuntimeInvocation:
    return RuntimeInvocation(
        request_id=request_id, deadline_ms=1234, invoked_function_arn="arn:f", payload=payload, **fields
    )


class Events:
    """RuntimeEvents as a list."""

    def __init__(self) -> None:
        self.seen: list[tuple[Any, ...]] = []
        self.on_ready_action: Any = None

    def on_ready(self) -> None:
        self.seen.append(("ready",))
        if self.on_ready_action:
            self.on_ready_action()

    def on_response(self, request_id: str, body: bytes, content_type: str) -> None:
        self.seen.append(("response", request_id, body, content_type))

    def on_error(self, request_id: str, error_type: str, body: bytes) -> None:
        self.seen.append(("error", request_id, error_type, body))

    def on_init_error(self, error_type: str, body: bytes) -> None:
        self.seen.append(("init_error", error_type, body))

    def on_connection_lost(self) -> None:
        self.seen.append(("lost",))


class Peer:
    """A client that sends exactly what it is told."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, method: str, path: str, body: bytes = b"", **headers: str) -> None:
        lines = [f"{method} {path} HTTP/1.1", "Host: x"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        if method == "POST" and "Transfer_Encoding" not in headers:
            lines.append(f"Content-Length: {len(body)}")
        self.writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    async def receive(self) -> tuple[int, dict[str, str], bytes]:
        head = (await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 5)).decode()
        first, *lines = head.strip().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        body = await self.reader.readexactly(int(headers.get("Content-Length", "0")))
        return int(first.split()[1]), headers, body

    async def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, Any]:
        self.send(method, path, body, **headers)
        status, _, answer = await self.receive()
        return status, json.loads(answer) if answer[:1] in b'{["' else answer

    async def next(self) -> None:
        self.send("GET", f"{API}/invocation/next")
        await asyncio.sleep(0.01)

    async def is_closed(self) -> bool:
        try:
            return await asyncio.wait_for(self.reader.read(1 << 24), 5) == b""
        except ConnectionError:
            return True


class Served:
    """A server with its events, and peers on demand."""

    def __init__(self) -> None:
        self.events = Events()
        self.api = RuntimeApi(self.events)
        self.port = 0
        self.peers: list[Peer] = []

    async def peer(self) -> Peer:
        self.peers.append(Peer(*await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 24)))
        return self.peers[-1]

    async def running(self, **fields: Any) -> Peer:
        """A peer that has taken an invocation."""
        peer = await self.peer()
        await peer.next()
        self.api.deliver(invocation(**fields))
        assert (await peer.receive())[0] == 200
        return peer


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    made = Served()
    listening = socket.create_server(("127.0.0.1", 0))
    made.port = listening.getsockname()[1]
    await made.api.start(listening)
    yield made
    await made.api.close()
    for peer in made.peers:
        peer.writer.close()


async def test_invocation_has_all_headers(served):
    peer = await served.peer()
    await peer.next()
    assert served.events.seen == [("ready",)]
    served.api.deliver(
        invocation(
            trace_id="Root=1",
            client_context='{"c":\r\n1}',
            cognito_identity='{"i":2}',
            tenant_id="t",
        )
    )
    status, headers, body = await peer.receive()
    assert (status, body) == (200, b'{"a":1}')
    assert headers == {
        "Content-Type": "application/json",
        "Content-Length": "7",
        "Lambda-Runtime-Aws-Request-Id": "r1",
        "Lambda-Runtime-Deadline-Ms": "1234",
        "Lambda-Runtime-Invoked-Function-Arn": "arn:f",
        "Lambda-Runtime-Trace-Id": "Root=1",
        "Lambda-Runtime-Client-Context": '{"c":  1}',
        "Lambda-Runtime-Cognito-Identity": '{"i":2}',
        "Lambda-Runtime-Aws-Tenant-Id": "t",
    }


async def test_delivery_before_the_runtime_asks(served):
    served.api.deliver(invocation())
    with pytest.raises(IllegalTransition):
        served.api.deliver(invocation("r2"))
    peer = await served.peer()
    assert await peer.ask("GET", f"{API}/invocation/next") == (200, {"a": 1})
    assert served.events.seen == [("ready",)]


async def test_delivery_from_within_the_ready_callback(served):
    served.events.on_ready_action = lambda: served.api.deliver(invocation())
    peer = await served.peer()
    assert await peer.ask("GET", f"{API}/invocation/next") == (200, {"a": 1})


async def test_response_then_next_makes_it_idle_again(served):
    peer = await served.running()
    answer = await peer.ask("POST", f"{API}/invocation/r1/response", b"[1]", Content_Type="application/x")
    assert answer == ACCEPTED
    assert served.api.state is State.RESPONSE_SENT
    await peer.next()
    assert served.events.seen == [("ready",), ("response", "r1", b"[1]", "application/x"), ("ready",)]


async def test_response_and_next_in_one_packet_are_answered_together(served):
    peer = await served.running()
    peer.send("POST", f"{API}/invocation/r1/response", b"1")
    peer.send("GET", f"{API}/invocation/next")
    await asyncio.sleep(0.05)
    assert served.events.seen[1:] == [("response", "r1", b"1", "application/json"), ("ready",)]
    served.api.deliver(invocation("r2"))
    assert (await peer.receive())[0] == 202
    assert (await peer.receive())[1]["Lambda-Runtime-Aws-Request-Id"] == "r2"


async def test_refusal_is_not_held_back_for_the_next_invocation(served):
    peer = await served.running()
    peer.send("POST", f"{API}/invocation/r1/response", b"x" * 6_291_557)
    peer.send("GET", f"{API}/invocation/next")
    assert (await peer.receive())[0] == 413


async def test_wrong_or_old_request_id(served):
    peer = await served.peer()
    invalid = (400, {"errorMessage": "Invalid request ID", "errorType": "InvalidRequestID"})
    assert await peer.ask("POST", f"{API}/invocation/r1/response", b"1") == invalid
    await peer.next()
    served.api.deliver(invocation())
    await peer.receive()
    assert await peer.ask("POST", f"{API}/invocation/other/error", b"1") == invalid
    assert await peer.ask("POST", f"{API}/invocation/r1/response", b"1") == ACCEPTED
    assert await peer.ask("POST", f"{API}/invocation/r1/error", b"{}") == (
        403,
        {
            "errorMessage": "State transition from RuntimeResponseSentState to InvocationErrorResponse failed "
            "for runtime. Error: State transition is not allowed",
            "errorType": "InvalidStateTransition",
        },
    )
    assert [event[0] for event in served.events.seen] == ["ready", "response"]


async def test_next_while_running_gets_the_same_invocation_again(served):
    peer = await served.running()
    assert await peer.ask("GET", f"{API}/invocation/next") == (200, {"a": 1})
    assert served.events.seen == [("ready",)]


async def test_init_error_ends_everything(served):
    peer = await served.peer()
    kind = {"Lambda_Runtime_Function_Error_Type": "Runtime.Oops"}
    assert await peer.ask("POST", f"{API}/init/error", b'{"x":1}', **kind) == ACCEPTED
    assert served.events.seen == [("init_error", "Runtime.Oops", b'{"x":1}')]
    assert (await peer.ask("POST", f"{API}/init/error", b"{}"))[0] == 403
    assert (await peer.ask("GET", f"{API}/invocation/next"))[0] == 403
    with pytest.raises(IllegalTransition):
        served.api.deliver(invocation())


@pytest.mark.parametrize(
    ("claimed", "seen"),
    [
        ("Function.Mine", "Function.Mine"),
        ("Function.bad", "Function.Unknown"),
        ("TypeError", "Runtime.Unknown"),
        ("Runtime.A\u00e9", "Runtime.Unknown"),
    ],
)
async def test_error_types_are_checked(served, claimed, seen):
    peer = await served.running()
    kind = {"Lambda_Runtime_Function_Error_Type": claimed}
    assert await peer.ask("POST", f"{API}/invocation/r1/error", b"{}", **kind) == ACCEPTED
    assert served.events.seen[1] == ("error", "r1", seen, b"{}")


async def test_error_with_cause_keeps_the_callers_part(served):
    peer = await served.running()
    body = b'{"errorMessage":"m","errorType":"T","stackTrace":[],"cause":{"secret":1}}'
    kind = {"Content_Type": "application/vnd.aws.lambda.error.cause+json"}
    assert await peer.ask("POST", f"{API}/invocation/r1/error", body, **kind) == ACCEPTED
    assert json.loads(served.events.seen[1][3]) == {"errorMessage": "m", "errorType": "T", "stackTrace": []}


@pytest.mark.parametrize(("size", "status"), [(6_291_556, 202), (6_291_557, 413), (9_000_000, 413)])
async def test_response_size(served, size, status):
    peer = await served.running()
    got, answer = await peer.ask("POST", f"{API}/invocation/r1/response", b"x" * size)
    assert got == status
    if status == 202:
        assert len(served.events.seen[1][2]) == size
        return
    assert answer == {
        "errorMessage": "Exceeded maximum allowed payload size (6291556 bytes).",
        "errorType": "RequestEntityTooLarge",
    }
    assert served.events.seen[1][:3] == ("error", "r1", "Function.ResponseSizeTooLarge")


STREAMING = {"Transfer_Encoding": "chunked", "Lambda_Runtime_Function_Response_Mode": "streaming"}


async def test_streamed_response(served):
    peer = await served.running()
    body = b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    assert await peer.ask("POST", f"{API}/invocation/r1/response", body, **STREAMING) == ACCEPTED
    assert served.events.seen[1] == ("response", "r1", b"abcde", "application/json")


async def test_streamed_response_with_error_trailers(served):
    peer = await served.running()
    error = base64.b64encode(b'{"errorMessage":"m"}').decode()
    body = (
        "3\r\nabc\r\n0\r\nLambda-Runtime-Function-Error-Type: Function.Broke\r\n"
        f"Lambda-Runtime-Function-Error-Body: {error}\r\n\r\n"
    ).encode()
    assert await peer.ask("POST", f"{API}/invocation/r1/response", body, **STREAMING) == ACCEPTED
    assert served.events.seen[1] == ("error", "r1", "Function.Broke", b'{"errorMessage":"m"}')


async def test_unknown_response_mode(served):
    peer = await served.running()
    mode = {"Lambda_Runtime_Function_Response_Mode": "telepathy"}
    status, answer = await peer.ask("POST", f"{API}/invocation/r1/response", b"1", **mode)
    assert (status, answer["errorType"]) == (400, "InvalidFunctionResponseMode")
    assert served.events.seen[1] == ("error", "r1", "Runtime.InvalidResponseModeHeader", b"")


async def test_unknown_paths(served):
    peer = await served.peer()
    assert await peer.ask("GET", "/2018-06-01/ping") == (200, b"pong")
    for method, path in (("GET", "/"), ("PUT", f"{API}/invocation/next"), ("POST", f"{API}/invocation/r1")):
        assert (await peer.ask(method, path))[0] == 404


async def test_lost_connection_is_told_when_it_was_the_last(served):
    first, second = await served.peer(), await served.peer()
    await first.next()
    first.writer.close()
    await asyncio.sleep(0.02)
    assert served.events.seen == [("ready",)]
    second.writer.close()
    await asyncio.sleep(0.02)
    assert served.events.seen == [("ready",), ("lost",)]


async def test_delivery_skips_a_waiter_that_went_away(served):
    first, second = await served.peer(), await served.peer()
    await first.next()
    await second.next()
    first.writer.transport.abort()
    await asyncio.sleep(0.02)
    served.api.deliver(invocation())
    assert (await second.receive())[2] == b'{"a":1}'


async def test_close_ends_the_waiting_next(served):
    peer = await served.peer()
    await peer.next()
    await served.api.close()
    assert await peer.is_closed()
    assert served.api.state is State.DEAD
    assert ("lost",) not in served.events.seen


async def test_defect_in_a_callback_is_not_swallowed(served):
    def fail() -> None:
        raise ZeroDivisionError

    reported: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["exception"]))
    served.events.on_ready_action = fail
    peer = await served.peer()
    await peer.next()
    assert await peer.is_closed()
    assert isinstance(reported[0], ZeroDivisionError)


# --- hostile runtimes


async def test_too_many_connections(served):
    peers = [await served.peer() for _ in range(MAX_CONNECTIONS)]
    assert await (await served.peer()).is_closed()
    assert (await peers[-1].ask("GET", "/2018-06-01/ping"))[0] == 200


async def test_a_client_that_reads_up_to_the_end_is_given_one(served):
    peer = await served.peer()
    peer.send("GET", f"{API}/invocation/next", Connection="close")
    await asyncio.sleep(0.01)
    served.api.deliver(invocation())
    assert (await asyncio.wait_for(peer.reader.read(), 5)).endswith(b'{"a":1}')
    again = await served.peer()
    again.send("POST", f"{API}/invocation/r1/response", b"1", Connection="close")
    assert (await asyncio.wait_for(again.reader.read(), 5)).startswith(b"HTTP/1.1 202")


async def test_endless_head(served):
    peer = await served.peer()
    peer.writer.write(b"GET / HTTP/1.1\r\nX: ")
    peer.writer.write(b"x" * (MAX_HEAD_BYTES + 1))
    assert await peer.is_closed()


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
async def test_what_is_no_http_is_dropped(served, data):
    peer = await served.peer()
    peer.writer.write(data)
    assert await peer.is_closed()


async def test_request_after_a_waiting_next_is_dropped(served):
    peer = await served.peer()
    await peer.next()
    peer.send("GET", "/2018-06-01/ping")
    assert await peer.is_closed()


async def test_flood_of_refused_requests_is_cut_off(served):
    peer = await served.peer()
    answered = 0
    try:
        for _ in range(REFUSED_BURST * 4):
            assert (await peer.ask("GET", "/nowhere"))[0] == 404
            answered += 1
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    assert REFUSED_BURST - 2 <= answered <= REFUSED_BURST + 10


async def test_flood_of_repeated_next_without_reading_is_cut_off(served):
    """Each repetition would be answered with the whole payload."""
    peer = await served.running(payload=b"x" * 3_000_000)
    peer.writer.write(f"GET {API}/invocation/next HTTP/1.1\r\n\r\n".encode() * 50)
    while ("lost",) not in served.events.seen:
        await asyncio.sleep(0.01)
    assert served.api.state is State.RUNNING


async def test_peer_that_does_not_read_is_cut_off(served):
    peer = await served.running(payload=b"x" * 6_000_000)
    peer.writer.transport.pause_reading()
    for _ in range(20):
        peer.send("GET", f"{API}/invocation/next")
        await asyncio.sleep(0.005)
        if ("lost",) in served.events.seen:
            break
    assert served.events.seen[-1] == ("lost",)


async def test_a_pooled_runtime_waits_for_its_assignment_and_nothing_else() -> None:
    waits: list[bool] = []
    events = Events()
    api = RuntimeApi(events, lambda: waits.append(True))
    listening = socket.create_server(("127.0.0.1", 0))
    await api.start(listening)
    peer, second = [Peer(*await asyncio.open_connection(*listening.getsockname())) for _ in range(2)]
    assignment = "/2018-06-01/stoker/assignment"
    with pytest.raises(IllegalTransition):
        api.assign(b"{}")
    with pytest.raises(IllegalTransition):
        api.deliver(invocation())
    assert (await second.ask("GET", f"{API}/invocation/next"))[0] == 403
    assert (await second.ask("POST", f"{API}/init/error"))[0] == 403
    peer.send("GET", assignment)
    await asyncio.sleep(0.01)
    assert (waits, events.seen) == ([True], [])
    assert (await second.ask("GET", assignment))[0] == 404
    api.assign(b'{"environment":{}}')
    assert (await peer.receive())[2] == b'{"environment":{}}'
    with pytest.raises(IllegalTransition):
        api.assign(b"{}")
    assert (await peer.ask("GET", assignment))[0] == 404
    await peer.next()
    assert events.seen == [("ready",)]
    await api.close()


async def test_a_runtime_of_a_function_has_no_assignment() -> None:
    api = RuntimeApi(Events())
    listening = socket.create_server(("127.0.0.1", 0))
    await api.start(listening)
    peer = Peer(*await asyncio.open_connection(*listening.getsockname()))
    assert (await peer.ask("GET", "/2018-06-01/stoker/assignment"))[0] == 404
    await api.close()
