"""Frames on a stream: a fixed head, an operation's name, a message in msgpack. Knows nothing of calls."""

import asyncio
import struct
from collections import deque
from typing import Any, Final, Protocol, cast

import msgspec

from stoker.core.errors import StokerError

FRAME_MAX_BYTES: Final = 80 * 1024 * 1024
"""More than any request or answer of the API, code archives included (50 MB)."""
RECEIVE_BYTES: Final = 256 * 1024
"""Frames up to this size are read together; a larger one is read into a buffer of its own."""
WRITE_HIGH_WATER_BYTES: Final = 4 * 1024 * 1024
"""Senders wait while more than this is not yet taken by the other side."""

CALL, ANSWER, FAILURE, CANCEL = 1, 2, 3, 4
_KINDS: Final = frozenset((CALL, ANSWER, FAILURE, CANCEL))

_HEAD: Final = struct.Struct("<IIBB")
"""Bytes that follow, the call's number, the kind, the length of the name."""
_encode_into = msgspec.msgpack.Encoder().encode_into


class FrameError(StokerError):
    """The other side does not keep to the protocol, or a message is too large for it."""


class FrameReceiver(Protocol):
    """Who is told of what a connection brings."""

    def frame_received(self, kind: int, call: int, name: bytes, message: memoryview) -> None:
        """One frame; ``message`` is valid during the call only. Raises FrameError to end the connection."""
        ...

    def connection_ended(self, reason: Exception) -> None:
        """The connection is gone."""
        ...


class FrameConnection(asyncio.BufferedProtocol):
    """Both directions of one connection. Writes of one turn of the loop leave together."""

    def __init__(self, receiver: FrameReceiver) -> None:
        self._receiver = receiver
        self._transport: asyncio.Transport | None = None
        self._view = memoryview(bytearray(RECEIVE_BYTES))
        self._filled = 0
        self._large: memoryview | None = None
        self._reading = True
        self._full = False
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._problem: Exception | None = None

    # Sending.

    @property
    def full(self) -> bool:
        """The other side is slow; wait before sending more."""
        return self._full

    def send(self, kind: int, call: int, name: bytes = b"", message: Any = None) -> None:
        """Queue one frame; nothing happens once the connection is gone.

        Raises:
            FrameError: the message is too large.
            TypeError: it cannot be encoded.
        """
        if self._transport is None or self._transport.is_closing():
            return
        frame = bytearray(_HEAD.size) + name
        _encode_into(message, frame, len(frame))
        size_bytes = len(frame) - _HEAD.size
        if size_bytes > FRAME_MAX_BYTES:
            raise FrameError(f"a message of {size_bytes} bytes is too large (limit {FRAME_MAX_BYTES})")
        _HEAD.pack_into(frame, 0, size_bytes, call, kind, len(name))
        self._transport.write(frame)

    async def wait_writable(self) -> None:
        """Return once the other side has taken enough, or is gone."""
        while self._full:
            waiting = asyncio.get_running_loop().create_future()
            self._waiting.append(waiting)
            await waiting

    # Receiving.

    def pause(self) -> None:
        """Read no more for now."""
        if self._reading and self._transport is not None:
            self._reading = False
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if not self._reading and self._transport is not None and not self._transport.is_closing():
            self._reading = True
            self._transport.resume_reading()

    def abort(self) -> None:
        """Cut the connection."""
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """Send what is queued, then end."""
        if self._transport is not None:
            self._transport.close()

    # asyncio.BufferedProtocol.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=WRITE_HIGH_WATER_BYTES)

    def connection_lost(self, exc: Exception | None) -> None:
        self.resume_writing()
        self._receiver.connection_ended(self._problem or exc or EOFError("the other side closed"))

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_result(None)

    def get_buffer(self, sizehint: int) -> memoryview:
        buffer = self._view if self._large is None else self._large
        return buffer[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        try:
            if self._large is None:
                self._take_frames()
            elif self._filled == len(self._large):
                large, self._large, self._filled = self._large, None, 0
                self._dispatch(large)
        except FrameError as problem:
            self._problem = problem
            self.abort()

    def _take_frames(self) -> None:
        view, filled, start = self._view, self._filled, 0
        while filled - start >= _HEAD.size:
            end = start + _HEAD.size + self._checked_size(start)
            if end > filled:
                if end - start > RECEIVE_BYTES:
                    self._begin_large(start, end - start)
                    return
                break
            self._dispatch(view[start:end])
            start = end
        if start:
            view[: filled - start] = view[start:filled]
            self._filled = filled - start

    def _begin_large(self, start: int, size_bytes: int) -> None:
        """Let the rest of a large frame arrive where it will be read from."""
        here = self._filled - start
        self._large = memoryview(bytearray(size_bytes))
        self._large[:here] = self._view[start : self._filled]
        self._filled = here

    def _checked_size(self, start: int) -> int:
        size_bytes, _, kind, name_length = _HEAD.unpack_from(self._view, start)
        if size_bytes > FRAME_MAX_BYTES or name_length > size_bytes or kind not in _KINDS:
            raise FrameError("a frame's head makes no sense")
        return size_bytes

    def _dispatch(self, frame: memoryview) -> None:
        _, call, kind, name_length = _HEAD.unpack_from(frame)
        message = _HEAD.size + name_length
        self._receiver.frame_received(kind, call, bytes(frame[_HEAD.size : message]), frame[message:])
