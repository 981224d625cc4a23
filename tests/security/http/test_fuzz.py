"""Arbitrary bytes: no exception leaves the protocol, no request gets two answers, memory stays bounded."""

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from stoker.http.fake import FakeServer
from stoker.http.limits import ServerLimits
from stoker.http.messages import Reply, Request

LIMITS = ServerLimits(
    max_header_bytes=2048,
    max_header_count=20,
    max_target_bytes=256,
    buffer_limit_bytes=64,
    max_body_bytes=4096,
    max_unspooled_bytes=8192,
    pipelining_depth=4,
)

FRAGMENTS = [
    b"GET / HTTP/1.1\r\n",
    b"POST /x?y HTTP/1.1\r\n",
    b"HEAD http://a/ HTTP/1.0\r\n",
    b"OPTIONS * HTTP/1.1\r\n",
    b"Host: a\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: 100\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: gzip\r\n",
    b"Connection: close\r\n",
    b"Connection: keep-alive, Upgrade\r\nUpgrade: h2c\r\n",
    b"Expect: 100-continue\r\n",
    b"X: " + b"v" * 600 + b"\r\n",
    b" folded\r\n",
    b"\r\n",
    b"\n",
    b"\0",
    b"5\r\nhello\r\n",
    b"40\r\n" + b"c" * 64 + b"\r\n",
    b"0\r\n\r\n",
    b"0\r\nX-T: 1\r\n\r\n",
    b"hello",
    b"b" * 100,
]
pieces = st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.binary(max_size=40)), max_size=30)
cuts = st.lists(st.integers(1, 400), min_size=1, max_size=30)
plans = st.lists(st.sampled_from(["now", "later", "start", "raise", "abort"]), min_size=1, max_size=10)


class Unruly:
    """Answers as a plan says, and remembers what it owes."""

    def __init__(self, plan: list[str]) -> None:
        self.plan = plan
        self.calls = 0
        self.owed: list[Reply] = []

    def __call__(self, request: Request, reply: Reply) -> None:
        step = self.plan[self.calls % len(self.plan)]
        self.calls += 1
        assert len(request.body) <= LIMITS.buffer_limit_bytes
        if step == "now":
            reply.send(200, [(b"x-call", b"%d" % self.calls)], b"ok")
        elif step == "later":
            self.owed.append(reply)
        elif step == "start":
            reply.start(200, [(b"x-call", b"%d" % self.calls)])
            reply.finish()
        elif step == "abort":
            reply.abort()
        else:
            raise ValueError("as planned")

    def settle_debts(self) -> None:
        while self.owed:
            reply = self.owed.pop(0)
            reply.send(202, [(b"x-call", b"0")], b"late")


def slices(raw: bytes, sizes: list[int]) -> list[bytes]:
    out: list[bytes] = []
    position = 0
    while position < len(raw):
        size = sizes[len(out) % len(sizes)]
        out.append(raw[position : position + size])
        position += size
    return out


@settings(max_examples=500, deadline=None)
@given(pieces, cuts, plans)
def test_arbitrary_input(parts: list[bytes], sizes: list[int], plan: list[str]):
    handler = Unruly(plan)
    server = FakeServer(handler, LIMITS)
    peer = server.connect()
    for piece in slices(b"".join(parts), sizes):
        peer.send(piece)
        assert server.state.buffered_bytes <= LIMITS.max_unspooled_bytes + len(piece)
        assert server.state.buffered_bytes >= 0
    handler.settle_debts()
    peer.settle()
    assert all(isinstance(error, ValueError) and str(error) == "as planned" for _, error in server.reports)
    heads = re.findall(rb"HTTP/1\.1 ([2-5]\d\d) [^\r]*\r\n", bytes(peer.transport.written))
    # Every call has at most one answer, and the server adds at most one refusal, the last word.
    assert len(heads) <= handler.calls + 1
    for status in heads[:-1]:
        assert status in (b"200", b"202")
    peer.vanish()
    assert server.state.buffered_bytes == 0
    assert not server.state.connections


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=2000), cuts)
def test_noise(raw: bytes, sizes: list[int]):
    handler = Unruly(["now"])
    server = FakeServer(handler, LIMITS)
    peer = server.connect()
    peer.send(*slices(raw, sizes))
    assert not server.reports
    assert bytes(peer.transport.written).count(b"HTTP/1.1 ") <= handler.calls + 1


@settings(max_examples=300, deadline=None)
@given(pieces, cuts)
def test_cuts_do_not_change_what_is_understood(parts: list[bytes], sizes: list[int]):
    raw = b"".join(parts)
    seen: list[list[tuple[bytes, bytes, object]]] = []
    for cut in ([len(raw) or 1], sizes):
        got: list[tuple[bytes, bytes, object]] = []

        def handler(request: Request, reply: Reply, got: list[tuple[bytes, bytes, object]] = got) -> None:
            got.append((request.method, request.target, tuple(request.headers)))
            reply.send(200, [])

        FakeServer(handler, ServerLimits(buffer_limit_bytes=4096)).connect().send(*slices(raw, cut))
        seen.append(got)
    assert seen[0] == seen[1]
