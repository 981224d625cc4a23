"""The cache of what was made from sealed code: shared, bounded, and never taken from who uses it."""

import asyncio

import pytest

from stoker.packaging.held import HeldCache


class Thing:
    """Ten bytes unless told otherwise."""

    def __init__(self, size_bytes: int = 10) -> None:
        self.size_bytes = size_bytes
        self.discarded = 0

    async def discard(self) -> None:
        self.discarded += 1


def cache(limit_bytes: int = 25, unused_max: int = 100) -> HeldCache[Thing]:
    return HeldCache(limit_bytes, unused_max=unused_max)


async def made() -> Thing:
    await asyncio.sleep(0)
    return Thing()


async def failing() -> Thing:
    await asyncio.sleep(0)
    raise OSError("no")


async def test_many_who_ask_at_once_get_one() -> None:
    held = cache()
    entries = await asyncio.gather(*(held.enter("a", made) for _ in range(9)))
    assert len({id(entry) for entry in entries}) == 1
    assert entries[0].users == 9
    assert held.statistics().misses == 1


async def test_the_oldest_unused_goes_and_the_used_stay() -> None:
    held = cache()
    used = await held.enter("used", made)
    for key in "abc":
        held.leave(await held.enter(key, made))
    assert [key for key in ("used", "a", "b", "c") if held.has(key)] == ["used", "c"]
    await held.discarded()
    assert used.held.discarded == 0
    assert held.statistics().size_bytes == 20
    assert held.statistics().evicted == 2


async def test_more_than_the_limit_in_use_is_kept_and_goes_when_it_is_left() -> None:
    held = cache(limit_bytes=5)
    entries = [await held.enter(key, made) for key in "abc"]
    assert held.statistics().size_bytes == 30
    for entry in entries:
        held.leave(entry)
    await held.discarded()
    assert [entry.held.discarded for entry in entries] == [1, 1, 1]
    assert held.statistics().size_bytes == 0


async def test_small_ones_are_bounded_by_their_number() -> None:
    held = cache(limit_bytes=10_000, unused_max=2)
    for key in "abcd":
        held.leave(await held.enter(key, made))
    assert [key for key in "abcd" if held.has(key)] == ["c", "d"]


async def test_the_forgotten_stays_for_its_users_and_is_found_by_nobody_else() -> None:
    held = cache()
    old = await held.enter("a", made)
    held.forget(lambda key: key == "a")
    assert not held.has("a")
    new = await held.enter("a", made)
    assert new is not old
    assert old.held.discarded == 0
    held.leave(old)
    await held.discarded()
    assert (old.held.discarded, new.held.discarded) == (1, 0)
    held.leave(new)


async def test_forgetting_while_it_is_made_gives_it_to_those_who_wait() -> None:
    held = cache()
    waiting = asyncio.create_task(held.enter("a", made))
    await asyncio.sleep(0)
    held.forget(lambda key: True)
    entry = await waiting
    assert not held.has("a")
    assert entry.held.discarded == 0
    held.leave(entry)
    await held.discarded()
    assert entry.held.discarded == 1


async def test_a_failure_reaches_all_who_wait_and_the_next_tries_again() -> None:
    held = cache()
    results = await asyncio.gather(*(held.enter("a", failing) for _ in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [OSError] * 3
    assert (await held.enter("a", made)).users == 1


@pytest.mark.parametrize("turns", range(6))
async def test_who_stops_waiting_leaves_nothing_behind(turns: int) -> None:
    held = cache(limit_bytes=0)
    one, two = (asyncio.create_task(held.enter("a", made)) for _ in range(2))
    for _ in range(turns):
        await asyncio.sleep(0)
    one.cancel()
    results = await asyncio.gather(one, two, return_exceptions=True)
    left = [entry for entry in results if not isinstance(entry, BaseException)]
    assert left
    for entry in left:
        held.leave(entry)
    await held.discarded()
    assert left[0].held.discarded == 1
    assert held.statistics().size_bytes == 0


async def test_what_is_offered_is_found_and_a_second_one_is_discarded() -> None:
    held = cache()
    first, second = Thing(), Thing()
    held.offer("a", first)
    held.offer("a", second)
    await held.discarded()
    entry = held.enter_nowait("a")
    assert entry is not None
    assert entry.held is first
    assert second.discarded == 1


async def test_what_was_made_after_it_was_forgotten_does_not_hide_what_was_made_since() -> None:
    cache = HeldCache[Thing](100)
    slow: asyncio.Future[Thing] = asyncio.get_running_loop().create_future()

    async def made_slowly() -> Thing:
        return await slow

    first = asyncio.create_task(cache.enter("a", made_slowly))
    await asyncio.sleep(0)
    cache.forget(lambda _: True)

    async def made_anew() -> Thing:
        return new

    old, new = Thing(10), Thing(20)
    second = await cache.enter("a", made_anew)
    slow.set_result(old)
    assert (await first).held is old
    assert cache.enter_nowait("a") is second
    cache.leave(await first)
    await cache.discarded()
    assert cache.statistics().size_bytes == 20
