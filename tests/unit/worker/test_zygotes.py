"""When a zygote is started, replaced, retired and given up, over the fake driver."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from stoker.core.clock import ManualClock
from stoker.runtimes.catalog import RuntimePlan
from stoker.sandbox.driver import Exit, Launch
from stoker.sandbox.fake import FakeDriver, FakeSandbox, FakeScript
from stoker.worker.statistics import WorkerStatistics
from stoker.worker.tasks import Background
from stoker.worker.zygotes import AGE_MAX_S, FORKS_MAX, IDLE_MAX_S, RETRY_FIRST_S, Zygotes

NOTHING: Mapping[str, Path] = {}
PLAN = RuntimePlan("python3.11", ("python",), {"A": "1"}, NOTHING, forks=True)


async def forks_for_ever(sandbox: FakeSandbox, launch: Launch) -> Exit:
    await asyncio.Event().wait()
    raise AssertionError


class Bench:
    def __init__(self, program: bool = True) -> None:
        self.script = FakeScript()
        self.driver = FakeDriver({"python": forks_for_ever} if program else {}, self.script)
        self.clock = ManualClock()
        self.statistics = WorkerStatistics()
        self.background = Background()
        self.zygotes = Zygotes(
            cpu_policy="quota",
            driver=self.driver,
            clock=self.clock,
            statistics=self.statistics,
            background=self.background,
        )

    async def close(self) -> None:
        self.zygotes.close()
        await self.background.wait()
        assert self.driver.sandboxes == {}


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_one_serves_until_it_has_forked_enough() -> None:
    bench = Bench()
    taken = [await bench.zygotes.take(PLAN) for _ in range(FORKS_MAX + 1)]
    assert len({zygote.name for zygote in taken if zygote}) == 2
    first, second = taken[0], taken[-1]
    assert first is not None
    assert second is not None
    assert (first.retired, second.retired) == (True, False)
    await settle()
    assert bench.statistics.zygotes == 2  # its children live: what they show of their files is in its mounts
    for _ in range(FORKS_MAX):
        bench.zygotes.child_gone(first)
    await settle()
    assert bench.statistics.zygotes == 1
    assert bench.statistics.zygote_failures == 0
    await bench.close()


async def test_a_changed_bootstrap_or_old_age_gets_another() -> None:
    bench = Bench()
    one = await bench.zygotes.take(PLAN)
    changed = msgspec.structs.replace(PLAN, environment={"A": "2"})
    two = await bench.zygotes.take(changed)
    assert one is not two
    bench.clock.advance(AGE_MAX_S)
    assert await bench.zygotes.take(changed) is not two
    await bench.close()


async def test_an_unwanted_one_goes() -> None:
    bench = Bench()
    zygote = await bench.zygotes.take(PLAN)
    assert zygote is not None
    bench.zygotes.child_gone(zygote)
    assert bench.zygotes.sweep()
    bench.clock.advance(IDLE_MAX_S)
    assert not bench.zygotes.sweep()
    await settle()
    assert bench.driver.sandboxes == {}
    await bench.close()


async def test_what_cannot_fork_has_none() -> None:
    bench = Bench()
    assert await bench.zygotes.take(msgspec.structs.replace(PLAN, forks=False)) is None
    await bench.close()


@pytest.mark.parametrize("failure", ["create_error", "launch_error"])
async def test_failures_are_not_repeated_at_once(failure: str) -> None:
    bench = Bench()
    setattr(bench.script, failure, "no")
    assert await bench.zygotes.take(PLAN) is None
    setattr(bench.script, failure, "")
    assert await bench.zygotes.take(PLAN) is None
    assert bench.statistics.zygote_failures == 1
    assert bench.zygotes.troubles == {"python3.11": "no"}
    bench.clock.advance(RETRY_FIRST_S)
    zygote = await bench.zygotes.take(PLAN)
    assert zygote is not None
    bench.zygotes.succeeded(zygote)
    assert bench.zygotes.troubles == {}
    await bench.close()


async def test_one_that_ends_by_itself_is_a_failure() -> None:
    bench = Bench(program=False)
    assert await bench.zygotes.take(PLAN) is not None
    await settle()
    assert bench.statistics.zygote_failures == 1
    assert bench.statistics.zygotes == 0
    assert await bench.zygotes.take(PLAN) is None
    await bench.close()


async def test_a_child_that_did_not_come_to_life_costs_the_zygote() -> None:
    bench = Bench()
    zygote = await bench.zygotes.take(PLAN)
    assert zygote is not None
    bench.zygotes.gave_up(zygote)
    bench.zygotes.child_gone(zygote)
    await settle()
    assert bench.driver.sandboxes == {}
    assert bench.statistics.zygote_failures == 1
    await bench.close()
