"""Deadlines that are set again and again: only the last one set comes, at its time."""

import asyncio

from stoker.worker.deadline import Deadline


def test_only_the_deadline_set_last_comes_and_not_before_its_time() -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        came: list[tuple[str, float]] = []
        deadline = Deadline(loop)

        def set_deadline(name: str, after_s: float) -> None:
            due_s = loop.time() + after_s
            deadline.set(after_s, lambda: came.append((name, loop.time() - due_s)))

        set_deadline("replaced", 0.01)
        deadline.clear()
        assert not deadline.is_set
        set_deadline("later", 0.03)
        await asyncio.sleep(0.02)
        assert came == []
        await asyncio.sleep(0.03)
        set_deadline("long", 60)
        set_deadline("shorter", 0.01)
        assert deadline.is_set
        await asyncio.sleep(0.03)
        assert not deadline.is_set
        assert [name for name, _ in came] == ["later", "shorter"]
        assert all(late_s >= -0.001 for _, late_s in came)

    asyncio.run(story())


def test_nothing_comes_once_it_is_cleared_or_closed() -> None:
    async def story() -> None:
        came: list[str] = []
        cleared, closed = (Deadline(asyncio.get_running_loop()) for _ in range(2))
        cleared.set(0.01, lambda: came.append("cleared"))
        closed.set(0.01, lambda: came.append("closed"))
        cleared.clear()
        closed.close()
        await asyncio.sleep(0.03)
        assert came == []
        closed.set(0.001, lambda: came.append("again"))
        await asyncio.sleep(0.02)
        assert came == ["again"]

    asyncio.run(story())
