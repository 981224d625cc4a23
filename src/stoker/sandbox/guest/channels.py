"""The host's end of a guest's virtio-serial port: turns its channels into connections to local sockets.

It reads hostile bytes: a guest that breaks a rule is ended, and costs no more than its windows allow.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import cast

from stoker.sandbox.guest.contract import CHANNELS_MAX, FRAME, FRAME_BYTES_MAX, PORTS, WINDOW_BYTES, FrameKind

CREDIT_BYTES = WINDOW_BYTES // 4
"""Given back when that much was passed on, or when nothing waits."""

ConnectPort = Callable[[int], socket.socket]
"""A connected, non-blocking socket for one of the contract's ports. Raises OSError when nobody listens."""


class Channels(asyncio.Protocol):
    """One guest's port. ``on_end`` is told once, with why when the guest broke a rule."""

    def __init__(self, connect: ConnectPort, on_end: Callable[[str | None], None]) -> None:
        self._connect = connect
        self._on_end = on_end
        self._channels: dict[int, _Channel] = {}
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(None)

    def data_received(self, data: bytes) -> None:
        """Frames, cut anywhere."""
        self._buffer += data
        at = 0
        while len(self._buffer) - at >= FRAME.size and not self._ended:
            number, kind, zero, argument = FRAME.unpack_from(self._buffer, at)
            size = argument if kind == FrameKind.DATA else 0
            if size > FRAME_BYTES_MAX or zero:
                self._end("a frame that is none")
                return
            end = at + FRAME.size + size
            if end > len(self._buffer):
                break
            self._take(number, kind, argument, bytes(self._buffer[at + FRAME.size : end]))
            at = end
        del self._buffer[:at]

    def _take(self, number: int, kind: int, argument: int, data: bytes) -> None:
        if kind == FrameKind.OPEN:
            self._open(number, argument)
            return
        channel = self._channels.get(number)
        if channel is None:
            self._end("a frame for a channel that is not open")
        elif kind == FrameKind.DATA:
            if not channel.take(data):
                self._end("more than its window allows")
        elif kind == FrameKind.CREDIT:
            if not channel.credit(argument):
                self._end("credit for what was never sent")
        elif kind in (FrameKind.END, FrameKind.RESET):
            channel.end()
        else:
            self._end("a frame of no kind")

    def _open(self, number: int, port: int) -> None:
        if number in self._channels or number >= CHANNELS_MAX or port not in PORTS:
            self._end("an opening of what cannot be opened")
            return
        try:
            connected = self._connect(port)
        except OSError:
            # As a refused connection; the guest's END makes the number free again.
            self._channels[number] = _Channel(number, None, self._send, self._channels)
            self._send(number, FrameKind.RESET)
            return
        self._channels[number] = _Channel(number, connected, self._send, self._channels)

    def _send(self, number: int, kind: FrameKind, argument: int = 0, data: bytes = b"") -> None:
        if self._transport is not None and not self._ended:
            self._transport.write(FRAME.pack(number, kind, 0, argument) + data)

    def close(self) -> None:
        """End the connection and every channel."""
        self._end(None)

    def _end(self, why: str | None) -> None:
        if self._ended:
            return
        self._ended = True
        for channel in tuple(self._channels.values()):
            channel.close()
        if self._transport is not None:
            self._transport.abort()
        self._on_end(why)


class _Channel:
    """Both directions between a guest's channel and a local socket; None: whatever comes is thrown away."""

    def __init__(
        self,
        number: int,
        local: socket.socket | None,
        send: Callable[..., None],
        among: dict[int, "_Channel"],
    ) -> None:
        self._number = number
        self._local = local
        self._send = send
        self._among = among
        self._loop = asyncio.get_running_loop()
        self._may_send = WINDOW_BYTES
        self._waiting = bytearray()
        self._owed = 0
        self._taken = 0
        self._guest_ended = False
        self._local_ended = local is None
        self._reading = self._writing = False
        if local is not None:
            self._read_if_possible()

    # --- from the guest

    def take(self, data: bytes) -> bool:
        """False: it had no right to send that much."""
        self._taken += len(data)
        if self._taken > WINDOW_BYTES or self._guest_ended:
            return False
        self._waiting += data
        self._write()
        return True

    def end(self) -> None:
        self._guest_ended = True
        self._write()

    def _write(self) -> None:
        while self._waiting:
            try:
                sent = self._local.send(self._waiting) if self._local is not None else len(self._waiting)
            except BlockingIOError:
                if not self._writing and self._local is not None:
                    self._loop.add_writer(self._local.fileno(), self._write)
                    self._writing = True
                return
            except OSError:
                sent = len(self._waiting)
            del self._waiting[:sent]
            self._owed += sent
        self._stop_writing()
        if self._owed and not self._guest_ended:
            self._taken -= self._owed
            self._send(self._number, FrameKind.CREDIT, self._owed)
            self._owed = 0
        if self._guest_ended:
            if self._local is not None:
                try:
                    self._local.shutdown(socket.SHUT_WR)
                except OSError:
                    self._local_gone()
            self._leave_when_over()

    def _stop_writing(self) -> None:
        if self._writing and self._local is not None:
            self._loop.remove_writer(self._local.fileno())
        self._writing = False

    # --- to the guest

    def credit(self, count: int) -> bool:
        """False: that much was never sent."""
        self._may_send += count
        if self._may_send > WINDOW_BYTES:
            return False
        self._read_if_possible()
        return True

    def _read_if_possible(self) -> None:
        wanted = self._may_send > 0 and not self._local_ended
        if self._local is None or wanted == self._reading:
            return
        self._reading = wanted
        if wanted:
            self._loop.add_reader(self._local.fileno(), self._read)
        else:
            self._loop.remove_reader(self._local.fileno())

    def _read(self) -> None:
        assert self._local is not None
        try:
            data = self._local.recv(min(self._may_send, FRAME_BYTES_MAX))
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._local_gone()
            return
        self._may_send -= len(data)
        self._send(self._number, FrameKind.DATA, len(data), data)
        self._read_if_possible()

    def _local_gone(self) -> None:
        if not self._local_ended:
            self._local_ended = True
            self._read_if_possible()
            self._send(self._number, FrameKind.END)
        self._leave_when_over()

    def _leave_when_over(self) -> None:
        if self._guest_ended and self._local_ended and not self._waiting:
            self.close()

    def close(self) -> None:
        self._among.pop(self._number, None)
        if self._local is None:
            return
        self._stop_writing()
        self._local_ended = True
        self._read_if_possible()
        self._local.close()
        self._local = None
