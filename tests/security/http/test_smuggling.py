"""Requests that two parsers might read differently: each is refused, and what rides behind it is never read."""

import pytest

from stoker.http.fake import FakeServer
from stoker.http.limits import ServerLimits
from stoker.http.messages import Reply, Request

RIDER = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
HOST = b"Host: a\r\n"


def post(*headers: bytes, body: bytes = b"", line: bytes = b"POST / HTTP/1.1") -> bytes:
    return line + b"\r\n" + HOST + b"".join(h + b"\r\n" for h in headers) + b"\r\n" + body


VECTORS = {
    "length and coding": post(b"Content-Length: 5", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    "coding and length": post(b"Transfer-Encoding: chunked", b"Content-Length: 5", body=b"0\r\n\r\n"),
    "two equal lengths": post(b"Content-Length: 3", b"Content-Length: 3", body=b"abc"),
    "two lengths": post(b"Content-Length: 3", b"Content-Length: 4", body=b"abc"),
    "length list": post(b"Content-Length: 3, 3", body=b"abc"),
    "length with sign": post(b"Content-Length: +3", body=b"abc"),
    "negative length": post(b"Content-Length: -3", body=b"abc"),
    "hexadecimal length": post(b"Content-Length: 0x3", body=b"abc"),
    "length with inner space": post(b"Content-Length: 1 0", body=b"abc"),
    "length with underscore": post(b"Content-Length: 1_0", body=b"abc"),
    "empty length": post(b"Content-Length: ", body=b"abc"),
    "length overflow": post(b"Content-Length: 18446744073709551619", body=b"abc"),
    "length with other digits": post("Content-Length: ٣".encode(), body=b"abc"),
    "coding list": post(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"),
    "coding twice in one": post(b"Transfer-Encoding: chunked, chunked", body=b"0\r\n\r\n"),
    "coding not last": post(b"Transfer-Encoding: chunked, identity", body=b"0\r\n\r\n"),
    "coding twice": post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    "coding identity": post(b"Transfer-Encoding: identity", body=b"0\r\n\r\n"),
    "coding with prefix": post(b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n"),
    "coding with vertical tab": post(b"Transfer-Encoding: \x0bchunked", body=b"0\r\n\r\n"),
    "coding with parameter": post(b"Transfer-Encoding: chunked;q=1", body=b"0\r\n\r\n"),
    "coding quoted": post(b'Transfer-Encoding: "chunked"', body=b"0\r\n\r\n"),
    "empty coding": post(b"Transfer-Encoding: ", body=b"0\r\n\r\n"),
    "coding in HTTP/1.0": post(
        b"Connection: keep-alive",
        b"Transfer-Encoding: chunked",
        body=b"0\r\n\r\n",
        line=b"POST / HTTP/1.0",
    ),
    "space before colon": post(b"Content-Length : 3", body=b"abc"),
    "tab before colon": post(b"Transfer-Encoding\t: chunked", body=b"0\r\n\r\n"),
    "space before name": post(b" Content-Length: 3", body=b"abc"),
    "folded header": post(b"X: a\r\n Content-Length: 3", body=b"abc"),
    "folded coding": post(b"Transfer-Encoding:\r\n chunked", body=b"0\r\n\r\n"),
    "bare LF between headers": post(b"X: a\nContent-Length: 3", body=b"abc"),
    "bare CR in a value": post(b"X: a\rContent-Length: 3", body=b"abc"),
    "bare LF at the end": b"POST / HTTP/1.1\r\nHost: a\r\n\n",
    "bare LF everywhere": b"GET / HTTP/1.1\nHost: a\n\n",
    "NUL in a value": post(b"X: a\0b"),
    "NUL in a name": post(b"X\0: a"),
    "control character": post(b"X: a\x01b"),
    "colonless header": post(b"Content-Length"),
    "empty name": post(b": x"),
    "bytes above ASCII in a name": post(b"X\xff: a"),
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "two equal hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
    "another host in the target": b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "no authority in the target": b"GET http:/// HTTP/1.1\r\nHost: a\r\n\r\n",
    "another scheme": b"GET file://a/etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n",
    "relative target": b"GET a/b HTTP/1.1\r\nHost: a\r\n\r\n",
    "fragment": b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n",
    "star with GET": b"GET * HTTP/1.1\r\nHost: a\r\n\r\n",
    "two authorizations": post(b"Authorization: a", b"Authorization: b"),
    "HTTP/0.9": b"GET /\r\n\r\n",
    "HTTP/1.2": b"GET / HTTP/1.2\r\nHost: a\r\n\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "another protocol": b"SOURCE / ICE/1.1\r\nHost: a\r\n\r\n",
    "lower-case method": b"get / HTTP/1.1\r\nHost: a\r\n\r\n",
    "tunnel": b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n",
    "unused methods": b"PROPFIND / HTTP/1.1\r\nHost: a\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "chunk size 0x": post(b"Transfer-Encoding: chunked", body=b"0x3\r\nabc\r\n0\r\n\r\n"),
    "chunk size sign": post(b"Transfer-Encoding: chunked", body=b"+3\r\nabc\r\n0\r\n\r\n"),
    "chunk size space": post(b"Transfer-Encoding: chunked", body=b"3 \r\nabc\r\n0\r\n\r\n"),
    "chunk size overflow": post(b"Transfer-Encoding: chunked", body=b"ffffffffffffffff3\r\nabc\r\n0\r\n\r\n"),
    "chunk with bare LF": post(b"Transfer-Encoding: chunked", body=b"3\nabc\n0\n\n"),
    "chunk too long": post(b"Transfer-Encoding: chunked", body=b"3\r\nabcd\r\n0\r\n\r\n"),
    "empty chunk size": post(b"Transfer-Encoding: chunked", body=b"\r\nabc\r\n0\r\n\r\n"),
    "length in trailers": post(b"Transfer-Encoding: chunked", body=b"0\r\nContent-Length: 3\r\n\r\n"),
    "host in trailers": post(b"Transfer-Encoding: chunked", body=b"0\r\nHost: b\r\n\r\n"),
    "authorization in trailers": post(b"Transfer-Encoding: chunked", body=b"0\r\nAuthorization: b\r\n\r\n"),
}


class Seen:
    def __init__(self) -> None:
        self.paths: list[bytes] = []

    def __call__(self, request: Request, reply: Reply) -> None:
        self.paths.append(request.path)
        reply.send(200, [])


@pytest.mark.parametrize("cut", ["whole", "bytes", "late rider"])
@pytest.mark.parametrize("name", VECTORS)
def test_ambiguous_requests_are_refused(name: str, cut: str):
    handler = Seen()
    server = FakeServer(handler)
    peer = server.connect()
    vector = VECTORS[name]
    raw = vector + RIDER
    if cut == "whole":
        answer = peer.send(raw)
    elif cut == "late rider":
        answer = peer.send(vector, RIDER)
    else:
        answer = peer.send(*(raw[i : i + 1] for i in range(len(raw))))
    assert handler.paths == []
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 501 ", b"HTTP/1.1 505 "))
    assert b"\r\nconnection: close\r\n" in answer
    # One answer: no second status line behind the first.
    assert answer.count(b"\r\ncontent-length: ") == 1
    assert peer.closed
    assert not server.reports
    assert server.state.buffered_bytes == 0


def test_body_is_not_read_as_a_request():
    handler = Seen()
    body = RIDER
    FakeServer(handler).connect().send(post(b"Content-Length: %d" % len(body), body=body) + RIDER)
    assert handler.paths == [b"/", b"/smuggled"]


def test_nothing_is_read_behind_connection_close():
    handler = Seen()
    peer = FakeServer(handler).connect()
    answer = peer.send(post(b"Connection: close") + RIDER, RIDER)
    assert handler.paths == [b"/"]
    assert answer.count(b"HTTP/1.1 200") == 1
    assert peer.closed


def test_nothing_is_read_behind_an_unread_streamed_body():
    handler = Seen()
    peer = FakeServer(handler, ServerLimits(buffer_limit_bytes=4)).connect()
    peer.send(post(b"Content-Length: 40", body=b"x" * 40) + RIDER, RIDER)
    assert handler.paths == [b"/"]
    assert peer.closed
