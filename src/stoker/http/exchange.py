"""One client connection: a request out, its response in, one at a time. It knows no pool and no time-outs."""

import asyncio
from typing import Protocol, cast

import httptools
import msgspec

from stoker.http.body import BodyStream, Headers
from stoker.http.errors import BodyTooLarge, HttpError, PeerVanished, ResponseInvalid
from stoker.http.limits import HEADER_OVERHEAD_BYTES, JOIN_BODY_BYTES


class Answer(msgspec.Struct, eq=False):
    """A response: status, headers (names lower-case) and either its whole body or a stream of it."""

    status: int
    headers: Headers
    body: bytes = b""
    stream: BodyStream | None = None


class ConnectionOwner(Protocol):
    """Who lends the connection out: the pool."""

    def exchange_over(self, connection: "ClientConnection") -> None:
        """The exchange ended, well (``reusable``) or not."""
        ...

    def connection_gone(self, connection: "ClientConnection") -> None:
        """The transport is closed."""
        ...


class ClientConnection(asyncio.Protocol):
    """The protocol of one connection to a server."""

    transport: asyncio.Transport

    def __init__(self, owner: ConnectionOwner, max_header_bytes: int) -> None:
        self._owner = owner
        self._max_header_bytes = max_header_bytes
        self._parser = httptools.HttpResponseParser(self)
        self._pending: asyncio.Future[Answer] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._write_blocked = False
        self._open = False
        self.lost = False
        self.reusable = True
        self.exchanges = 0
        self.answered_bytes = 0
        self.idle_since_s = 0.0
        self._reset(head_only=False, streaming=False, max_bytes=0)

    def _reset(self, *, head_only: bool, streaming: bool, max_bytes: int) -> None:
        self._head_only = head_only
        self._streaming = streaming
        self._max_bytes = max_bytes
        self._answer: Answer | None = None
        self._headers: Headers = []
        self._header_bytes = 0
        self._fed_bytes = 0
        self._chunks: list[bytes] = []
        self._body_bytes = 0
        self._until_eof = False
        self._sent = False
        self._violation: HttpError | None = None
        self.answered_bytes = 0

    # The caller's side.

    def begin(
        self, head: bytes, body: bytes | None, *, head_only: bool, streaming: bool, max_bytes: int
    ) -> asyncio.Future[Answer]:
        """Send a request; ``body`` None means that ``send_chunk`` and ``end_body`` follow.

        The future gives the answer: complete, or with its stream as soon as the headers are there.
        """
        self._reset(head_only=head_only, streaming=streaming, max_bytes=max_bytes)
        self._open = True
        self.exchanges += 1
        pending: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._pending = pending
        if body is None:
            self.transport.write(head)
            return pending
        self._sent = True
        if len(body) <= JOIN_BODY_BYTES:
            self.transport.write(head + body)
        else:
            self.transport.writelines((head, body))
        return pending

    async def send_chunk(self, chunk: bytes) -> None:
        """Send a piece of a chunked body, waiting while the server is slow."""
        if self.lost or not self._open:
            raise PeerVanished("the exchange ended before the request body did")
        if chunk:
            self.transport.writelines((b"%x\r\n" % len(chunk), chunk, b"\r\n"))
        if self._write_blocked:
            self._writable = asyncio.get_running_loop().create_future()
            await self._writable

    def end_body(self) -> None:
        """The chunked body is complete."""
        if self._open and not self.lost:
            self._sent = True
            self.transport.write(b"0\r\n\r\n")

    def abort(self) -> None:
        """Give the exchange up; the connection cannot be used again."""
        self.reusable = False
        self.transport.abort()
        self._fail(PeerVanished("the exchange was given up"))

    @property
    def usable(self) -> bool:
        """Whether another exchange may begin."""
        return self.reusable and not self.lost and not self._open and not self.transport.is_closing()

    # asyncio.Protocol.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Input from the server."""
        if not self._open:
            self._unasked()
            return
        self.answered_bytes += len(data)
        if self._answer is None:
            self._fed_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._invalid(self._violation or ResponseInvalid(f"the answer is not HTTP/1.1: {error}"))
            return
        if self._answer is None and self._open and self._fed_bytes > 2 * self._max_header_bytes + 262144:
            self._invalid(ResponseInvalid("the response headers are too large"))

    def _unasked(self) -> None:
        # Bytes that answer nothing would be taken for the answer to the next request.
        self.reusable = False
        self.transport.abort()

    def _invalid(self, error: HttpError) -> None:
        self.reusable = False
        self.transport.abort()
        self._fail(error)

    def eof_received(self) -> bool | None:
        """The server is done; the transport closes."""
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        """Complete a body that ends with its connection; anything else is a failure."""
        self.lost = True
        self._wake_writer()
        if self._open:
            if self._until_eof and exc is None:
                self._complete()
            else:
                self._fail(PeerVanished("the server closed the connection before its answer was complete"))
        self._owner.connection_gone(self)

    def pause_writing(self) -> None:
        """The server is slow."""
        self._write_blocked = True

    def resume_writing(self) -> None:
        """The server caught up."""
        self._write_blocked = False
        self._wake_writer()

    def _wake_writer(self) -> None:
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)

    # Callbacks of httptools.

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer after the body."""
        self._header_bytes += len(name) + len(value) + HEADER_OVERHEAD_BYTES
        if self._header_bytes > self._max_header_bytes:
            raise self._violate(ResponseInvalid("the response headers are too large"))
        if not self._open:
            raise self._violate(ResponseInvalid("more than one answer came"))
        self._headers.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        """Final headers make the answer; interim ones (1xx) are dropped."""
        if not self._open:
            raise self._violate(ResponseInvalid("more than one answer came"))
        status = self._parser.get_status_code()
        headers, self._headers = self._headers, []
        if status < 200:
            if status == 101:
                raise self._violate(ResponseInvalid("the server switched protocols unasked"))
            return
        names = {name for name, _ in headers}
        self._until_eof = not names & {b"content-length", b"transfer-encoding"}
        if not self._parser.should_keep_alive():
            self.reusable = False
        self._answer = answer = Answer(status, headers)
        if self._streaming:
            answer.stream = BodyStream(self, self._max_bytes, _declared_bytes(headers))
            self._deliver(answer)
        if self._head_only:
            # httptools cannot be told that no body follows; a fresh parser expects the next head.
            self._parser = httptools.HttpResponseParser(self)
            self._complete()

    def on_body(self, chunk: bytes) -> None:
        """A piece of the body."""
        answer = self._answer
        if answer is None or not self._open:
            self.reusable = False
            return
        self._body_bytes += len(chunk)
        if answer.stream is not None:
            answer.stream.feed(chunk)
        elif self._body_bytes > self._max_bytes:
            raise self._violate(BodyTooLarge(self._max_bytes))
        else:
            self._chunks.append(chunk)

    def on_message_complete(self) -> None:
        """The answer is whole (this also comes behind a 1xx, where there is none yet)."""
        if self._answer is not None and self._open:
            self._complete()

    def _violate(self, error: HttpError) -> HttpError:
        self._violation = error
        return error

    # Ends.

    def _complete(self) -> None:
        answer = self._answer
        if answer is None:
            return
        self._open = False
        if not self._sent:
            # The server answered without reading everything; what is left of the body must not follow.
            self.reusable = False
        if answer.stream is not None:
            answer.stream.end(self._headers)
        else:
            answer.body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
            self._deliver(answer)
        self._owner.exchange_over(self)

    def _deliver(self, answer: Answer) -> None:
        pending, self._pending = self._pending, None
        if pending is not None and not pending.done():
            pending.set_result(answer)

    def _fail(self, error: HttpError) -> None:
        if not self._open:
            return
        self._open = False
        self.reusable = False
        self._wake_writer()
        if self._answer is not None and self._answer.stream is not None:
            self._answer.stream.fail(error)
        pending, self._pending = self._pending, None
        if pending is not None and not pending.done():
            pending.set_exception(error)
        self._owner.exchange_over(self)

    # BodySource.

    def body_wanted(self) -> None:
        """Nothing to do: the server sends unasked."""

    def body_full(self) -> None:
        """Stop reading until the caller took something."""
        if not self.lost:
            self.transport.pause_reading()

    def body_hungry(self) -> None:
        """Read on."""
        if not self.lost:
            self.transport.resume_reading()

    def body_taken(self, size_bytes: int) -> None:
        """A client has no common budget."""


def _declared_bytes(headers: Headers) -> int | None:
    for name, value in headers:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return None
