"""Bytes of a response head. Pure: no connection, no clock; refuses what could split a response."""

import re
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

from stoker.http.body import Headers
from stoker.http.errors import InvalidHeader
from stoker.http.limits import CHECKED_NAMES

PLAIN: Final = 0
LENGTH: Final = 1
CONNECTION: Final = 2
DATE: Final = 3
FORBIDDEN: Final = 4

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

_OWNED = {
    b"content-length": LENGTH,
    b"connection": CONNECTION,
    b"date": DATE,
    b"transfer-encoding": FORBIDDEN,
    b"keep-alive": FORBIDDEN,
    b"upgrade": FORBIDDEN,
    b"trailer": PLAIN,
}
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_STATUS_LINES = {s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n".encode() for s in HTTPStatus if s.value >= 200}
_LENGTHS = tuple(b"%d" % n for n in range(1024))
_kinds: dict[bytes, int] = {}
_plain_names: set[bytes] = set()


class Head:
    """A serialised status line and headers, without the blank line, and what they said about framing."""

    __slots__ = ("block", "close", "dated", "length", "status")

    def __init__(self, status: int, block: bytes) -> None:
        self.status = status
        self.block = block
        self.length: int | None = None
        self.close = False
        self.dated = False


def status_line(status: int) -> bytes:
    """The first line of a final response; 1xx and numbers outside 200 to 999 raise InvalidHeader."""
    line = _STATUS_LINES.get(status)
    if line is None:
        if not 200 <= status <= 999:
            raise InvalidHeader(f"status {status} is not that of a final response")
        line = b"HTTP/1.1 %d \r\n" % status
    return line


def name_kind(name: bytes) -> int:
    """Who owns the header; raises InvalidHeader when ``name`` is no token (RFC 9110 5.1)."""
    kind = _kinds.get(name)
    if kind is None:
        if _TOKEN.fullmatch(name) is None:
            raise InvalidHeader(f"{name!r} is not a header name")
        kind = _OWNED.get(name.lower(), PLAIN)
        if len(_kinds) < CHECKED_NAMES:
            _kinds[name] = kind
            if kind == PLAIN:
                _plain_names.add(name)
    return kind


def header_lines(headers: Headers) -> bytes:
    """Serialise ``headers`` as they are; CR, LF and NUL in a value raise InvalidHeader."""
    block = b"".join([name + b": " + value + b"\r\n" for name, value in headers])
    count = len(headers)
    if block.count(b"\n") != count or block.count(b"\r") != count or b"\0" in block:
        raise InvalidHeader("a header value holds CR, LF or NUL")
    return block


def plain_block(status: int, headers: Headers) -> bytes | None:
    """What ``serialise_head`` gives for a head without surprises; None to look closely."""
    block = _STATUS_LINES.get(status)
    if block is None or status in (204, 304):
        return None
    for name, value in headers:
        if name not in _plain_names:
            return None
        block += name + b": " + value + b"\r\n"
    count = len(headers) + 1
    if block.count(b"\n") != count or block.count(b"\r") != count or b"\0" in block:
        return None
    return block


def serialise_head(status: int, headers: Headers) -> Head:
    """Status line and headers; content-length, connection and date are taken out and reported in the Head."""
    head = Head(status, b"")
    own: list[tuple[bytes, bytes, int]] | None = None
    for name, value in headers:
        kind = _kinds.get(name)
        if kind is None:
            kind = name_kind(name)
        if kind:
            own = own or []
            own.append((name, value, kind))
    if own:
        headers = _take_owned(head, headers, own)
    head.block = status_line(status) + header_lines(headers)
    return head


def _take_owned(head: Head, headers: Headers, own: list[tuple[bytes, bytes, int]]) -> Headers:
    for name, value, kind in own:
        if kind == FORBIDDEN:
            raise InvalidHeader(f"{name.decode()} is the server's to set")
        if kind == LENGTH:
            if head.length is not None or not value.isdigit():
                raise InvalidHeader("content-length must be one number")
            head.length = int(value)
        elif kind == CONNECTION:
            head.close = head.close or value.strip().lower() == b"close"
        else:
            head.dated = True
    return [pair for pair in headers if name_kind(pair[0]) in (PLAIN, DATE)]


def prepare_head(status: int, headers: Headers) -> bytes:
    """A head for ``Reply.send_raw``: serialised once, used for any number of responses with a body.

    Raises InvalidHeader as ``Reply.send`` does, and for statuses without a body (204, 304).
    """
    head = serialise_head(status, headers)
    if head.close or head.dated or head.length is not None or status in (204, 304):
        raise InvalidHeader("a prepared head leaves framing, connection and date to the server")
    return head.block + b"content-length: "


def length_digits(size_bytes: int) -> bytes:
    """``size_bytes`` in decimal."""
    return _LENGTHS[size_bytes] if size_bytes < 1024 else b"%d" % size_bytes


def date_line(now_s: float) -> bytes:
    """The date header (RFC 9110 6.6.1) for wall time ``now_s``, without a line end."""
    return b"date: " + formatdate(now_s, usegmt=True).encode()
