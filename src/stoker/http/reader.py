"""Bytes to requests: framing, limits and refusals, on httptools. What becomes of them is the subclass's."""

import asyncio
from collections.abc import Callable
from typing import Any, Final

import httptools

from stoker.http.body import BodyStream, Headers
from stoker.http.framing import (
    CODING,
    EXPECT,
    HOST,
    LENGTH,
    METHODS,
    ONCE,
    UNUSUAL,
    WATCHED,
    Refused,
    field_bytes,
    framing_fault,
    target_fault,
)
from stoker.http.limits import CHUNKED_SLICE_BYTES, HEADER_OVERHEAD_BYTES, PARSE_SLICE_BYTES
from stoker.http.messages import Request
from stoker.http.state import ServerState

# Phases of reading; from LAST on, input is ignored.
IDLE: Final = 0
HEAD: Final = 1
BODY: Final = 2
LAST: Final = 3
LINGER: Final = 4
CLOSED: Final = 5

_SLASH: Final = 47


class RequestReader(asyncio.Protocol):
    """Parser callbacks of one connection. Exceptions in them never leave ``_feed``."""

    __slots__ = (
        "_body_bytes",
        "_body_since_s",
        "_body_unparsed",
        "_chunks",
        "_continue_owed",
        "_feeding",
        "_head_fed_bytes",
        "_head_measured",
        "_headers",
        "_ignored_input",
        "_keep_alive",
        "_length",
        "_max_header_bytes",
        "_max_header_count",
        "_max_target_bytes",
        "_old_peer",
        "_parser",
        "_phase",
        "_refusal",
        "_request",
        "_seen",
        "_since_s",
        "_stream",
        "_target",
        "extra_info",
        "peer",
        "secure",
        "shared",
    )

    shared: ServerState
    peer: str
    secure: bool
    extra_info: Callable[[str], Any]

    def __init__(self, shared: ServerState) -> None:
        limits = shared.limits
        self.shared = shared
        self._max_target_bytes = limits.max_target_bytes
        self._max_header_bytes = limits.max_header_bytes
        self._max_header_count = limits.max_header_count
        # A head that came in one slice is smaller than any usual limit, and need not be measured.
        most_bytes = PARSE_SLICE_BYTES + HEADER_OVERHEAD_BYTES * limits.max_header_count
        self._head_measured = limits.max_header_bytes < most_bytes
        self._parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)
        self._phase = IDLE
        self._feeding = False
        self._since_s = shared.now_s
        self._body_since_s = shared.now_s
        self._head_fed_bytes = 0
        self._refusal: Refused | None = None
        self._ignored_input = False
        self._request: Request | None = None
        self._stream: BodyStream | None = None
        self._chunks: list[bytes] = []
        self._body_bytes = 0
        self._continue_owed = False
        self._old_peer = False
        self._keep_alive = True
        self._body_unparsed = False
        self._reset_head()

    def _reset_head(self) -> None:
        self._target = b""
        self._headers: Headers = []
        self._seen = 0
        self._length = 0

    # What the subclass does.

    def _accept(self, request: Request) -> None:
        raise NotImplementedError

    def _refuse(self, refused: Refused) -> None:
        raise NotImplementedError

    def _body_failed(self, reason: str) -> None:
        raise NotImplementedError

    def _open_stream(self, request: Request, size_bytes: int | None) -> BodyStream:
        raise NotImplementedError

    def _expect_continue(self) -> None:
        raise NotImplementedError

    def _callback_failed(self, error: BaseException) -> None:
        raise NotImplementedError

    # Feeding.

    def _feed(self, data: bytes | memoryview) -> None:
        """Parse ``data``; whatever is wrong with it ends in ``_refuse`` or ``_body_failed``."""
        if self._phase == IDLE:
            self._phase = HEAD
            self._since_s = self.shared.now_s
        parser = self._parser
        if parser is None:
            return
        self._feeding = True
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._feeding = False
            self._ignore_upgrade(data, upgrade)
        except httptools.HttpParserError as error:
            self._feed_failed(error)
        self._feeding = False
        if self._phase == HEAD or (self._phase == BODY and self._seen & CODING):
            self._bound_partial_head(len(data))

    def _bound_partial_head(self, size_bytes: int) -> None:
        # httptools keeps an unfinished header or trailer to itself, so what it may hold is bounded here.
        self._head_fed_bytes += min(size_bytes, PARSE_SLICE_BYTES)
        most_bytes = self._max_header_bytes + self._max_target_bytes + PARSE_SLICE_BYTES
        if self._head_fed_bytes > most_bytes:
            refused = Refused(431, "The request headers are too large.")
            if self._stream is not None:
                self._body_failed(refused.reason)
            else:
                self._refuse(refused)

    def _feed_failed(self, error: httptools.HttpParserError) -> None:
        refused, self._refusal = self._refusal, None
        if self._phase >= LAST:
            self._ignored_input = True
            return
        if refused is None:
            if isinstance(error, httptools.HttpParserCallbackError):
                self._callback_failed(error)
                refused = Refused(500, "The request could not be read.")
            else:
                refused = Refused(400, f"The request is malformed: {error}.")
        if self._stream is not None:
            self._body_failed(refused.reason)
        else:
            self._refuse(refused)

    def _ignore_upgrade(self, data: bytes | memoryview, upgrade: httptools.HttpParserUpgrade) -> None:
        # No protocol is offered to upgrade to (RFC 9110 7.8 lets us ignore it); the parser has stopped
        # behind the head, and what follows is HTTP/1.1 as before.
        rest = memoryview(data)[upgrade.args[0] :]
        if self._body_unparsed and self._phase == BODY:
            self._body_unparsed = False
            framing = (
                b"transfer-encoding: chunked" if self._seen & CODING else b"content-length: %d" % self._length
            )
            self._parser = httptools.HttpRequestParser(_BodyOnly(self))
            self._parser.feed_data(b"POST / HTTP/1.1\r\n" + framing + b"\r\n\r\n")
        if len(rest) and self._phase < LAST:
            self._feed(rest)
        elif len(rest):
            self._ignored_input = True

    def _slice_bytes(self) -> int:
        """How much of a large input to parse before looking at the pipelining depth again."""
        if self._phase != BODY:
            return PARSE_SLICE_BYTES
        if self._seen & LENGTH:
            return max(self._length - self._body_bytes, 1)
        return CHUNKED_SLICE_BYTES

    def _fail(self, status: int, reason: str) -> Refused:
        self._refusal = Refused(status, reason)
        return self._refusal

    def _refuse_unless(self, fault: Refused | None) -> None:
        if fault is not None:
            self._refusal = fault
            raise fault

    # Callbacks of httptools, in their order.

    def on_url(self, url: bytes) -> None:
        """A piece of the request target; a new head begins with the first."""
        if self._phase != HEAD:
            if self._phase >= LAST:
                raise self._fail(400, "")
            self._phase = HEAD
        if self._target:
            url = self._target + url
        if len(url) > self._max_target_bytes:
            raise self._fail(414, "The request target is too long.")
        self._target = url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A complete header, or trailer when the body has begun."""
        name = name.lower()
        if value and value[-1] <= 32:
            value = value.rstrip(b" \t")
        bit = WATCHED.get(name)
        if bit is not None:
            if bit == HOST and not self._seen & HOST and self._phase == HEAD:
                self._seen |= HOST
            else:
                self._watch(name, value, bit)
        self._headers.append((name, value))

    def _watch(self, name: bytes, value: bytes, bit: int) -> None:
        if self._phase == BODY:
            raise self._fail(400, f"The header {name.decode()} cannot be a trailer.")
        if self._seen & bit & ONCE:
            raise self._fail(400, f"The header {name.decode()} is given twice.")
        self._seen |= bit
        if bit == LENGTH:
            self._length = int(value)

    def on_headers_complete(self) -> None:
        """Check the head, then hand a large body over as a stream or wait for a small one."""
        parser, seen, target = self._parser, self._seen, self._target
        if parser is None or self._phase >= LAST:
            raise self._fail(400, "")
        self._old_peer = False
        self._keep_alive = parser.should_keep_alive()
        if not self._keep_alive or seen & UNUSUAL:
            self._check_framing(parser)
        if not seen & HOST and not self._old_peer:
            raise self._fail(400, "The Host header is missing.")
        method = parser.get_method()
        if method not in METHODS:
            raise self._fail(501, "The method is not supported.")
        if target[0] != _SLASH or b"#" in target:
            self._refuse_unless(target_fault(method, target, self._headers))
        if len(self._headers) > self._max_header_count:
            raise self._fail(431, "There are too many request headers.")
        if (self._head_fed_bytes or self._head_measured) and field_bytes(
            self._headers
        ) > self._max_header_bytes:
            raise self._fail(431, "The request headers are too large.")
        self._request = Request(
            method, target, self._headers, self.peer, self.secure, b"", None, None, self.extra_info
        )
        self._phase = BODY
        self._head_fed_bytes = 0
        if seen & CODING or self._length:
            self._begin_body(self._request)

    def _check_framing(self, parser: httptools.HttpRequestParser) -> None:
        """The rare cases, kept off the path of an ordinary keep-alive request."""
        version = parser.get_http_version()
        if version not in ("1.1", "1.0"):
            raise self._fail(505, "Only HTTP/1.1 and HTTP/1.0 are spoken.")
        self._old_peer = version == "1.0"
        self._refuse_unless(framing_fault(self._headers, self._seen, old_peer=self._old_peer))
        self._continue_owed = bool(self._seen & EXPECT) and not self._old_peer
        if parser.should_upgrade() and (self._seen & CODING or self._length):
            self._body_unparsed = True
            self._keep_alive = False

    def _begin_body(self, request: Request) -> None:
        limits = self.shared.limits
        size_bytes = None if self._seen & CODING else self._length
        self._headers = []
        self._body_since_s = self.shared.now_s
        if size_bytes is not None and size_bytes > limits.max_body_bytes:
            raise self._fail(413, "The request body is too large.")
        large = size_bytes is not None and size_bytes > limits.buffer_limit_bytes
        if large or (self.shared.streams_body is not None and self.shared.streams_body(request)):
            self._become_stream(request, size_bytes)
            return
        if self.shared.buffered_bytes + self._length > limits.max_unspooled_bytes:
            raise self._fail(503, "Too many request bodies are held at the moment.")
        if self._continue_owed:
            self._expect_continue()

    def _become_stream(self, request: Request, size_bytes: int | None) -> None:
        stream = self._open_stream(request, size_bytes)
        request.stream = self._stream = stream
        chunks, self._chunks = self._chunks, []
        for chunk in chunks:
            stream.feed(chunk)
        self._accept(request)

    def on_body(self, chunk: bytes) -> None:
        """A piece of the body."""
        shared = self.shared
        self._body_since_s = shared.now_s
        if self._phase != BODY:
            raise self._fail(400, "")
        size_bytes = len(chunk)
        self._body_bytes += size_bytes
        self._head_fed_bytes = 0
        shared.buffered_bytes += size_bytes
        if self._stream is not None:
            self._stream.feed(chunk)
            return
        self._chunks.append(chunk)
        if self._body_bytes > shared.limits.buffer_limit_bytes and self._request is not None:
            self._become_stream(self._request, None)
        elif shared.buffered_bytes > shared.limits.max_unspooled_bytes:
            raise self._fail(503, "Too many request bodies are held at the moment.")

    def on_message_complete(self) -> None:
        """The request is whole: deliver it, or end its stream."""
        request, stream = self._request, self._stream
        if self._body_unparsed:
            return
        if request is None or self._phase >= LAST:
            raise self._fail(400, "")
        self._request = None
        self._phase = IDLE if self._keep_alive else LAST
        if stream is not None:
            self._stream = None
            trailers = self._headers
            self._head_fed_bytes = 1
            self._end_body()
            stream.end(trailers)
            return
        if self._chunks:
            chunks = self._chunks
            request.body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        if self._seen & (CODING | EXPECT | LENGTH):
            if self._seen & CODING:
                request.trailers = self._headers
                # Slices are large here: what follows in the same one is measured.
                self._head_fed_bytes = 1
            self._end_body()
        else:
            # _reset_head, inlined: this is the path of every small request.
            self._target = b""
            self._headers = []
            self._seen = self._length = 0
        self._accept(request)

    def _end_body(self) -> None:
        self._chunks = []
        self._body_bytes = 0
        self._continue_owed = False
        self._reset_head()


class _BodyOnly:
    """Callbacks for the body of a request that asked for an upgrade.

    httptools ends such a request at its head, so a fresh parser is given a head of ours and reads the body.
    The connection ends with that request.
    """

    def __init__(self, reader: RequestReader) -> None:
        self._reader = reader
        self._begun = False
        self.on_body = reader.on_body
        self.on_message_complete = reader.on_message_complete

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._begun:
            self._reader.on_header(name, value)

    def on_headers_complete(self) -> None:
        self._begun = True
