"""The log store in files: what goes in comes out, within its bounds, over restarts and torn writes."""

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from stoker.core.clock import ManualClock
from stoker.services.logs import InvalidToken, LogPage
from stoker.worker.logstore import FileLogStore, LogStoreLimits
from stoker.worker.logstore.names import escape, unescape

OWNER = ("000000000000", "us-east-1")
GROUP = "/aws/lambda/echo"
END = 2**50


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[FileLogStore]:
    store = await FileLogStore.open(tmp_path, ManualClock())
    yield store
    await store.close()


def fill(store: FileLogStore, stream: str, messages: list[tuple[int, str]], group: str = GROUP) -> None:
    writer = store.writer(*OWNER, group, stream)
    for timestamp_ms, message in messages:
        writer.append(timestamp_ms, message)
    writer.close()


async def read(
    store: FileLogStore,
    *,
    streams: tuple[str, ...] | None = None,
    start_ms: int = 0,
    end_ms: int = END,
    token: str | None = None,
    limit: int = 1000,
    from_head: bool = True,
) -> LogPage:
    page = await store.events(
        *OWNER,
        GROUP,
        streams=streams,
        start_ms=start_ms,
        end_ms=end_ms,
        token=token,
        limit=limit,
        from_head=from_head,
    )
    assert page is not None
    return page


def texts(page: LogPage) -> list[str]:
    return [event.message for event in page.events]


async def test_streams_are_merged_by_time(store: FileLogStore) -> None:
    fill(store, "a", [(1, "a1"), (3, "a3"), (5, "a5")])
    fill(store, "b", [(2, "b2"), (4, "b4")])
    assert texts(await read(store)) == ["a1", "b2", "a3", "b4", "a5"]
    assert texts(await read(store, streams=("b",))) == ["b2", "b4"]
    assert texts(await read(store, start_ms=2, end_ms=5)) == ["b2", "a3", "b4"]
    ids = [event.event_id for event in (await read(store)).events]
    assert ids == sorted(ids)
    assert len({*ids}) == 5
    assert {len(each) for each in ids} == {56}


async def test_pages_forward_and_backward(store: FileLogStore) -> None:
    fill(store, "a", [(at, f"m{at}") for at in range(1, 11)])
    first = await read(store, limit=4)
    second = await read(store, limit=4, token=first.forward_token)
    third = await read(store, limit=4, token=second.forward_token)
    assert texts(first) + texts(second) + texts(third) == [f"m{at}" for at in range(1, 11)]
    end = await read(store, limit=4, token=third.forward_token)
    assert texts(end) == []
    assert end.forward_token == third.forward_token
    back = await read(store, limit=4, token=third.backward_token)
    assert texts(back) == texts(second)
    newest = await read(store, limit=3, from_head=False)
    assert texts(newest) == ["m8", "m9", "m10"]
    fill(store, "a", [(11, "m11")])
    assert texts(await read(store, token=end.forward_token)) == ["m11"]


async def test_events_of_one_time_keep_their_order_over_pages(store: FileLogStore) -> None:
    fill(store, "a", [(7, f"m{at}") for at in range(20)])
    token, seen = None, list[str]()
    for _ in range(7):
        page = await read(store, limit=3, token=token)
        seen += texts(page)
        token = page.forward_token
    assert seen == [f"m{at}" for at in range(20)]


async def test_a_token_that_was_made_up_is_refused(store: FileLogStore) -> None:
    fill(store, "a", [(1, "x")])
    for token in ("", "f/", "x/" + "0" * 56, "f/" + "0" * 55, "f/" + "٣" * 56):
        with pytest.raises(InvalidToken):
            await read(store, token=token)


async def test_what_does_not_exist_is_none(store: FileLogStore) -> None:
    async def look(group: str, streams: tuple[str, ...] | None) -> LogPage | None:
        return await store.events(*OWNER, group, streams=streams, start_ms=0, end_ms=END, token=None, limit=1)

    assert await look(GROUP, None) is None
    fill(store, "a", [(1, "x")])
    assert await look(GROUP, ("b",)) is None
    assert (
        await store.events(
            "111111111111", "us-east-1", GROUP, streams=None, start_ms=0, end_ms=END, token=None, limit=1
        )
        is None
    )
    assert await store.streams(*OWNER, "no", prefix="", by_last_event=False, descending=False) is None


async def test_a_restart_keeps_everything_and_ignores_a_torn_end(tmp_path: Path) -> None:
    store = await FileLogStore.open(tmp_path, ManualClock())
    fill(store, "a", [(1, "one"), (2, "two ü"), (3, "three")])
    await store.close()
    (segment,) = tmp_path.rglob("*.log")
    for torn in (1, 3, 20):
        data = segment.read_bytes()
        segment.write_bytes(data[:-torn])
        again = await FileLogStore.open(tmp_path, ManualClock())
        assert texts(await read(again))[:2] == ["one", "two ü"]
        assert len(texts(await read(again))) == 2
        await again.close()
        segment.write_bytes(data)
    again = await FileLogStore.open(tmp_path, ManualClock())
    fill(again, "a", [(4, "four")])
    assert texts(await read(again)) == ["one", "two ü", "three", "four"]
    (info,) = await again.streams(*OWNER, GROUP, prefix="", by_last_event=True, descending=True) or []
    assert (info.name, info.first_event_ms, info.last_event_ms) == ("a", 1, 4)
    await again.close()


async def test_a_damaged_record_ends_its_segment_only(tmp_path: Path) -> None:
    store = await FileLogStore.open(tmp_path, ManualClock())
    fill(store, "a", [(1, "one"), (2, "two")])
    await store.close()
    (segment,) = tmp_path.rglob("*.log")
    data = bytearray(segment.read_bytes())
    data[-1] ^= 1
    segment.write_bytes(data)
    again = await FileLogStore.open(tmp_path, ManualClock())
    fill(again, "a", [(3, "three")])
    assert texts(await read(again)) == ["one", "three"]
    await again.close()


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd",
        "..",
        ".",
        "",
        "/",
        "a/b",
        "a\0b",
        "x" * 512,
        "é" * 300,
        "%2E",
        "a+b",
        "2026/[$LATEST]1",
    ],
)
async def test_names_never_leave_their_folder(tmp_path: Path, name: str) -> None:
    root = tmp_path / "logs"
    store = await FileLogStore.open(root, ManualClock())
    fill(store, name, [(1, "x")], name)
    await store.flush()
    assert {path.name for path in tmp_path.iterdir()} == {"logs"}
    assert escape(name) not in ("", ".", "..")
    assert "/" not in escape(name)
    assert len(escape(name).encode()) <= 255
    assert unescape(escape(name)) in (name, None)
    await store.close()
    again = await FileLogStore.open(root, ManualClock())
    (group,) = await again.groups(*OWNER, prefix="", after="", limit=5) if name else [None]
    if group is not None:
        assert group.name == name
        (stream,) = await again.streams(*OWNER, name, prefix="", by_last_event=False, descending=False) or []
        assert stream.name == name
    await again.close()


def test_different_names_have_different_files() -> None:
    names = ["a", "A", "a.b", "a%2Eb", "a/b", "a+b", "a b", "x" * 400, "x" * 401, "%", ""]
    assert len({escape(name) for name in names}) == len(names)


async def test_segments_rotate_and_the_oldest_go_first(tmp_path: Path) -> None:
    limits = LogStoreLimits(total_bytes=200_000, group_bytes=150_000, segment_bytes=10_000)
    clock = ManualClock()
    store = await FileLogStore.open(tmp_path, clock, limits)
    for batch in range(30):
        clock.advance(1)
        fill(store, "a", [(batch * 100 + at, f"{batch}:{at} " + "x" * 1000) for at in range(10)])
        await store.flush()
    (group,) = await store.groups(*OWNER, prefix="", after="", limit=5)
    assert group.stored_bytes <= 150_000
    kept = texts(await read(store))
    assert kept[-1].startswith("29:9 ")
    numbers = [int(text.partition(":")[0]) for text in kept]
    assert numbers == sorted(numbers)
    assert numbers[0] > 10
    on_disk = sum(path.stat().st_size for path in tmp_path.rglob("*.log"))
    assert on_disk == group.stored_bytes
    assert store._disk.cost_bytes == group.stored_bytes + 16 * 1024
    await store.close()


async def test_the_whole_store_is_bounded_and_closed_streams_vanish(tmp_path: Path) -> None:
    limits = LogStoreLimits(total_bytes=400_000, group_bytes=400_000)
    clock = ManualClock()
    store = await FileLogStore.open(tmp_path, clock, limits)
    for number in range(60):
        clock.advance(1)
        fill(store, f"s{number:02d}", [(number, "x" * 1000)], f"g{number % 3}")
        await store.flush()
    names = []
    for group in await store.groups(*OWNER, prefix="", after="", limit=5):
        streams = await store.streams(*OWNER, group.name, prefix="", by_last_event=False, descending=False)
        names += [stream.name for stream in streams or []]
    assert len(names) <= 400_000 // (16 * 1024)
    assert sorted(names)[-1] == "s59"
    assert sorted(names) == [f"s{number:02d}" for number in range(60 - len(names), 60)]
    counted = sum(path.stat().st_size for path in tmp_path.rglob("*.log")) + len(names) * 16 * 1024
    assert store._disk.cost_bytes == counted
    assert sum(group.cost_bytes for group in store._index.groups.values()) == counted
    await store.close()


async def test_an_open_stream_goes_on_after_its_segments_were_deleted(tmp_path: Path) -> None:
    limits = LogStoreLimits(total_bytes=100_000, group_bytes=100_000, segment_bytes=20_000)
    store = await FileLogStore.open(tmp_path, ManualClock(), limits)
    writer = store.writer(*OWNER, GROUP, "open")
    writer.append(1, "early")
    fill(store, "flood", [(2, "x" * 1000) for _ in range(200)])
    await store.flush()
    writer.append(3, "late")
    assert texts(await read(store, streams=("open",))) == ["late"]
    writer.close()
    await store.close()


async def test_retention_deletes_what_is_too_old(tmp_path: Path) -> None:
    clock = ManualClock()
    store = await FileLogStore.open(tmp_path, clock)
    now_ms = int(clock.now_s() * 1000)
    fill(store, "old", [(now_ms - 3 * 86_400_000, "old")])
    fill(store, "new", [(now_ms, "new")])
    await store.flush()
    assert await store.set_retention(*OWNER, GROUP, 1)
    clock.advance(61)
    store._disk.expire()
    assert texts(await read(store)) == ["new"]
    await store.close()
    again = await FileLogStore.open(tmp_path, clock)
    (group,) = await again.groups(*OWNER, prefix="", after="", limit=5)
    assert group.retention_days == 1
    await again.close()


async def test_too_much_at_once_is_dropped_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = LogStoreLimits(pending_bytes=10_000, congested_bytes=5_000)
    store = await FileLogStore.open(tmp_path, ManualClock(), limits)
    gate = threading.Event()
    append = store._disk.append

    def slow(*arguments: object) -> None:
        gate.wait(5)
        append(*arguments)

    monkeypatch.setattr(store._disk, "append", slow)
    writer = store.writer(*OWNER, GROUP, "a")
    for at in range(100):
        writer.append(at, "x" * 372)
    assert writer.congested
    assert store.dropped_events == 80
    gate.set()
    await store.flush()
    assert not writer.congested
    writer.append(200, "after")
    writer.close()
    seen = texts(await read(store))
    assert len(seen) == 22
    assert seen[-2] == (
        "STOKER 80 log events (29760 bytes) were dropped here: they came faster than they could be stored\n"
    )
    assert seen[-1] == "after"
    await store.close()


async def test_a_full_disk_loses_a_batch_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await FileLogStore.open(tmp_path, ManualClock())
    fill(store, "a", [(1, "one")])
    await store.flush()
    file = store._disk._file

    class Full:
        def write(self, data: bytes) -> int:
            raise OSError(28, "No space left on device")

        def close(self) -> None:
            pass

    monkeypatch.setattr(store._disk, "_file", lambda segment: Full())
    fill(store, "a", [(2, "two")])
    with pytest.raises(OSError, match="No space"):
        await store.flush()
    assert store.failed_batches == 1
    assert texts(await read(store)) == ["one"]
    monkeypatch.setattr(store._disk, "_file", file)
    fill(store, "a", [(3, "three")])
    assert texts(await read(store)) == ["one", "three"]
    await store.close()


async def test_groups_and_streams_are_managed(store: FileLogStore) -> None:
    assert await store.create_group(*OWNER, GROUP)
    assert not await store.create_group(*OWNER, GROUP)
    assert await store.create_stream(*OWNER, "no", "s") is None
    assert await store.create_stream(*OWNER, GROUP, "s")
    assert await store.create_stream(*OWNER, GROUP, "s") is False
    assert texts(await read(store, streams=("s",))) == []
    assert await store.delete_stream(*OWNER, GROUP, "s")
    assert await store.delete_stream(*OWNER, GROUP, "s") is False
    assert await store.delete_group(*OWNER, GROUP)
    assert not await store.delete_group(*OWNER, GROUP)
    fill(store, "again", [(1, "x")])
    assert texts(await read(store)) == ["x"]


async def test_appending_is_quick_and_never_waits_for_the_disk(store: FileLogStore) -> None:
    loop = asyncio.get_running_loop()
    writer = store.writer(*OWNER, GROUP, "a")
    with store._index.lock:  # as if the thread were busy with a slow disk
        begun_s = loop.time()
        for at in range(10_000):
            writer.append(at, "x" * 100)
        taken_s = loop.time() - begun_s
    assert taken_s < 0.5
    writer.close()
    await store.flush()
    assert len(texts(await read(store, limit=100_000))) <= 10_000


async def test_reading_near_the_end_of_a_long_segment_skips_the_rest(store: FileLogStore) -> None:
    fill(store, "a", [(at, "x" * 1000) for at in range(5000)])
    await store.flush()
    stream = store._index.groups[*OWNER, GROUP].streams["a"]
    assert (stream.segments[0].offset_before(4990) or 0) > 4_000_000
    page = await read(store, start_ms=4990)
    assert [event.timestamp_ms for event in page.events] == list(range(4990, 5000))


WRITER = """
import asyncio, sys
from pathlib import Path
from stoker.core.clock import SystemClock
from stoker.worker.logstore import FileLogStore, LogStoreLimits

async def main():
    limits = LogStoreLimits(segment_bytes=50_000)
    store = await FileLogStore.open(Path(sys.argv[1]), SystemClock(), limits)
    writer = store.writer("000000000000", "us-east-1", "/aws/lambda/echo", "s")
    at = 0
    while True:
        for _ in range(200):
            at += 1
            writer.append(at, f"{at} " + "x" * (at % 97))
        await store.flush()
        print(at, flush=True)

asyncio.run(main())
"""


async def test_kill_9_loses_nothing_that_was_flushed(tmp_path: Path) -> None:
    for pause_s in (0.05, 0.11):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(pause_s)
        process.kill()
        flushed = [int(line) for line in process.stdout.read().split()]
        process.wait()
        store = await FileLogStore.open(tmp_path, ManualClock())
        seen, token = list[str](), None
        while True:
            page = await read(store, token=token)
            if not page.events:
                break
            seen += texts(page)
            token = page.forward_token
        numbers = [int(text.split()[0]) for text in seen]
        assert numbers == list(range(1, len(numbers) + 1))
        assert all(
            len(text.split()[1]) == number % 97
            for number, text in zip(numbers, seen, strict=True)
            if number % 97
        )
        assert len(numbers) >= max(flushed, default=0)
        assert await store.delete_group(*OWNER, GROUP)
        await store.close()
