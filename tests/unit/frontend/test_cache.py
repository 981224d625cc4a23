"""The loading cache: one load however many ask, bounded, and never what was outdated while it loaded."""

import asyncio

import pytest

from stoker.frontend.cache import LoadingCache


class Source:
    """A slow source whose loads are let go one by one."""

    def __init__(self) -> None:
        self.values: dict[str, int] = {}
        self.loads: list[str] = []
        self.gates: list[asyncio.Future[None]] = []
        self.loaded: list[tuple[str, int | None]] = []
        self.cache = LoadingCache[str, int](
            self.read, capacity=2, loaded=lambda key, value: self.loaded.append((key, value))
        )

    async def read(self, key: str) -> int | None:
        self.loads.append(key)
        value = self.values.get(key)
        gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.gates.append(gate)
        await gate
        return value

    async def let_go(self, index: int = -1) -> None:
        self.gates[index].set_result(None)
        await asyncio.sleep(0)


@pytest.fixture
async def source() -> Source:
    return Source()


async def start(source: Source, key: str) -> "asyncio.Task[int | None]":
    task = asyncio.create_task(source.cache.load(key))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return task


async def test_callers_share_a_load(source: Source) -> None:
    source.values["a"] = 1
    tasks = [await start(source, "a") for _ in range(5)]
    await source.let_go()
    assert await asyncio.gather(*tasks) == [1] * 5
    assert source.loads == ["a"]
    assert source.cache.get("a") == 1
    assert source.loaded == [("a", 1)]


async def test_a_load_that_was_outdated_is_not_kept(source: Source) -> None:
    source.values["a"] = 1
    before = await start(source, "a")
    source.values["a"] = 2
    source.cache.invalidate("a")
    after = await start(source, "a")
    await source.let_go(1)
    await source.let_go(0)
    assert (await before, await after) == (1, 2)
    assert source.cache.get("a") == 2
    assert source.loaded == [("a", 2)]


async def test_the_outdated_load_may_end_first(source: Source) -> None:
    source.values["a"] = 1
    before = await start(source, "a")
    source.cache.invalidate("a")
    await source.let_go(0)
    assert await before == 1
    assert source.cache.get("a") is None
    assert source.loaded == []


async def test_nothing_there_is_not_kept(source: Source) -> None:
    task = await start(source, "a")
    await source.let_go()
    assert await task is None
    assert source.loaded == [("a", None)]
    again = await start(source, "a")
    await source.let_go()
    await again
    assert source.loads == ["a", "a"]


async def test_a_cancelled_caller_does_not_take_the_load_from_the_others(source: Source) -> None:
    source.values["a"] = 1
    first, second = await start(source, "a"), await start(source, "a")
    first.cancel()
    await asyncio.sleep(0)
    await source.let_go()
    assert await second == 1
    assert source.loads == ["a"]


async def test_an_error_reaches_everyone_and_the_next_asks_anew() -> None:
    attempts: list[str] = []

    async def read(key: str) -> int:
        attempts.append(key)
        await asyncio.sleep(0)
        if len(attempts) == 1:
            raise OSError("disk")
        return 7

    cache = LoadingCache[str, int](read, capacity=2)
    results = await asyncio.gather(cache.load("a"), cache.load("a"), return_exceptions=True)
    assert [type(result) for result in results] == [OSError, OSError]
    assert await cache.load("a") == 7
    assert attempts == ["a", "a"]


async def test_the_least_recently_used_goes_first(source: Source) -> None:
    for key in "ab":
        source.values[key] = ord(key)
        task = await start(source, key)
        await source.let_go()
        await task
    assert source.cache.get("a") is not None
    source.values["c"] = 3
    task = await start(source, "c")
    await source.let_go()
    await task
    assert [source.cache.get(key) for key in "abc"] == [ord("a"), None, 3]
    assert len(source.cache) == 2
