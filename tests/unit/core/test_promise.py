"""Promises: told at once, settled once, awaited and cancelled like futures."""

import asyncio

import pytest

from stoker.core.promise import Promise, promise_of


def test_callbacks_are_told_in_the_call_that_settles_and_later_ones_at_once() -> None:
    promise: Promise[int] = Promise()
    told: list[int] = []
    promise.when_done(lambda done: told.append(done.result()))
    assert told == []
    promise.succeed(1)
    assert told == [1]
    promise.when_done(lambda done: told.append(done.result() + 1))
    assert told == [1, 2]


def test_the_first_end_counts() -> None:
    promise: Promise[int] = Promise()
    promise.cancel()
    promise.succeed(1)
    promise.fail(ValueError())
    assert promise.cancelled
    with pytest.raises(asyncio.CancelledError):
        promise.result()


def test_a_callback_that_fails_keeps_nothing_from_the_others() -> None:
    async def story() -> None:
        reported: list[BaseException] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, what: reported.append(what["exception"]))
        promise: Promise[int] = Promise()
        told: list[bool] = []
        promise.when_done(lambda _: 1 // 0)
        promise.when_done(lambda done: told.append(done.done))
        promise.succeed(1)
        assert told == [True]
        assert [type(error) for error in reported] == [ZeroDivisionError]

    asyncio.run(story())


def test_it_is_awaited_by_tasks_and_follows_coroutines() -> None:
    async def seven() -> int:
        await asyncio.sleep(0)
        return 7

    async def wrong() -> int:
        raise ValueError("wrong")

    async def story() -> None:
        assert await promise_of(seven()) == 7
        with pytest.raises(ValueError, match="wrong"):
            await promise_of(wrong())
        promise: Promise[int] = Promise()
        assert promise_of(promise) is promise
        waiting = [asyncio.ensure_future(promise) for _ in range(2)]
        await asyncio.sleep(0)
        promise.succeed(3)
        assert await asyncio.gather(*waiting) == [3, 3]

    asyncio.run(story())


def test_cancelling_a_promise_that_follows_a_task_ends_the_task_first() -> None:
    async def story() -> None:
        ended: list[str] = []

        async def work() -> None:
            try:
                await asyncio.sleep(60)
            finally:
                ended.append("work")

        promise = promise_of(work())
        promise.when_done(lambda _: ended.append("promise"))
        await asyncio.sleep(0)
        promise.cancel()
        assert not promise.done
        await asyncio.sleep(0.01)
        assert promise.cancelled
        assert ended == ["work", "promise"]

    asyncio.run(story())


def test_what_a_cancelled_task_could_not_take_is_given_back() -> None:
    async def story() -> None:
        unclaimed: list[int] = []
        promise: Promise[int] = Promise(unclaimed.append)
        waiting = asyncio.ensure_future(promise)
        await asyncio.sleep(0)
        promise.succeed(5)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert unclaimed == [5]

    asyncio.run(story())


def test_a_task_that_is_cancelled_cancels_what_it_awaits() -> None:
    async def story() -> None:
        promise: Promise[int] = Promise()
        waiting = asyncio.ensure_future(promise)
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert promise.cancelled

    asyncio.run(story())
