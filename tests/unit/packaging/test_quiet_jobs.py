"""Work in the background: one piece at a time, what is asked for first, each piece once."""

import asyncio

from stoker.packaging import quiet_jobs
from stoker.packaging.quiet_jobs import JOBS_WAITING_MAX, QuietJobs


class Work:
    def __init__(self) -> None:
        self.begun: list[str] = []
        self.most = self.running = 0
        self.fails: set[str] = set()
        self.hold = asyncio.Event()
        self.hold.set()

    async def run(self, key: str) -> None:
        self.begun.append(key)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.hold.wait()
            if key in self.fails:
                raise OSError(key)
        finally:
            self.running -= 1


async def test_what_is_asked_for_goes_before_what_waits_for_quiet() -> None:
    work = Work()
    jobs = QuietJobs(work.run)
    for key in ("a", "b", "c"):
        jobs.when_quiet(key)
    jobs.now("b")
    jobs.now("b")
    await jobs.idle()
    assert work.begun == ["b", "a", "c"]
    assert work.most == 1
    assert jobs.statistics().done == 3


async def test_nothing_that_waits_begins_before_it_is_quiet() -> None:
    work = Work()
    jobs = QuietJobs(work.run)
    jobs.when_quiet("a")
    await asyncio.sleep(quiet_jobs.QUIET_S * 0.7)
    jobs.when_quiet("b")
    await asyncio.sleep(quiet_jobs.QUIET_S * 0.7)
    assert work.begun == []
    await jobs.idle()
    assert work.begun == ["a", "b"]


async def test_each_is_done_once_also_when_it_fails() -> None:
    work = Work()
    work.fails = {"a"}
    jobs = QuietJobs(work.run)
    jobs.now("a")
    await jobs.idle()
    jobs.now("a")
    jobs.when_quiet("a")
    await jobs.idle()
    assert work.begun == ["a"]
    assert (jobs.statistics().done, jobs.statistics().failed) == (0, 1)
    jobs.again("a")
    jobs.now("a")
    await jobs.idle()
    assert work.begun == ["a", "a"]


async def test_what_is_forgotten_ends_and_the_next_begins() -> None:
    work = Work()
    work.hold.clear()
    jobs = QuietJobs(work.run)
    for key in ("a", "b", "c"):
        jobs.now(key)
    await asyncio.sleep(0)
    jobs.forget(lambda key: key in "ab")
    work.hold.set()
    await jobs.idle()
    assert work.begun == ["a", "c"]
    assert jobs.statistics().done == 1


async def test_what_waits_is_bounded_and_closing_leaves_it() -> None:
    work = Work()
    work.hold.clear()
    jobs = QuietJobs(work.run)
    for number in range(JOBS_WAITING_MAX + 3):
        jobs.now(str(number))
    assert jobs.statistics().waiting == JOBS_WAITING_MAX + 1
    assert jobs.statistics().dropped == 2
    await jobs.close()
    jobs.now("late")
    assert work.running == 0
    assert len(work.begun) <= 1
