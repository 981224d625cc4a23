"""Reading a sandbox's pipes: lines, frames, bounds, and a function that writes more than it may."""

import asyncio
import os
from collections.abc import Iterator

import pytest

from stoker.core.clock import ManualClock, SystemClock
from stoker.core.limits import LOG_BURST_BYTES, LOG_EVENT_BYTES_MAX
from stoker.worker.output import Output


class Sink:
    def __init__(self) -> None:
        self.events: list[tuple[int, str]] = []
        self.congested = False

    def write(self, timestamp_ms: int, message: str) -> None:
        self.events.append((timestamp_ms, message))

    @property
    def messages(self) -> list[str]:
        return [message for _, message in self.events]


class Pipes:
    def __init__(self) -> None:
        self.output, self.stdout = os.pipe()
        self.telemetry, self.framed = os.pipe()
        for fd in (self.output, self.telemetry, self.stdout):
            os.set_blocking(fd, False)
        self.sink = Sink()

    def start(self) -> Output:
        return Output(self.output, self.telemetry, self.sink, ManualClock(1_700_000_000.5))

    def frame(self, text: bytes, at_us: int) -> None:
        os.write(
            self.framed, b"\xa5\x5a\x00\x03" + len(text).to_bytes(4, "big") + at_us.to_bytes(8, "big") + text
        )


@pytest.fixture
def pipes() -> Iterator[Pipes]:
    pipes = Pipes()
    yield pipes
    for fd in (pipes.output, pipes.stdout, pipes.telemetry, pipes.framed):
        os.close(fd)


async def test_lines_are_events_and_keep_their_ends(pipes: Pipes) -> None:
    output = pipes.start()
    os.write(pipes.stdout, b"one\ntwo\rstill two\n\nunfin")
    await asyncio.sleep(0.01)
    assert pipes.sink.messages == ["one\n", "two\rstill two\n", "\n"]
    os.write(pipes.stdout, b"ished\nrest")
    output.drain()
    assert pipes.sink.messages[3:] == ["unfinished\n", "rest"]
    output.close()


async def test_frames_are_one_event_each_with_their_own_time(pipes: Pipes) -> None:
    output = pipes.start()
    pipes.frame(b"several\nlines", 1_700_000_000_100_000)
    pipes.frame(b"from the future", 1_900_000_000_000_000)
    output.drain()
    assert pipes.sink.events == [
        (1_700_000_000_100, "several\nlines"),
        (1_700_000_000_500, "from the future"),
    ]
    output.close()


async def test_a_torn_character_does_no_harm(pipes: Pipes) -> None:
    output = pipes.start()
    os.write(pipes.stdout, "ü".encode()[:1] + b"\n")
    output.drain()
    assert pipes.sink.messages == ["\ufffd\n"]
    output.close()


async def test_over_long_lines_are_cut(pipes: Pipes) -> None:
    output = pipes.start()
    whole = b"x" * (LOG_EVENT_BYTES_MAX * 2 + 100) + b"\n"
    at = 0
    while at < len(whole):
        try:
            at += os.write(pipes.stdout, whole[at:])
        except BlockingIOError:
            await asyncio.sleep(0)
    output.drain()
    assert [len(message) for message in pipes.sink.messages] == [
        LOG_EVENT_BYTES_MAX,
        LOG_EVENT_BYTES_MAX,
        101,
    ]
    output.close()


async def flood(pipes: Pipes, for_s: float) -> int:
    """Write as much as goes; returns how much."""
    loop, written = asyncio.get_running_loop(), 0
    end_s = loop.time() + for_s
    while loop.time() < end_s:
        try:
            written += os.write(pipes.stdout, b"x" * 999 + b"\n")
        except BlockingIOError:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0)
    return written


async def test_a_congested_store_stops_the_reading_and_is_followed_again(pipes: Pipes) -> None:
    output = pipes.start()
    pipes.sink.congested = True
    assert await flood(pipes, 0.2) <= 65_536
    assert pipes.sink.messages == []
    pipes.sink.congested = False
    await asyncio.sleep(0.1)
    assert len(pipes.sink.messages) > 50
    output.close()


async def test_a_flood_is_held_to_its_rate(pipes: Pipes) -> None:
    # The clock stands still: nothing of the allowance comes back. A line costs more than its thousand bytes.
    output = pipes.start()
    output._allowance = 200_000.0
    await flood(pipes, 0.3)
    read_bytes = sum(len(message) for message in pipes.sink.messages)
    assert 165_000 <= read_bytes <= 200_000 + 65_536
    output.close()
    assert LOG_BURST_BYTES > 65_536


async def test_pipes_that_end_are_let_go() -> None:
    output_read, stdout = os.pipe()
    telemetry_read, framed = os.pipe()
    for fd in (output_read, telemetry_read):
        os.set_blocking(fd, False)
    sink = Sink()
    output = Output(output_read, telemetry_read, sink, SystemClock())
    os.write(stdout, b"last")
    os.close(stdout)
    os.close(framed)
    await asyncio.sleep(0.02)
    assert sink.messages == ["last"]
    output.drain()
    output.close()
    output.close()
    os.close(output_read)
    os.close(telemetry_read)
