"""A body that arrives in pieces, with flow control. It knows its source only through ``BodySource``."""

import asyncio
from collections import deque
from typing import Protocol

from stoker.http.errors import BodyBroken, BodyTooLarge, HttpError
from stoker.http.limits import STREAM_HIGH_WATER_BYTES, STREAM_LOW_WATER_BYTES

Headers = list[tuple[bytes, bytes]]


class BodySource(Protocol):
    """What feeds a stream: the connection that reads the body."""

    def body_wanted(self) -> None:
        """The consumer reads for the first time (the moment for 100-continue)."""
        ...

    def body_full(self) -> None:
        """Enough is buffered; pause reading."""
        ...

    def body_hungry(self) -> None:
        """Little is buffered; resume reading."""
        ...

    def body_taken(self, size_bytes: int) -> None:
        """The consumer took ``size_bytes``; they no longer count as buffered."""
        ...


class BodyStream:
    """A request or response body read chunk by chunk, by one consumer.

    ``size_bytes`` is the declared length, None when chunked. ``trailers`` is filled when the body has ended.
    Reading raises BodyTooLarge beyond ``max_bytes``, PeerVanished when the peer is gone before the end and
    BodyBroken when the framing is wrong or the peer idles.
    """

    __slots__ = (
        "_buffered_bytes",
        "_chunks",
        "_ended",
        "_error",
        "_full",
        "_max_bytes",
        "_received_bytes",
        "_source",
        "_started",
        "_waiter",
        "size_bytes",
        "trailers",
    )

    def __init__(self, source: BodySource, max_bytes: int, size_bytes: int | None = None) -> None:
        self._source = source
        self._max_bytes = max_bytes
        self.size_bytes = size_bytes
        self.trailers: Headers = []
        self._chunks: deque[bytes] = deque()
        self._buffered_bytes = 0
        self._received_bytes = 0
        self._started = False
        self._full = False
        self._ended = False
        self._error: HttpError | None = None
        self._waiter: asyncio.Future[None] | None = None

    # The source's side.

    def feed(self, chunk: bytes) -> None:
        """Add what the peer sent. After an error or beyond ``max_bytes`` it is dropped."""
        if self._error is not None:
            self._source.body_taken(len(chunk))
            return
        self._received_bytes += len(chunk)
        if self._received_bytes > self._max_bytes:
            self._source.body_taken(len(chunk))
            self.fail(BodyTooLarge(self._max_bytes))
            return
        self._chunks.append(chunk)
        self._buffered_bytes += len(chunk)
        if self._buffered_bytes >= STREAM_HIGH_WATER_BYTES and not self._full:
            self._full = True
            self._source.body_full()
        self._wake()

    def end(self, trailers: Headers | None = None) -> None:
        """The body is complete."""
        self._ended = True
        if trailers:
            self.trailers = trailers
        self._wake()

    def fail(self, error: HttpError) -> None:
        """The body cannot be completed; the consumer gets ``error`` after what is buffered."""
        if not self._ended and self._error is None:
            self._error = error
            self._wake()

    def discard(self) -> None:
        """Drop what is buffered; a consumer that comes back for it gets BodyBroken, never a short body."""
        if self._chunks:
            self._source.body_taken(self._buffered_bytes)
            self._chunks.clear()
            self._buffered_bytes = 0
            self._error = self._error or BodyBroken("the exchange ended before the body was read")
            self._wake()

    @property
    def ended(self) -> bool:
        """Whether the last byte has arrived (it may still be unread)."""
        return self._ended

    @property
    def buffered_bytes(self) -> int:
        """How much waits for the consumer."""
        return self._buffered_bytes

    # The consumer's side.

    async def read(self, limit_bytes: int) -> bytes:
        """The whole body, at most ``limit_bytes``; BodyTooLarge beyond, at once if so declared."""
        if self.size_bytes is not None and self.size_bytes > limit_bytes:
            raise BodyTooLarge(limit_bytes)
        chunks: list[bytes] = []
        total_bytes = 0
        async for chunk in self:
            total_bytes += len(chunk)
            if total_bytes > limit_bytes:
                raise BodyTooLarge(limit_bytes)
            chunks.append(chunk)
        return b"".join(chunks)

    def __aiter__(self) -> "BodyStream":
        return self

    async def __anext__(self) -> bytes:
        if not self._started:
            self._started = True
            self._source.body_wanted()
        while not self._chunks:
            if self._error is not None:
                # A copy: the kept one would hold this frame, and with it the body, in a cycle.
                raise self._error.copy()
            if self._ended:
                raise StopAsyncIteration
            await self._wait()
        return self._take()

    def _take(self) -> bytes:
        chunk = self._chunks.popleft()
        self._buffered_bytes -= len(chunk)
        self._source.body_taken(len(chunk))
        if self._full and self._buffered_bytes <= STREAM_LOW_WATER_BYTES:
            self._full = False
            self._source.body_hungry()
        return chunk

    async def _wait(self) -> None:
        if self._waiter is not None:
            raise RuntimeError("a body stream has one consumer")
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
