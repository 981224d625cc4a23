"""One connection of a runtime: HTTP/1.1 requests cut out of bytes with httptools, answers written in order.

It knows framing and its bounds; what a request means is decided by its ``Requests``. A dedicated protocol,
because one sandbox sends one request at a time and its warm path is the warm path of every invocation.
"""

import asyncio
from typing import Protocol, cast

import httptools

from stoker.runtimeapi.answers import ACCEPTED
from stoker.runtimeapi.limits import MAX_DISCARDED_BYTES, MAX_HEAD_BYTES, MAX_PIPELINED
from stoker.runtimeapi.records import MAX_RESPONSE_BYTES


class Requests(Protocol):
    """Whoever answers the requests of a connection."""

    def opened(self, connection: "Connection") -> bool:
        """A new connection; False refuses it."""
        ...

    def request(self, connection: "Connection", request: "ParsedRequest") -> bytes | None:
        """Answer one request, or None when the answer comes later through ``Connection.send``."""
        ...

    def closed(self, connection: "Connection") -> None:
        """The connection is gone."""
        ...


class ParsedRequest:
    """One complete request. ``headers`` has lower-case names, trailers included; of equal names the last."""

    __slots__ = ("body", "body_bytes", "headers", "method", "path")

    def __init__(self) -> None:
        self.method = b""
        self.path = b""
        self.headers: dict[bytes, bytes] = {}
        self.body = b""
        self.body_bytes = 0
        """The true length; ``body`` is empty when this is over ``MAX_RESPONSE_BYTES``."""

    @property
    def too_large(self) -> bool:
        """Whether the body was over the limit and thrown away."""
        return self.body_bytes > MAX_RESPONSE_BYTES


class Connection(asyncio.Protocol):
    """Callbacks of the transport and of the parser. Any breach of a bound closes it."""

    __slots__ = (
        "_chunks",
        "_ending",
        "_head_bytes",
        "_held",
        "_parser",
        "_paused",
        "_request",
        "_requests",
        "_transport",
        "awaiting",
    )

    def __init__(self, requests: Requests) -> None:
        self._requests = requests
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._request = ParsedRequest()
        self._chunks: list[bytes] = []
        self._head_bytes = 0
        self._held: list[bytes] = []
        self._paused = False
        self._ending = False
        self.awaiting = False
        """An answer is owed: the runtime waits in ``/next``."""

    # --- transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if not self._requests.opened(self):
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._requests.closed(self)

    def data_received(self, data: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        # A request after one that still waits, or from a peer that does not read, is nothing a runtime does.
        self._head_bytes += len(data)
        if self.awaiting or self._paused or not self._feed(data):
            self.close()
            return
        # "Accepted" stays held in a packet that ends in a waiting /next: a runtime that sends response and
        # the next /next together is woken once, by the next event. A refusal is never held.
        if not self.awaiting:
            self._flush()

    def _feed(self, data: bytes) -> bool:
        """Parse; False for what is no HTTP or has too long a head."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            raise (error.__context__ or error) from None  # a defect of ours, not of the peer
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            return False
        return self._head_bytes <= MAX_HEAD_BYTES

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False

    @property
    def is_open(self) -> bool:
        """Whether an answer could still be written."""
        return self._transport is not None and not self._transport.is_closing()

    def send(self, answer: bytes) -> None:
        """Write the answer that was owed, and whatever was held back for it."""
        self.awaiting = False
        self._held.append(answer)
        self._flush()

    def close(self) -> None:
        """Drop the connection and what was not written yet."""
        if self._transport is not None:
            self._transport.abort()

    def _flush(self) -> None:
        if self._held and self._transport is not None and not self._transport.is_closing():
            self._transport.write(self._held[0] if len(self._held) == 1 else b"".join(self._held))
            self._held.clear()
            if self._ending:
                self._transport.close()

    # --- parser

    def on_message_begin(self) -> None:
        if self.awaiting or self._paused:
            self.close()
        self._request = ParsedRequest()
        self._chunks.clear()

    def on_url(self, url: bytes) -> None:
        self._request.path += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._request.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        self._head_bytes = 0
        self._request.method = self._parser.get_method()
        if (
            self._request.headers.get(b"expect", b"").lower() == b"100-continue"
            and self._transport is not None
        ):
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._head_bytes = 0
        request = self._request
        request.body_bytes += len(body)
        if request.body_bytes <= MAX_RESPONSE_BYTES:
            self._chunks.append(body)
        elif request.body_bytes > MAX_DISCARDED_BYTES:
            self.close()
        else:
            self._chunks.clear()

    def on_message_complete(self) -> None:
        self._head_bytes = 0
        request = self._request
        request.body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        if not self.is_open:
            return
        # A client that says "Connection: close", or speaks HTTP/1.0, may read up to the connection's end.
        self._ending = not self._parser.should_keep_alive()
        answer = self._requests.request(self, request)
        if answer is None:
            return
        if len(self._held) >= MAX_PIPELINED:
            self.close()
            return
        self._held.append(answer)
        if answer is not ACCEPTED:
            self._flush()
