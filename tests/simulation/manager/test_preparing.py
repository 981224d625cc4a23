"""Sandboxes that are made before anybody asks for them, over pretended workers, in virtual time."""

import asyncio

import msgspec

from stoker.manager.manager import LocalWorkerManager
from stoker.services.functions import FunctionVersion
from stoker.services.manager import Reservation
from stoker.services.worker import InitFailed, SandboxReference
from tests.simulation.frontend.virtual_time import run_virtually
from tests.simulation.frontend.world import PretendWorker, version_of
from tests.simulation.manager.test_manager import manager_over

F = version_of("f")


async def taken(manager: LocalWorkerManager) -> tuple[Reservation, bool]:
    """A sandbox as the front end takes one, and whether the caller had to wait for it."""
    reservation = manager.reserve(F)
    return (reservation, False) if reservation is not None else (await manager.place(F), True)


def test_a_lone_caller_has_one_sandbox() -> None:
    async def story() -> None:
        worker = PretendWorker()
        manager = manager_over(worker, proactive=True)
        for _ in range(5):
            reservation, _ = await taken(manager)
            await asyncio.sleep(1)
            manager.release(reservation, healthy=True)
        assert worker.created == 1
        await manager.close(0.0)

    run_virtually(story())


def test_rising_concurrency_finds_the_next_sandbox_warm() -> None:
    async def story(*, proactive: bool) -> list[bool]:
        worker = PretendWorker(create_s=0.2)
        manager = manager_over(worker, proactive=proactive)
        waited: list[bool] = []
        for _ in range(6):
            waited.append((await taken(manager))[1])
            await asyncio.sleep(1)
        assert worker.created == 6 + proactive
        if proactive:
            statistics = manager.statistics()
            assert (statistics.proactive_made, statistics.proactive_used) == (5, 4)
        await manager.close(0.0)
        return waited

    assert run_virtually(story(proactive=False)) == [True] * 6
    assert run_virtually(story(proactive=True)) == [True, True, False, False, False, False]


def test_a_burst_makes_one_more_than_it_needs() -> None:
    async def story() -> None:
        worker = PretendWorker()
        manager = manager_over(worker, proactive=True)
        await asyncio.gather(*(manager.place(F) for _ in range(20)))
        await asyncio.sleep(1)
        assert worker.created == 21
        await manager.close(0.0)

    run_virtually(story())


def test_nothing_is_evicted_for_a_sandbox_that_nobody_asked_for() -> None:
    async def story() -> None:
        worker = PretendWorker(memory_total_mb=3 * F.memory_mb)
        manager = manager_over(worker, proactive=True)
        other = await manager.place(version_of("g"))
        manager.release(other, healthy=True)
        await asyncio.gather(manager.place(F), manager.place(F))
        await asyncio.sleep(5)
        assert worker.created == 3
        assert manager.statistics().retired_evicted == 0
        await manager.close(0.0)

    run_virtually(story())


def test_provisioned_sandboxes_are_made_kept_and_replaced() -> None:
    async def story() -> None:
        worker = PretendWorker()
        manager = manager_over(worker)
        manager.provision(F, 5)
        assert manager.provisioned(F).available == 0
        await asyncio.sleep(2)
        assert manager.provisioned(F).available == 5
        await asyncio.sleep(3 * 3600)
        assert len(worker.live) == 5, "idle for hours, and still there"
        worker.lose(next(iter(worker.live)))
        assert manager.provisioned(F).available == 4
        await asyncio.sleep(2)
        assert manager.provisioned(F).available == 5
        reservation = manager.reserve(F)
        assert reservation is not None
        manager.provision(F, 2)
        assert manager.provisioned(F).available == 2
        manager.provision(F, 0)
        assert manager.provisioned(F).available == 0
        await asyncio.sleep(1)
        assert len(worker.live) == 1, "the busy one ends with its invocation"
        manager.release(reservation, healthy=True)
        await asyncio.sleep(1)
        assert not worker.live
        await manager.close(0.0)

    run_virtually(story())


class FailingInit(PretendWorker):
    """Init fails until it is mended."""

    broken = True
    attempts = 0

    async def create(self, function: FunctionVersion, *, provisioned: bool = False) -> SandboxReference:
        assert provisioned
        self.attempts += 1
        if self.broken:
            raise InitFailed("it raises")
        return await super().create(function, provisioned=provisioned)


def test_an_init_that_fails_is_told_and_tried_again_ever_more_slowly() -> None:
    async def story() -> None:
        worker = FailingInit()
        manager = manager_over(worker)
        manager.provision(F, 2)
        await asyncio.sleep(600)
        assert manager.provisioned(F).failure == "it raises"
        assert 10 < worker.attempts < 25
        worker.broken = False
        await asyncio.sleep(120)
        provisioned = manager.provisioned(F)
        assert (provisioned.available, provisioned.failure) == (2, None)
        await manager.close(0.0)

    run_virtually(story())


def test_what_is_forgotten_while_it_is_being_provisioned_does_not_stay() -> None:
    async def story() -> None:
        worker = PretendWorker(create_s=1.0)
        manager = manager_over(worker)
        manager.provision(F, 2)
        await asyncio.sleep(0.5)
        manager.provision(F, 0)
        await asyncio.sleep(5)
        assert not worker.live
        await manager.close(0.0)

    run_virtually(story())


def test_idle_sandboxes_make_room_for_provisioned_ones() -> None:
    async def story() -> None:
        worker = PretendWorker(memory_total_mb=2 * F.memory_mb)
        manager = manager_over(worker)
        idle = await manager.place(msgspec.structs.replace(version_of("g"), memory_mb=2 * F.memory_mb))
        manager.release(idle, healthy=True)
        manager.provision(F, 2)
        await asyncio.sleep(30)
        assert manager.provisioned(F).available == 2
        await manager.close(0.0)

    run_virtually(story())
