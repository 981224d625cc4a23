"""The server protocol, fed raw bytes in memory."""

import asyncio
import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stoker.core.clock import ManualClock
from stoker.http.deadlines import sweep
from stoker.http.errors import BodyBroken, InvalidHeader, PeerVanished, ReplyMisuse
from stoker.http.fake import FakeServer
from stoker.http.limits import ServerLimits
from stoker.http.messages import Reply, Request
from stoker.http.wire import prepare_head

GET = b"GET /a%20b?c=d&e HTTP/1.1\r\nHost: stoker\r\nX-One: 1\r\nx-one: 2\r\n\r\n"


class Recorder:
    """A handler that keeps requests and answers at once, unless told to wait."""

    def __init__(self, *, wait: bool = False) -> None:
        self.requests: list[Request] = []
        self.replies: list[Reply] = []
        self.wait = wait

    def __call__(self, request: Request, reply: Reply) -> None:
        self.requests.append(request)
        self.replies.append(reply)
        if not self.wait:
            reply.send(200, [(b"x-path", request.path)], request.body)


def statuses(raw: bytes) -> list[int]:
    return [int(number) for number in re.findall(rb"HTTP/1\.1 (\d{3}) [^\r]*\r\n", raw)]


def test_a_request_reaches_the_handler_undecoded_and_in_order():
    handler = Recorder()
    answer = FakeServer(handler).connect().send(GET)
    (request,) = handler.requests
    assert (request.method, request.path, request.query) == (b"GET", b"/a%20b", b"c=d&e")
    assert request.target == b"/a%20b?c=d&e"
    assert request.headers == [(b"host", b"stoker"), (b"x-one", b"1"), (b"x-one", b"2")]
    assert request.header(b"x-one") == b"1"
    assert request.header(b"absent") is None
    assert (request.peer, request.secure, request.body, request.stream) == (
        "192.0.2.7:4711",
        False,
        b"",
        None,
    )
    assert answer.startswith(b"HTTP/1.1 200 OK\r\nx-path: /a%20b\r\ncontent-length: 0\r\ndate: ")
    assert answer.endswith(b" GMT\r\n\r\n")


CONVERSATION = (
    b"POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
    b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n"
    b"POST /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nX-T: 1\r\n\r\n"
    b"HEAD /4 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
)


def check_conversation(pieces: list[bytes]) -> None:
    handler = Recorder()
    server = FakeServer(handler)
    peer = server.connect()
    answer = peer.send(*pieces)
    assert [(r.method, r.path, r.body) for r in handler.requests] == [
        (b"POST", b"/1", b"hello"),
        (b"GET", b"/2", b""),
        (b"POST", b"/3", b"abcde"),
        (b"HEAD", b"/4", b""),
    ]
    assert handler.requests[2].trailers == [(b"x-t", b"1")]
    assert statuses(answer) == [200, 200, 200, 200]
    assert answer.count(b"connection: close") == 1
    assert peer.closed
    assert not server.reports
    assert server.state.buffered_bytes == 0


def test_every_single_cut_gives_the_same_requests():
    for cut in range(1, len(CONVERSATION)):
        check_conversation([CONVERSATION[:cut], CONVERSATION[cut:]])


def test_byte_by_byte():
    check_conversation([CONVERSATION[i : i + 1] for i in range(len(CONVERSATION))])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, len(CONVERSATION) - 1), max_size=8, unique=True))
def test_any_cuts_give_the_same_requests(cuts: list[int]):
    edges = [0, *sorted(cuts), len(CONVERSATION)]
    check_conversation([CONVERSATION[a:b] for a, b in pairwise(edges)])


def test_whole_response_is_one_write():
    peer = FakeServer(lambda q, r: r.send(200, [(b"a", b"b")], b"x" * 1000)).connect()
    peer.send(GET)
    assert peer.transport.writes == 1


def test_pipelined_requests_are_begun_one_at_a_time_and_answered_in_order():
    handler = Recorder(wait=True)
    peer = FakeServer(handler).connect()
    one = b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n"
    assert peer.send(one % 1 + one % 2 + one % 3) == b""
    # One request at a time: the second is begun when the first is answered.
    assert len(handler.requests) == 1
    for number in (1, 2, 3):
        handler.replies[number - 1].send(200, [], b"<%d>" % number)
    answer = bytes(peer.transport.written)
    assert answer.index(b"<1>") < answer.index(b"<2>") < answer.index(b"<3>")


def test_pipelining_depth_pauses_reading_and_resumes():
    handler = Recorder(wait=True)
    peer = FakeServer(handler, ServerLimits(pipelining_depth=4)).connect()
    one = b"GET /%d HTTP/1.1\r\nHost: a\r\nX-Pad: " + b"p" * 900 + b"\r\n\r\n"
    peer.send(b"".join(one % n for n in range(50)))
    assert not peer.transport.reading
    assert len(peer.connection._queue) <= 4 + 5
    for number in range(50):
        handler.replies[number].send(200, [], b"")
    assert len(handler.requests) == 50
    assert statuses(bytes(peer.transport.written)) == [200] * 50
    assert peer.transport.reading


def test_deep_pipelining_does_not_recurse():
    handler = Recorder()
    peer = FakeServer(handler).connect()
    answer = peer.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 5000)
    assert len(handler.requests) == 5000
    assert answer.count(b"HTTP/1.1 200 OK") == 5000


def test_slow_reader_holds_back_further_requests():
    handler = Recorder()
    peer = FakeServer(handler).connect()
    peer.connection.pause_writing()
    peer.send(GET * 3)
    assert handler.requests == []
    peer.connection.resume_writing()
    assert len(handler.requests) == 3


def test_send_raw_uses_a_prepared_head():
    prefix = prepare_head(201, [(b"x-a", b"b")])
    answer = FakeServer(lambda q, r: r.send_raw(prefix, b"body")).connect().send(GET)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert body == b"body"
    assert head.split(b"\r\n")[:3] == [b"HTTP/1.1 201 Created", b"x-a: b", b"content-length: 4"]


@pytest.mark.parametrize("status", [204, 304])
def test_statuses_without_body_have_no_length(status: int):
    answer = FakeServer(lambda q, r: r.send(status, [])).connect().send(GET)
    assert b"content-length" not in answer
    assert answer.endswith(b"\r\n\r\n")
    assert answer.count(b"\r\n\r\n") == 1


def test_head_has_the_length_but_no_body():
    request = GET.replace(b"GET", b"HEAD")
    answer = FakeServer(lambda q, r: r.send(200, [], b"12345")).connect().send(request)
    assert b"content-length: 5\r\n" in answer
    assert not answer.endswith(b"12345")


@pytest.mark.parametrize(
    "header",
    [
        (b"x", b"a\r\nevil: 1"),
        (b"x", b"a\nevil: 1"),
        (b"x", b"a\rb"),
        (b"x", b"a\0b"),
        (b"x y", b"a"),
        (b"x:", b"a"),
        (b"", b"a"),
        (b"x\r\ny", b"a"),
        (b"Transfer-Encoding", b"chunked"),
        (b"content-length", b"1, 1"),
    ],
)
def test_header_injection_is_refused(header: tuple[bytes, bytes]):
    caught: list[Exception] = []

    def handler(request: Request, reply: Reply) -> None:
        for send in (lambda: reply.send(200, [header]), lambda: reply.start(200, [header])):
            with pytest.raises(InvalidHeader) as info:
                send()
            caught.append(info.value)
        reply.send(500, [])

    answer = FakeServer(handler).connect().send(GET)
    assert len(caught) == 2
    assert statuses(answer) == [500]
    assert b"evil" not in answer


def test_a_handler_that_raises_becomes_500_and_is_reported():
    def handler(request: Request, reply: Reply) -> None:
        raise ValueError("broken")

    server = FakeServer(handler)
    peer = server.connect()
    assert statuses(peer.send(GET)) == [500]
    assert peer.closed
    assert [type(error) for _, error in server.reports] == [ValueError]


def test_a_second_answer_is_refused():
    errors: list[Exception] = []

    def handler(request: Request, reply: Reply) -> None:
        reply.send(200, [])
        with pytest.raises(ReplyMisuse) as info:
            reply.send(200, [])
        errors.append(info.value)

    assert statuses(FakeServer(handler).connect().send(GET)) == [200]
    assert len(errors) == 1


def test_error_body_is_shaped_by_the_owner():
    server = FakeServer(Recorder(), error_body=lambda status, reason: ([(b"x-e", b"%d" % status)], b"{}"))
    answer = server.connect().send(b"GET / HTTP/1.1\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\nx-e: 400\r\n")
    assert answer.endswith(b"\r\n\r\n{}")


def test_an_error_waits_for_the_replies_before_it():
    handler = Recorder(wait=True)
    peer = FakeServer(handler).connect()
    assert peer.send(GET + b"BROKEN\r\n\r\n") == b""
    handler.replies[0].send(200, [], b"first")
    assert statuses(bytes(peer.transport.written)) == [200, 400]
    assert peer.closed


@pytest.mark.parametrize(
    ("limits", "request_bytes", "status"),
    [
        (ServerLimits(max_target_bytes=100), b"GET /" + b"a" * 100 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (
            ServerLimits(max_header_bytes=500),
            b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 500 + b"\r\n\r\n",
            431,
        ),
        (ServerLimits(max_header_count=3), b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: a\r\n" * 3 + b"\r\n", 431),
        (ServerLimits(max_body_bytes=10), b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n", 413),
        (
            ServerLimits(max_unspooled_bytes=10),
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n",
            503,
        ),
        (ServerLimits(), b"GET / HTTP/1.1\r\nHost: a\r\nExpect: cookies\r\n\r\n", 417),
        (ServerLimits(), b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        (ServerLimits(), b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (ServerLimits(max_connections=0), b"", 503),
    ],
)
def test_limits(limits: ServerLimits, request_bytes: bytes, status: int):
    handler = Recorder()
    peer = FakeServer(handler, limits).connect()
    answer = peer.send(request_bytes) if request_bytes else bytes(peer.transport.written)
    assert statuses(answer) == [status]
    assert b"connection: close" in answer
    assert handler.requests == []
    assert peer.closed


def test_an_endless_header_is_cut_off_before_it_is_complete():
    limits = ServerLimits(max_header_bytes=8192, max_target_bytes=1024)
    peer = FakeServer(Recorder(), limits).connect()
    peer.send(b"GET / HTTP/1.1\r\nHost: a\r\nX: ")
    fed = 0
    while not peer.closed and fed < 100_000:
        peer.send(b"a" * 1000)
        fed += 1000
    assert fed < 8192 + 1024 + 4096 + 2000
    assert statuses(bytes(peer.transport.written)) == [431]


def test_an_endless_trailer_is_cut_off_before_it_is_complete():
    limits = ServerLimits(max_header_bytes=8192, max_target_bytes=1024)
    for body in (b"", b"3\r\nabc\r\n"):
        peer = FakeServer(Recorder(), limits).connect()
        peer.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + body + b"0\r\nX: ")
        fed = 0
        while not peer.closed and fed < 100_000:
            peer.send(b"a" * 1000)
            fed += 1000
        assert fed < 8192 + 1024 + 4096 + 2000
        assert statuses(bytes(peer.transport.written)) == [431]


def test_a_slow_chunked_body_is_no_endless_trailer():
    handler = Recorder()
    peer = FakeServer(handler, ServerLimits(max_header_bytes=512, max_target_bytes=512)).connect()
    peer.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(30_000):
        peer.send(b"1\r\na\r\n")
    assert statuses(peer.send(b"0\r\n\r\n")) == [200]
    assert len(handler.requests[0].body) == 30_000


def test_absolute_form_and_star():
    handler = Recorder()
    peer = FakeServer(handler).connect()
    peer.send(b"GET http://A:1/x?y HTTP/1.1\r\nHost: a:1\r\n\r\n")
    peer.send(b"GET http://a HTTP/1.1\r\nHost: a\r\n\r\n")
    peer.send(b"GET http://a?q/r HTTP/1.1\r\nHost: a\r\n\r\n")
    peer.send(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n")
    assert [(r.path, r.query) for r in handler.requests] == [
        (b"/x", b"y"),
        (b"/", b""),
        (b"/", b"q/r"),
        (b"*", b""),
    ]


def test_http_1_0_closes_unless_asked():
    handler = Recorder()
    server = FakeServer(handler)
    peer = server.connect()
    answer = peer.send(b"GET / HTTP/1.0\r\n\r\n")
    assert b"connection: close" in answer
    assert peer.closed
    peer = server.connect()
    answer = peer.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert b"connection: keep-alive" in answer
    assert not peer.closed
    # What followed on the same connection is judged by its own version.
    assert statuses(peer.send(b"GET / HTTP/1.1\r\n\r\n"))[1:] == [400]


def test_upgrade_is_ignored():
    handler = Recorder()
    peer = FakeServer(handler).connect()
    upgrade = b"Host: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"
    peer.send(b"GET /1 HTTP/1.1\r\n" + upgrade + b"\r\n" + GET)
    assert [r.path for r in handler.requests] == [b"/1", b"/a%20b"]
    post = b"POST /2 HTTP/1.1\r\n" + upgrade
    for body in (
        b"Content-Length: 4\r\n\r\nbody",
        b"Transfer-Encoding: chunked\r\n\r\n2\r\nbo\r\n2\r\ndy\r\n0\r\n\r\n",
    ):
        for cut in range(1, len(post + body)):
            handler = Recorder()
            peer = FakeServer(handler).connect()
            answer = peer.send((post + body)[:cut], (post + body)[cut:])
            assert [r.body for r in handler.requests] == [b"body"]
            assert b"connection: close" in answer


def test_continue_is_sent_at_once_for_a_small_body():
    handler = Recorder()
    peer = FakeServer(handler).connect()
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
    assert peer.send(head) == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert statuses(peer.send(b"ok")) == [100, 200]


def test_continue_waits_for_the_replies_before_it():
    handler = Recorder(wait=True)
    peer = FakeServer(handler).connect()
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
    assert peer.send(GET + head) == b""
    handler.replies[0].send(200, [])
    assert statuses(bytes(peer.transport.written)) == [200, 100]


STREAMED = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n"


async def test_continue_for_a_stream_is_sent_when_it_is_read():
    handler = Recorder(wait=True)
    peer = FakeServer(handler, ServerLimits(buffer_limit_bytes=5)).connect()
    assert peer.send(STREAMED) == b""
    stream = handler.requests[0].stream
    assert stream is not None
    assert stream.size_bytes == 10
    reading = asyncio.create_task(stream.read(100))
    await asyncio.sleep(0)
    assert statuses(bytes(peer.transport.written)) == [100]
    peer.send(b"01234", b"56789" + GET)
    assert await reading == b"0123456789"
    handler.replies[0].send(200, [])
    handler.replies[1].send(200, [])
    assert statuses(bytes(peer.transport.written)) == [100, 200, 200]


async def test_a_stream_refused_before_it_is_read_ends_the_connection():
    handler = Recorder(wait=True)
    server = FakeServer(handler, ServerLimits(buffer_limit_bytes=5))
    peer = server.connect()
    peer.send(STREAMED)
    handler.replies[0].send(403, [], b"no")
    answer = peer.send(b"0123456789", GET)
    assert statuses(answer) == [403]
    assert b"connection: close" in answer
    assert peer.transport.ended
    assert server.state.buffered_bytes == 0
    with pytest.raises(PeerVanished):
        await handler.requests[0].stream.read(100)  # type: ignore[union-attr]


async def test_a_chunked_body_becomes_a_stream_when_it_grows():
    handler = Recorder(wait=True)
    server = FakeServer(handler, ServerLimits(buffer_limit_bytes=5))
    peer = server.connect()
    peer.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n")
    assert handler.requests == []
    peer.send(b"4\r\nefgh\r\n")
    stream = handler.requests[0].stream
    assert stream is not None
    peer.send(b"0\r\nx-t: 1\r\n\r\n")
    assert await stream.read(8) == b"abcdefgh"
    assert stream.trailers == [(b"x-t", b"1")]
    handler.replies[0].send(200, [])
    assert server.state.buffered_bytes == 0
    assert not peer.closed


async def test_streams_body_predicate_streams_small_bodies():
    handler = Recorder(wait=True)
    peer = FakeServer(handler, streams_body=lambda request: request.header(b"x-mode") == b"s").connect()
    peer.send(b"POST / HTTP/1.1\r\nHost: a\r\nX-Mode: s\r\nTransfer-Encoding: chunked\r\n\r\n")
    stream = handler.requests[0].stream
    assert stream is not None
    peer.send(b"1\r\na\r\n")
    assert await anext(stream) == b"a"


async def test_a_broken_stream_fails_its_reader_and_the_handler_answers():
    handler = Recorder(wait=True)
    peer = FakeServer(handler, ServerLimits(buffer_limit_bytes=1)).connect()
    peer.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\nZZ\r\n")
    stream = handler.requests[0].stream
    assert stream is not None
    assert await anext(stream) == b"ab"
    with pytest.raises(BodyBroken):
        await anext(stream)
    handler.replies[0].send(400, [])
    assert statuses(bytes(peer.transport.written)) == [400]
    assert peer.closed


async def test_stream_flow_control_pauses_the_transport():
    handler = Recorder(wait=True)
    server = FakeServer(handler)
    peer = server.connect()
    peer.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2000000\r\n\r\n")
    stream = handler.requests[0].stream
    assert stream is not None
    sent = 0
    while peer.transport.reading:
        peer.send(b"x" * 50_000)
        sent += 50_000
    assert sent <= 350_000
    assert server.state.buffered_bytes == sent
    for _ in range(sent // 50_000):
        await anext(stream)
    assert peer.transport.reading
    assert server.state.buffered_bytes == 0


def test_on_disconnect_is_called_once_and_only_for_open_replies():
    handler = Recorder(wait=True)
    peer = FakeServer(handler).connect()
    peer.send(GET + GET)
    gone: list[str] = []
    handler.replies[0].on_disconnect(lambda: gone.append("first"))
    handler.replies[0].send(200, [])
    handler.replies[1].on_disconnect(lambda: gone.append("second"))
    peer.vanish()
    assert gone == ["second"]
    assert handler.replies[1].closed
    handler.replies[1].on_disconnect(lambda: gone.append("late"))
    assert gone == ["second", "late"]
    # Answering a vanished client is not an error.
    handler.replies[1].send(200, [])


async def test_streamed_reply_is_chunked_with_trailers():
    handler = Recorder(wait=True)
    peer = FakeServer(handler).connect()
    peer.send(GET)
    reply = handler.replies[0]
    reply.start(200, [(b"a", b"b")])
    assert reply.started
    await reply.write(b"hello")
    await reply.write(b"")
    reply.finish([(b"x-t", b"v")])
    answer = bytes(peer.transport.written)
    assert b"transfer-encoding: chunked\r\n" in answer
    assert answer.endswith(b"\r\n\r\n5\r\nhello\r\n0\r\nx-t: v\r\n\r\n")
    assert not peer.closed


async def test_streamed_reply_with_length_is_held_to_it():
    handler = Recorder(wait=True)
    server = FakeServer(handler)
    peer = server.connect()
    peer.send(GET)
    handler.replies[0].start(200, [(b"content-length", b"3")])
    await handler.replies[0].write(b"abc")
    with pytest.raises(ReplyMisuse):
        await handler.replies[0].write(b"d")
    handler.replies[0].finish()
    assert bytes(peer.transport.written).endswith(b"\r\n\r\nabc")
    peer.send(GET)
    handler.replies[1].start(200, [(b"content-length", b"3")])
    with pytest.raises(ReplyMisuse):
        handler.replies[1].finish()
    assert peer.transport.aborted


async def test_streamed_reply_to_http_1_0_ends_with_the_connection():
    handler = Recorder(wait=True)
    peer = FakeServer(handler).connect()
    peer.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    handler.replies[0].start(200, [])
    await handler.replies[0].write(b"data")
    handler.replies[0].finish()
    answer = bytes(peer.transport.written)
    assert answer.endswith(b"\r\n\r\ndata")
    assert b"chunked" not in answer
    assert b"connection: close" in answer
    assert peer.closed


async def test_write_waits_for_a_slow_peer_and_ends_when_it_vanishes():
    handler = Recorder(wait=True)
    peer = FakeServer(handler).connect()
    peer.send(GET)
    reply = handler.replies[0]
    reply.start(200, [])
    peer.connection.pause_writing()
    writing = asyncio.create_task(reply.write(b"x"))
    await asyncio.sleep(0)
    assert not writing.done()
    peer.connection.resume_writing()
    await writing
    peer.connection.pause_writing()
    writing = asyncio.create_task(reply.write(b"x"))
    await asyncio.sleep(0)
    peer.vanish()
    with pytest.raises(PeerVanished):
        await writing
    with pytest.raises(PeerVanished):
        await reply.write(b"x")


# Deadlines, with a clock that moves only when told.


def timed(handler: Recorder, **limits: float) -> tuple[FakeServer, ManualClock]:
    clock = ManualClock()
    return FakeServer(handler, ServerLimits(**limits), clock=clock), clock  # type: ignore[arg-type]


def pass_time(server: FakeServer, clock: ManualClock, seconds: float) -> None:
    clock.advance(seconds)
    sweep(server.state)


def test_a_silent_newcomer_is_closed_without_an_answer():
    server, clock = timed(Recorder(), header_timeout_s=5)
    peer = server.connect()
    pass_time(server, clock, 4)
    peer.settle()
    assert not peer.closed
    pass_time(server, clock, 2)
    peer.settle()
    assert peer.closed
    assert not peer.transport.written


def test_dripping_headers_do_not_extend_their_time():
    server, clock = timed(Recorder(), header_timeout_s=5)
    peer = server.connect()
    for byte in b"GET / ":
        peer.send(bytes([byte]))
        pass_time(server, clock, 1)
    assert statuses(bytes(peer.transport.written)) == [408]
    assert peer.transport.ended
    pass_time(server, clock, 6)
    peer.settle()
    assert peer.transport.aborted


def test_idle_keep_alive_ends_quietly_and_work_in_progress_does_not():
    handler = Recorder(wait=True)
    server, clock = timed(handler, keep_alive_timeout_s=10, header_timeout_s=3)
    peer = server.connect()
    peer.send(GET)
    pass_time(server, clock, 1000)
    handler.replies[0].send(200, [])
    pass_time(server, clock, 9)
    peer.settle()
    assert not peer.closed
    pass_time(server, clock, 2)
    peer.settle()
    assert peer.closed
    assert statuses(bytes(peer.transport.written)) == [200]


def test_an_idle_body_is_answered_with_408():
    server, clock = timed(Recorder(), body_idle_timeout_s=5)
    peer = server.connect()
    peer.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
    pass_time(server, clock, 4)
    peer.send(b"d")
    pass_time(server, clock, 4)
    assert not peer.transport.written
    pass_time(server, clock, 2)
    assert statuses(bytes(peer.transport.written)) == [408]
    assert server.state.buffered_bytes == 0


async def test_an_idle_stream_fails_its_reader():
    handler = Recorder(wait=True)
    server, clock = timed(handler, body_idle_timeout_s=5, buffer_limit_bytes=1)
    peer = server.connect()
    peer.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
    stream = handler.requests[0].stream
    assert stream is not None
    pass_time(server, clock, 6)
    with pytest.raises(BodyBroken):
        await stream.read(10)
    handler.replies[0].send(408, [])
    assert statuses(bytes(peer.transport.written)) == [408]
    assert peer.closed


def test_a_peer_that_takes_nothing_is_cut_off():
    server, clock = timed(Recorder(), write_idle_timeout_s=5)
    peer = server.connect()
    peer.send(GET)
    peer.transport.stuck = True
    pass_time(server, clock, 1)
    pass_time(server, clock, 4)
    assert not peer.transport.aborted
    pass_time(server, clock, 2)
    assert peer.transport.aborted


def test_shutting_down_closes_idle_connections_and_finishes_busy_ones():
    handler = Recorder(wait=True)
    server = FakeServer(handler)
    idle, busy, lazy = server.connect(), server.connect(), server.connect()
    busy.send(GET)
    lazy.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\na")
    server.state.closing = True
    for peer in (idle, busy, lazy):
        peer.connection.shut_down()
        peer.settle()
    assert idle.closed
    assert not busy.closed
    handler.replies[0].send(200, [])
    busy.settle()
    lazy.send(b"b")
    handler.replies[1].send(200, [])
    lazy.settle()
    for peer in (busy, lazy):
        assert b"connection: close" in peer.transport.written
        assert peer.closed
    assert server.state.emptied.is_set()


async def test_what_is_left_of_a_body_after_the_answer_never_looks_like_its_end():
    handler = Recorder(wait=True)
    server = FakeServer(handler, ServerLimits(buffer_limit_bytes=1))
    peer = server.connect()
    peer.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nabcd")
    stream = handler.requests[0].stream
    assert stream is not None
    assert stream.ended
    handler.replies[0].send(200, [])
    with pytest.raises(BodyBroken):
        await stream.read(10)
    assert server.state.buffered_bytes == 0
    assert not peer.closed


def test_a_flood_is_turned_away_without_keeping_it():
    server = FakeServer(Recorder(), ServerLimits(max_connections=1))
    server.connect()
    for _ in range(10):
        assert server.connect().transport.closing
    assert server.state.statistics().connections == 1
