"""The body stream against a recording source."""

import asyncio
import gc
import weakref

import pytest

from stoker.http.body import BodyStream
from stoker.http.errors import BodyTooLarge, PeerVanished


class Source:
    """Records what the stream asks of its connection."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.taken_bytes = 0

    def body_wanted(self) -> None:
        self.calls.append("wanted")

    def body_full(self) -> None:
        self.calls.append("full")

    def body_hungry(self) -> None:
        self.calls.append("hungry")

    def body_taken(self, size_bytes: int) -> None:
        self.taken_bytes += size_bytes


async def test_chunks_come_in_order_and_end_with_trailers():
    source = Source()
    stream = BodyStream(source, 100)
    stream.feed(b"a")
    stream.feed(b"b")
    stream.end([(b"t", b"1")])
    assert [chunk async for chunk in stream] == [b"a", b"b"]
    assert stream.trailers == [(b"t", b"1")]
    assert source.calls == ["wanted"]
    assert source.taken_bytes == 2


async def test_the_reader_waits_for_the_peer():
    stream = BodyStream(Source(), 100)
    reading = asyncio.create_task(stream.read(100))
    for piece in (b"a", b"b"):
        await asyncio.sleep(0)
        assert not reading.done()
        stream.feed(piece)
    stream.end()
    assert await reading == b"ab"


async def test_flow_control_marks():
    source = Source()
    stream = BodyStream(source, 10_000_000)
    while "full" not in source.calls:
        stream.feed(b"x" * 10_000)
    assert stream.buffered_bytes == 270_000
    while "hungry" not in source.calls:
        await anext(stream)
    assert stream.buffered_bytes <= 65_536
    assert source.calls == ["full", "wanted", "hungry"]


async def test_declared_length_is_refused_without_reading():
    source = Source()
    stream = BodyStream(source, 1000, size_bytes=11)
    with pytest.raises(BodyTooLarge):
        await stream.read(10)
    assert source.calls == []


async def test_undeclared_length_is_refused_when_it_shows():
    stream = BodyStream(Source(), 1000)
    stream.feed(b"x" * 11)
    with pytest.raises(BodyTooLarge) as info:
        await stream.read(10)
    assert info.value.limit_bytes == 10


async def test_the_cap_holds_and_everything_is_accounted_for():
    source = Source()
    stream = BodyStream(source, 10)
    for _ in range(5):
        stream.feed(b"12345")
    assert stream.buffered_bytes == 10
    with pytest.raises(BodyTooLarge):
        await stream.read(1000)
    assert source.taken_bytes == 25


async def test_a_failure_comes_behind_what_is_buffered_and_stays():
    stream = BodyStream(Source(), 100)
    stream.feed(b"a")
    stream.fail(PeerVanished("gone"))
    assert await anext(stream) == b"a"
    for _ in range(2):
        with pytest.raises(PeerVanished):
            await anext(stream)


async def test_a_failure_after_the_end_changes_nothing():
    stream = BodyStream(Source(), 100)
    stream.feed(b"a")
    stream.end()
    stream.fail(PeerVanished("gone"))
    assert await stream.read(10) == b"a"


async def test_a_cancelled_reader_can_read_again():
    stream = BodyStream(Source(), 100)
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(anext(stream), 0.01)
    stream.feed(b"a")
    assert await anext(stream) == b"a"


async def test_a_failed_body_is_freed_with_its_last_reference():
    gc.disable()
    try:
        source = Source()
        freed = weakref.ref(source)
        stream = BodyStream(source, 100)
        stream.feed(b"a")
        stream.fail(BodyTooLarge(7))
        with pytest.raises(BodyTooLarge, match="7 bytes") as info:
            await stream.read(100)
        del stream, source, info
        assert freed() is None
    finally:
        gc.enable()
