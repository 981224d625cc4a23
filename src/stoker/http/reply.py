"""The server's side of ``messages.Reply``: a response's states and its framing on one connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import msgspec

from stoker.http.body import BodyStream, Headers
from stoker.http.errors import InvalidHeader, PeerVanished, ReplyMisuse
from stoker.http.limits import JOIN_BODY_BYTES
from stoker.http.state import CLOSE
from stoker.http.wire import Head, header_lines, length_digits, name_kind, plain_block, serialise_head

if TYPE_CHECKING:
    from stoker.http.connection import ServerConnection

NEW: Final = 0
STREAMING: Final = 1
DONE: Final = 2
GONE: Final = 3

BODILESS = frozenset((204, 304))


class ServerReply(msgspec.Struct, eq=False):
    """One response. ``tail`` says how its head ends; ``held_bytes`` is its request's share of the budget."""

    connection: ServerConnection
    tail: int
    head_only: bool
    old_peer: bool
    stream: BodyStream | None = None
    held_bytes: int = 0
    state: int = NEW
    chunked: bool = False
    left_bytes: int | None = None
    callbacks: list[Callable[[], object]] | None = None

    @property
    def closed(self) -> bool:
        """The reply is complete, or its connection is gone."""
        return self.state >= DONE

    @property
    def started(self) -> bool:
        """Something of the answer is on its way."""
        return self.state != NEW

    def send(self, status: int, headers: Headers, body: bytes = b"") -> None:
        """See ``Reply.send``."""
        if self.state != NEW:
            self._refuse_second()
            return
        block = plain_block(status, headers)
        if block is not None:
            self.send_raw(block + b"content-length: ", body)
            return
        head = serialise_head(status, headers)
        ending = self._ending(head)
        if status in BODILESS:
            if body:
                raise ReplyMisuse(f"a {status} response has no body")
            data = head.block + ending[2:]
        else:
            size_bytes = len(body)
            if head.length is not None and head.length != size_bytes:
                if not self.head_only:
                    raise ReplyMisuse("content-length does not match the body")
                size_bytes = head.length
            data = head.block + b"content-length: " + length_digits(size_bytes) + ending
        self._send_whole(data, body)

    def send_raw(self, prefix: bytes, body: bytes) -> None:
        """See ``Reply.send_raw``."""
        if self.state != NEW:
            self._refuse_second()
            return
        if self.stream is not None and not self.stream.ended:
            self.tail = CLOSE
        tail = self.connection.shared.tails[self.tail]
        self._send_whole(prefix + length_digits(len(body)) + tail, body)

    def _send_whole(self, head: bytes, body: bytes) -> None:
        self.state = DONE
        connection = self.connection
        if self.head_only or not body:
            connection.transport.write(head)
        elif len(body) <= JOIN_BODY_BYTES:
            connection.transport.write(head + body)
        else:
            connection.transport.writelines((head, body))
        connection.reply_finished(self)

    def start(self, status: int, headers: Headers) -> None:
        """See ``Reply.start``."""
        if self.state != NEW:
            self._refuse_second()
            return
        head = serialise_head(status, headers)
        framing = b""
        if status not in BODILESS:
            if head.length is not None:
                self.left_bytes = head.length
                framing = b"content-length: " + length_digits(head.length) + b"\r\n"
            elif self.old_peer:
                # HTTP/1.0 knows no chunks: the end of the connection is the end of the body.
                self.tail = CLOSE
            else:
                self.chunked = True
                framing = b"transfer-encoding: chunked\r\n"
        else:
            self.left_bytes = 0
        self.state = STREAMING
        self.connection.transport.write(head.block + framing + self._ending(head, streaming=True)[2:])

    def _ending(self, head: Head, *, streaming: bool = False) -> bytes:
        if head.close or (not streaming and self.stream is not None and not self.stream.ended):
            self.tail = CLOSE
        shared = self.connection.shared
        return (shared.dateless_tails if head.dated else shared.tails)[self.tail]

    async def write(self, chunk: bytes) -> None:
        """See ``Reply.write``."""
        if self.state == GONE:
            raise PeerVanished("the client is gone")
        if self.state != STREAMING:
            raise ReplyMisuse("write needs a started, unfinished reply")
        if not chunk:
            return
        if self.left_bytes is not None:
            self._count_down(len(chunk))
        transport = self.connection.transport
        if self.head_only:
            return
        if self.chunked:
            transport.writelines((b"%x\r\n" % len(chunk), chunk, b"\r\n"))
        else:
            transport.write(chunk)
        if self.connection.write_blocked:
            await self.connection.wait_writable()
            if self.connection.lost:
                raise PeerVanished("the client is gone")

    def _count_down(self, size_bytes: int) -> None:
        left_bytes = (self.left_bytes or 0) - size_bytes
        if left_bytes < 0:
            raise ReplyMisuse("more is written than content-length promised")
        self.left_bytes = left_bytes

    def finish(self, trailers: Headers | None = None) -> None:
        """See ``Reply.finish``."""
        if self.state == GONE:
            return
        if self.state != STREAMING:
            raise ReplyMisuse("finish needs a started, unfinished reply")
        if trailers and not self.chunked:
            raise ReplyMisuse("trailers need chunked framing")
        if self.left_bytes and not self.head_only:
            self.abort()
            raise ReplyMisuse("less was written than content-length promised")
        ending = b"0\r\n" + _trailer_lines(trailers or []) + b"\r\n"
        self.state = DONE
        if self.chunked and not self.head_only:
            self.connection.transport.write(ending)
        self.connection.reply_finished(self)

    def abort(self) -> None:
        """See ``Reply.abort``."""
        if self.state < DONE:
            self.state = GONE
            self.connection.transport.abort()

    def on_disconnect(self, callback: Callable[[], object]) -> None:
        """See ``Reply.on_disconnect``."""
        if self.state == GONE:
            callback()
        elif self.state != DONE:
            if self.callbacks is None:
                self.callbacks = []
            self.callbacks.append(callback)

    def _refuse_second(self) -> None:
        if self.state != GONE:
            raise ReplyMisuse("a request is answered once")


def _trailer_lines(trailers: Headers) -> bytes:
    for name, _ in trailers:
        if name_kind(name):
            raise InvalidHeader(f"{name.decode()} cannot be a trailer")
    return header_lines(trailers)
