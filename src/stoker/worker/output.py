"""A sandbox's two pipes: standard output cut into lines, and the framed log pipe; read without ever waiting.

What is read at once is bounded and so is the rate: a function that floods its pipe waits on it, nobody else.
"""

import array
import asyncio
import fcntl
import os
import select
import termios
from typing import Protocol

from stoker.core.clock import Clock
from stoker.core.limits import (
    LOG_BURST_BYTES,
    LOG_BYTES_PER_S,
    LOG_EVENT_BYTES_MAX,
    LOG_EVENT_COST_BYTES,
)
from stoker.runtimeapi import TelemetryParser

READ_BYTES = 8 * 1024
"""One read: little enough that a flood of short lines does not hold the event loop for long."""

RESUME_AFTER_S = 0.05
"""How long a pipe over its rate, or before a congested log store, is left alone."""


class Sink(Protocol):
    """Whoever stores the messages."""

    def write(self, timestamp_ms: int, message: str) -> None: ...

    @property
    def congested(self) -> bool:
        """Whether reading should pause."""
        ...


class Output:
    """Reads both pipes of one sandbox into a sink. Used on the event loop only."""

    def __init__(self, output: int, telemetry: int, sink: Sink, clock: Clock) -> None:
        self._loop = asyncio.get_running_loop()
        self._pipes = [_Lines(output), _Frames(telemetry)]
        self._filled = select.poll()
        """Tells in one call which of the pipes hold anything; mostly none does."""
        self._sink = sink
        self._clock = clock
        self._allowance = float(LOG_BURST_BYTES)
        self._allowance_at_s = clock.monotonic_s()
        self._resume: asyncio.TimerHandle | None = None
        for pipe in self._pipes:
            self._filled.register(pipe.fd, select.POLLIN)
            self._watch(pipe)

    def _watch(self, pipe: "_Pipe") -> None:
        self._loop.add_reader(pipe.fd, self._readable, pipe)
        pipe.watched = True

    def _end(self, pipe: "_Pipe") -> None:
        self._unwatch(pipe)
        if not pipe.ended:
            pipe.ended = True
            self._filled.unregister(pipe.fd)

    def _unwatch(self, pipe: "_Pipe") -> None:
        if pipe.watched:
            self._loop.remove_reader(pipe.fd)
            pipe.watched = False

    def _readable(self, pipe: "_Pipe") -> None:
        if self._over_rate():
            self._pause()
            return
        self._read(pipe, READ_BYTES)

    def _over_rate(self) -> bool:
        now_s = self._clock.monotonic_s()
        self._allowance += (now_s - self._allowance_at_s) * LOG_BYTES_PER_S
        self._allowance = min(self._allowance, float(LOG_BURST_BYTES))
        self._allowance_at_s = now_s
        return self._allowance < 0 or self._sink.congested

    def _pause(self) -> None:
        for pipe in self._pipes:
            self._unwatch(pipe)
        if self._resume is None:
            self._resume = self._loop.call_later(RESUME_AFTER_S, self._go_on)

    def _go_on(self) -> None:
        self._resume = None
        for pipe in self._pipes:
            if not pipe.ended:
                self._watch(pipe)

    def drain(self) -> None:
        """Take what is in the pipes now, an unfinished last line included; no more than a pipe can hold."""
        if self._filled.poll(0):
            for pipe in self._pipes:
                if not pipe.ended and (waiting_bytes := _bytes_in(pipe.fd)):
                    self._read(pipe, waiting_bytes)
        for pipe in self._pipes:
            if pipe.unfinished:
                self._emit(pipe.flush())

    def close(self) -> None:
        """Take what is left and stop; the descriptors stay their owner's."""
        self.drain()
        if self._resume is not None:
            self._resume.cancel()
            self._resume = None
        for pipe in self._pipes:
            self._end(pipe)

    def _read(self, pipe: "_Pipe", size_bytes: int) -> None:
        try:
            data = os.read(pipe.fd, size_bytes)
        except BlockingIOError:
            return
        if not data:
            self._end(pipe)
            self._emit(pipe.flush())
            return
        self._allowance -= len(data)
        self._emit(pipe.feed(data))

    def _emit(self, messages: list[tuple[int | None, bytes]]) -> None:
        if not messages:
            return
        self._allowance -= len(messages) * LOG_EVENT_COST_BYTES
        now_ms = int(self._clock.now_s() * 1000)
        write = self._sink.write
        for claimed_ms, message in messages:
            # The function may claim any time, but not one that is still to come.
            timestamp_ms = now_ms if claimed_ms is None else min(claimed_ms, now_ms)
            write(timestamp_ms, message.decode("utf-8", "replace"))


class _Pipe:
    """One pipe: bytes in, messages (with the time they claim) out."""

    __slots__ = ("ended", "fd", "watched")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.watched = False
        self.ended = False

    @property
    def unfinished(self) -> bool:
        raise NotImplementedError

    def feed(self, data: bytes) -> list[tuple[int | None, bytes]]:
        raise NotImplementedError

    def flush(self) -> list[tuple[int | None, bytes]]:
        raise NotImplementedError


class _Lines(_Pipe):
    """Raw text: one message a line, its newline kept as AWS does; over-long lines are cut."""

    __slots__ = ("_rest",)

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self._rest = b""

    @property
    def unfinished(self) -> bool:
        return bool(self._rest)

    def feed(self, data: bytes) -> list[tuple[int | None, bytes]]:
        # Only line feeds end a line: runtimes join the lines of one event by carriage returns.
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        messages: list[tuple[int | None, bytes]] = [
            (None, piece) for line in lines for piece in _pieces(line + b"\n")
        ]
        while len(self._rest) >= LOG_EVENT_BYTES_MAX:
            messages.append((None, self._rest[:LOG_EVENT_BYTES_MAX]))
            self._rest = self._rest[LOG_EVENT_BYTES_MAX:]
        return messages

    def flush(self) -> list[tuple[int | None, bytes]]:
        rest, self._rest = self._rest, b""
        return [(None, rest)] if rest else []


class _Frames(_Pipe):
    """The framed log pipe: one message a frame, with the runtime's time."""

    __slots__ = ("_parser",)

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self._parser = TelemetryParser()

    @property
    def unfinished(self) -> bool:
        """A frame cut short stays in the parser: its rest comes with the next read."""
        return False

    def feed(self, data: bytes) -> list[tuple[int | None, bytes]]:
        return [
            (record.timestamp_us // 1000 if record.timestamp_us is not None else None, piece)
            for record in self._parser.feed(data)
            for piece in _pieces(record.message)
        ]

    def flush(self) -> list[tuple[int | None, bytes]]:
        return [(None, piece) for record in self._parser.flush() for piece in _pieces(record.message)]


def _pieces(message: bytes) -> list[bytes]:
    """A message in parts that each fit one log event."""
    if len(message) <= LOG_EVENT_BYTES_MAX:
        return [message]
    return [message[at : at + LOG_EVENT_BYTES_MAX] for at in range(0, len(message), LOG_EVENT_BYTES_MAX)]


_count = array.array("i", [0])


def _bytes_in(fd: int) -> int:
    fcntl.ioctl(fd, termios.FIONREAD, _count)
    return _count[0]
