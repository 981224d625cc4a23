"""Response heads and request heads, as bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.http.errors import InvalidHeader
from stoker.http.origin import Origin, request_head, split_url, unix_origin
from stoker.http.wire import date_line, plain_block, prepare_head, serialise_head, status_line

names = st.binary(max_size=8)
values = st.binary(max_size=12)


@given(st.integers(200, 599), st.lists(st.tuples(names, values), max_size=4))
def test_a_head_has_one_line_per_header_or_is_refused(status: int, headers: list[tuple[bytes, bytes]]):
    try:
        head = serialise_head(status, headers)
    except InvalidHeader:
        return
    lines = head.block.split(b"\r\n")
    assert lines.pop() == b""
    assert not any(b"\n" in line or b"\r" in line or b"\0" in line for line in lines)
    taken = (b"content-length", b"connection")
    expected = [(n, v) for n, v in headers if n.lower() not in taken]
    assert len(lines) == 1 + len(expected)
    assert [tuple(line.split(b": ", 1)) for line in lines[1:]] == expected


@given(
    st.integers(200, 599), st.lists(st.tuples(st.sampled_from([b"a", b"X-B", b"date"]), values), max_size=4)
)
def test_the_short_path_gives_the_same_bytes(status: int, headers: list[tuple[bytes, bytes]]):
    short = plain_block(status, headers)
    if short is not None:
        assert short == serialise_head(status, headers).block


@pytest.mark.parametrize("status", [0, 99, 100, 101, 199, 1000, -1])
def test_only_final_statuses(status: int):
    with pytest.raises(InvalidHeader):
        status_line(status)


def test_owned_headers_are_taken_out():
    head = serialise_head(200, [(b"Content-Length", b"7"), (b"a", b"b"), (b"Connection", b"Close")])
    assert (head.block, head.length, head.close) == (b"HTTP/1.1 200 OK\r\na: b\r\n", 7, True)
    for bad in (b"", b"-1", b"1,1", b"x"):
        with pytest.raises(InvalidHeader):
            serialise_head(200, [(b"content-length", bad)])


def test_unknown_statuses_have_no_phrase():
    assert status_line(299) == b"HTTP/1.1 299 \r\n"


@pytest.mark.parametrize(
    ("status", "headers"),
    [(204, []), (304, []), (200, [(b"date", b"x")]), (200, [(b"connection", b"close")])],
)
def test_what_a_prepared_head_cannot_be(status: int, headers: list[tuple[bytes, bytes]]):
    with pytest.raises(InvalidHeader):
        prepare_head(status, headers)


def test_date():
    assert date_line(0) == b"date: Thu, 01 Jan 1970 00:00:00 GMT"


def test_urls():
    assert split_url("http://h") == (Origin("h", 80), b"/")
    assert split_url("https://h:8443/a?b=c#d") == (Origin("h", 8443, secure=True), b"/a?b=c")
    assert split_url("http://[::1]:9/x")[0].authority == b"[::1]:9"
    assert Origin("h", 443, secure=True).authority == b"h"
    assert unix_origin("/run/x").authority == b"localhost"
    for bad in ("ftp://h/", "h/path", "http:///x", "http://user:pw@h/"):
        with pytest.raises(ValueError, match="URL"):
            split_url(bad)


def test_request_head():
    head = request_head("POST", b"/a", b"h:1", [(b"x", b"y")], 3)
    assert head == b"POST /a HTTP/1.1\r\nhost: h:1\r\nx: y\r\ncontent-length: 3\r\n\r\n"
    assert request_head("GET", b"/", b"h", [], 0) == b"GET / HTTP/1.1\r\nhost: h\r\n\r\n"
    assert b"transfer-encoding: chunked\r\n" in request_head("PUT", b"/", b"h", [], None)
    own_host = request_head("GET", b"/", b"h", [(b"Host", b"other")], 0)
    assert own_host.lower().count(b"host: ") == 1


@pytest.mark.parametrize(
    ("method", "target", "headers"),
    [
        ("GET /x HTTP/1.1\r\n", b"/", []),
        ("GET", b"/ HTTP/1.1\r\nx: y", []),
        ("GET", b"/a b", []),
        ("GET", b"", []),
        ("GET", b"/", [(b"a", b"b\r\nc: d")]),
        ("GET", b"/", [(b"a\r\n", b"b")]),
        ("GET", b"/", [(b"Content-Length", b"3")]),
        ("GET", b"/", [(b"Transfer-Encoding", b"chunked")]),
    ],
)
def test_request_splitting_is_refused(method: str, target: bytes, headers: list[tuple[bytes, bytes]]):
    with pytest.raises(InvalidHeader):
        request_head(method, target, b"h", headers, 0)
