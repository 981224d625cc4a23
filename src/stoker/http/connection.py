"""One server connection: requests in, replies out in order, deadlines, and how it ends."""

import asyncio
from collections import deque
from typing import Final, cast

from stoker.http.body import BodyStream
from stoker.http.errors import BodyBroken, PeerVanished
from stoker.http.framing import Refused
from stoker.http.limits import PARSE_SLICE_BYTES
from stoker.http.messages import Request
from stoker.http.peers import peer_name
from stoker.http.reader import BODY, CLOSED, HEAD, LAST, LINGER, RequestReader
from stoker.http.reply import DONE, GONE, NEW, ServerReply
from stoker.http.state import CLOSE, KEEP, KEEP_1_0, ServerState
from stoker.http.wire import CONTINUE

# Why reading is paused.
_PIPELINE: Final = 1
_STREAM: Final = 2

_Pending = tuple[Request | Refused, ServerReply]


class ServerConnection(RequestReader):
    """The protocol of one accepted connection. Only the event loop's thread touches it."""

    __slots__ = (
        "_advancing",
        "_backlog",
        "_current",
        "_paused",
        "_queue",
        "_served",
        "_unfed",
        "_writable",
        "transport",
        "unsent_bytes",
        "unsent_since_s",
        "write_blocked",
    )

    transport: asyncio.Transport

    def __init__(self, shared: ServerState) -> None:
        super().__init__(shared)
        self.peer = ""
        self.secure = False
        self.write_blocked = False
        self._current: ServerReply | None = None
        self._queue: deque[_Pending] = deque()
        self._paused = 0
        # Anything that must be looked at when a reply ends: queue, pause, blocked writes, an owed 100.
        self._backlog = False
        self._advancing = False
        self._unfed: memoryview | None = None
        self._writable: asyncio.Future[None] | None = None
        self._served = False
        self.unsent_bytes = 0
        self.unsent_since_s = 0.0

    @property
    def busy(self) -> bool:
        """A request is being answered or read."""
        return self._current is not None or bool(self._queue) or self._phase in (HEAD, BODY)

    @property
    def lost(self) -> bool:
        """The transport is gone."""
        return self._phase == CLOSED

    # asyncio.Protocol.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection, or turn it away when there are too many."""
        self.transport = cast(asyncio.Transport, transport)
        self.extra_info = transport.get_extra_info
        self.peer = peer_name(transport)
        self.secure = transport.get_extra_info("sslcontext") is not None
        shared = self.shared
        crowded = len(shared.connections) >= shared.limits.max_connections
        shared.connections.add(self)
        if crowded:
            # Not lingering: a flood must not be able to collect connections.
            self._refuse(Refused(503, "Too many connections."), linger=False)
        elif shared.closing:
            self._close()

    def data_received(self, data: bytes) -> None:
        """Input from the transport."""
        if self._unfed is None and len(data) <= PARSE_SLICE_BYTES and self._phase < LAST and not self._paused:
            self._feed(data)
        else:
            self._feed_large(data)

    def eof_received(self) -> bool | None:
        """A peer that ends its side is gone: functions must not run on for nobody."""
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell everybody who waits for this peer."""
        self._phase = CLOSED
        self._parser = None
        self._unfed = None
        shared = self.shared
        shared.connections.discard(self)
        if shared.closing and not shared.connections:
            shared.emptied.set()
        self._release_assembly()
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.fail(PeerVanished("the client is gone"))
        self._wake_writer()
        current, self._current = self._current, None
        if current is not None:
            self._lose(current)
        while self._queue:
            self._lose(self._queue.popleft()[1])

    def _lose(self, reply: ServerReply) -> None:
        reply.state = GONE
        self.shared.buffered_bytes -= reply.held_bytes
        reply.held_bytes = 0
        callbacks, reply.callbacks = reply.callbacks, None
        for callback in callbacks or ():
            try:
                callback()
            except Exception as error:
                self._report("an on_disconnect callback failed", error)

    def pause_writing(self) -> None:
        """The peer is slow: no further request is begun and ``Reply.write`` waits."""
        self.write_blocked = True
        self._backlog = True

    def resume_writing(self) -> None:
        """The peer caught up."""
        self.write_blocked = False
        self._wake_writer()
        self._advance()

    async def wait_writable(self) -> None:
        """Return when the transport takes more, or the peer is gone."""
        if self._phase == CLOSED or not self.write_blocked:
            return
        if self._writable is None:
            self._writable = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._writable)

    def _wake_writer(self) -> None:
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)

    # Large inputs, parsed in slices so that pipelining stays bounded.

    def _feed_large(self, data: bytes) -> None:
        if self._phase >= LAST:
            self._ignored_input = True
            return
        if self._unfed is None:
            self._unfed = memoryview(data)
        else:
            self._unfed = memoryview(bytes(self._unfed) + data)
        self._pump()

    def _pump(self) -> None:
        while self._unfed is not None and not self._paused & _PIPELINE:
            unfed = self._unfed
            if self._phase >= LAST:
                self._unfed = None
                self._ignored_input = True
                return
            size_bytes = self._slice_bytes()
            self._unfed = unfed[size_bytes:] if size_bytes < len(unfed) else None
            self._feed(unfed[:size_bytes])

    # RequestReader's hooks.

    def _accept(self, request: Request) -> None:
        tail = KEEP_1_0 if self._old_peer else KEEP
        if not self._keep_alive or self.shared.closing:
            tail = CLOSE
        held_bytes = len(request.body)
        reply = ServerReply(self, tail, request.method == b"HEAD", self._old_peer, request.stream, held_bytes)
        if self._current is None and not (self._backlog and (self._queue or self.write_blocked)):
            self._dispatch(request, reply)
        else:
            self._enqueue(request, reply)

    def _dispatch(self, request: Request, reply: ServerReply) -> None:
        self._current = reply
        self._served = True
        try:
            self.shared.handler(request, reply)
        except Exception as error:
            self._report("an HTTP handler failed", error)
            if reply.state == NEW:
                self._answer_refusal(reply, Refused(500, "The request could not be handled."))
            elif reply.state != DONE:
                reply.abort()

    def _enqueue(self, request: Request | Refused, reply: ServerReply) -> None:
        self._queue.append((request, reply))
        self._backlog = True
        if len(self._queue) >= self.shared.limits.pipelining_depth:
            self._pause(_PIPELINE)

    def _refuse(self, refused: Refused, *, linger: bool = True) -> None:
        """Answer by ourselves, in order, and end the connection."""
        self._phase = LAST
        self._ignored_input = linger
        self._unfed = None
        self._release_assembly()
        head_only = self._request is not None and self._request.method == b"HEAD"
        self._request = None
        reply = ServerReply(self, CLOSE, head_only, self._old_peer)
        if self._current is None and not self._queue:
            self._current = reply
            self._answer_refusal(reply, refused)
        else:
            self._enqueue(refused, reply)

    def _answer_refusal(self, reply: ServerReply, refused: Refused) -> None:
        reply.tail = CLOSE
        try:
            headers, body = self.shared.error_body(refused.status, refused.reason)
            reply.send(refused.status, headers, body)
        except Exception as error:
            self._report("an error body failed", error)
            reply.abort()

    def _release_assembly(self) -> None:
        if self._chunks:
            self.shared.buffered_bytes -= self._body_bytes
            self._chunks = []
            self._body_bytes = 0

    def _body_failed(self, reason: str) -> None:
        """The body of a request that the handler already has is broken: it answers, then we close."""
        stream, self._stream = self._stream, None
        self._phase = LAST
        self._ignored_input = True
        self._unfed = None
        if stream is not None:
            stream.fail(BodyBroken(reason))

    def _open_stream(self, request: Request, size_bytes: int | None) -> BodyStream:
        return BodyStream(self, self.shared.limits.max_body_bytes, size_bytes)

    def _expect_continue(self) -> None:
        if self._current is None and not self._queue:
            self._continue_owed = False
            self.transport.write(CONTINUE)
        else:
            self._backlog = True

    def _callback_failed(self, error: BaseException) -> None:
        self._report("reading an HTTP request failed", error)

    def _report(self, message: str, error: BaseException) -> None:
        self.shared.report(message, error)

    # BodySource.

    def body_wanted(self) -> None:
        """The handler reads its stream for the first time."""
        if self._continue_owed and self._phase == BODY:
            self._continue_owed = False
            self._body_since_s = self.shared.now_s
            current = self._current
            if current is not None and current.state == NEW:
                self.transport.write(CONTINUE)

    def body_full(self) -> None:
        """Stop reading until the handler took something."""
        self._pause(_STREAM)

    def body_hungry(self) -> None:
        """Read on."""
        self._body_since_s = self.shared.now_s
        self._unpause(_STREAM)

    def body_taken(self, size_bytes: int) -> None:
        """Give the bytes back to the server's budget."""
        self.shared.buffered_bytes -= size_bytes

    def _pause(self, why: int) -> None:
        if not self._paused and self._phase != CLOSED:
            self.transport.pause_reading()
        self._paused |= why
        self._backlog = True

    def _unpause(self, why: int) -> None:
        if not self._paused & why:
            return
        self._paused &= ~why
        if self._unfed is not None and not self._feeding:
            self._pump()
        if not self._paused and self._phase != CLOSED:
            self.transport.resume_reading()

    # Replies.

    def reply_finished(self, reply: ServerReply) -> None:
        """The reply on top is complete: begin the next, or end the connection."""
        self._current = None
        if reply.held_bytes:
            self.shared.buffered_bytes -= reply.held_bytes
        stream = reply.stream
        if reply.tail == CLOSE or (stream is not None and not stream.ended):
            self._end(stream)
            return
        self._since_s = self.shared.now_s
        if stream is not None:
            stream.discard()
        if self._backlog:
            self._advance()

    def _advance(self) -> None:
        if self._advancing:
            return
        self._advancing = True
        while self._queue and self._current is None and not self.write_blocked and self._phase < LINGER:
            request, reply = self._queue.popleft()
            if self.shared.closing:
                reply.tail = CLOSE
            if isinstance(request, Refused):
                self._current = reply
                self._answer_refusal(reply, request)
            else:
                self._dispatch(request, reply)
        self._advancing = False
        if self._continue_owed and self._stream is None and self._phase == BODY:
            self._expect_continue()
        if len(self._queue) < self.shared.limits.pipelining_depth:
            self._unpause(_PIPELINE)
        self._backlog = bool(self._queue or self._paused or self.write_blocked or self._continue_owed)

    # Ends.

    def _end(self, stream: BodyStream | None) -> None:
        """After the last reply: close at once when all input was read, linger when more may come."""
        self._drop_queue()
        unread = self._ignored_input or self._unfed is not None or self._phase in (HEAD, BODY)
        self._unfed = None
        if stream is not None:
            stream.fail(PeerVanished("the request was answered before its body was read"))
            stream.discard()
        self._stream = None
        self._release_assembly()
        if not unread:
            self._close()
            return
        # Closing with input unread would reset the connection and could destroy the answer on its way.
        self._phase = LINGER
        self._since_s = self.shared.now_s
        if self._paused:
            self.transport.resume_reading()
        self._paused = 0
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def _drop_queue(self) -> None:
        while self._queue:
            self._lose(self._queue.popleft()[1])

    def _close(self) -> None:
        self._phase = LINGER
        self._since_s = self.shared.now_s
        self.transport.close()

    def shut_down(self) -> None:
        """Graceful end: an idle connection closes now, a busy one after the reply on top."""
        if not self.busy:
            if self._phase < LINGER:
                self._close()
        elif self._current is not None:
            self._current.tail = CLOSE
