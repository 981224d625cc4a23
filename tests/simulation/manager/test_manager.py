"""The worker manager over pretended workers, in virtual time: placing, waiting, evicting, reclaiming."""

import asyncio

import pytest

from stoker.core.errors import ServiceError
from stoker.manager.manager import LocalWorkerManager
from stoker.manager.pool import PoolLimits
from stoker.placement.policy import DensePacking
from stoker.services.functions import FunctionVersion
from stoker.services.manager import Reservation
from stoker.services.worker import RuntimeUnavailable, SandboxReference, WorkerUnavailable
from tests.simulation.frontend.virtual_time import LoopClock, run_virtually
from tests.simulation.frontend.world import PretendWorker, version_of

F, G = version_of("f"), version_of("g")
DAY_S = 86_400.0


def manager_over(
    *workers: PretendWorker, limits: PoolLimits | None = None, proactive: bool = False
) -> LocalWorkerManager:
    reached = {worker.worker_id: worker for worker in workers}
    return LocalWorkerManager(reached, DensePacking(), LoopClock(), limits=limits, proactive=proactive)


class ShortOfMemory(PretendWorker):
    """Promised memory is free, the host's is not while more than one sandbox lives."""

    async def create(self, function: FunctionVersion, *, provisioned: bool = False) -> SandboxReference:
        if len(self.live) > 1:
            raise WorkerUnavailable("the host is short of memory")
        return await super().create(function, provisioned=provisioned)


class StubbornWorker(PretendWorker):
    """Says it has room, and refuses."""

    async def create(self, function: FunctionVersion, *, provisioned: bool = False) -> SandboxReference:
        raise WorkerUnavailable("the driver is down")


def test_everybody_who_misses_places_their_own() -> None:
    async def story() -> None:
        worker = PretendWorker()
        manager = manager_over(worker)
        reservations = await asyncio.gather(*(manager.place(F) for _ in range(20)))
        assert len({reservation.sandbox.sandbox_id for reservation in reservations}) == 20
        assert all(reservation.cold for reservation in reservations)
        await manager.close(0.0)

    run_virtually(story())


def test_who_waits_for_a_cold_start_takes_what_is_given_back_first() -> None:
    async def story() -> None:
        worker = PretendWorker(create_s=0.1)
        manager = manager_over(worker)
        first = await manager.place(F)
        worker.create_s = 5.0
        waiting = asyncio.ensure_future(manager.place(F))
        await asyncio.sleep(1)
        manager.release(first, healthy=True)
        second = await waiting
        assert second.sandbox.sandbox_id == first.sandbox.sandbox_id
        assert second.sandbox.epoch == first.sandbox.epoch + 1
        assert not second.cold
        assert manager.waiting() == 0
        await asyncio.sleep(5)
        assert manager.statistics().idle == 1, "the sandbox that was being made is kept warm"
        manager.release(second, healthy=True)
        assert manager.statistics().idle == 2
        await manager.close(0.0)

    run_virtually(story())


def test_the_first_to_come_is_served_first() -> None:
    async def story() -> None:
        worker = PretendWorker(create_s=0.1)
        manager = manager_over(worker)
        held = await manager.place(F)
        worker.create_s = 5.0
        served: list[int] = []

        async def caller(number: int) -> Reservation:
            reservation = await manager.place(F)
            served.append(number)
            return reservation

        callers = [asyncio.create_task(caller(number)) for number in range(3)]
        await asyncio.sleep(1)
        manager.release(held, healthy=True)
        await asyncio.gather(*callers)
        assert served == [0, 1, 2]
        await asyncio.sleep(5)
        assert manager.statistics().idle == 1
        assert manager.statistics().busy == 3
        await manager.close(0.0)

    run_virtually(story())


def test_an_unhealthy_one_is_not_passed_on() -> None:
    async def story() -> None:
        worker = PretendWorker(create_s=0.1)
        manager = manager_over(worker)
        first = await manager.place(F)
        waiting = asyncio.ensure_future(manager.place(F))
        await asyncio.sleep(0)
        manager.release(first, healthy=False)
        assert (await waiting).sandbox.sandbox_id != first.sandbox.sandbox_id
        await manager.close(0.0)

    run_virtually(story())


def test_a_caller_who_gives_up_leaves_a_warm_sandbox_behind() -> None:
    async def story() -> None:
        manager = manager_over(PretendWorker(create_s=1.0))
        waiting = asyncio.ensure_future(manager.place(F))
        await asyncio.sleep(0.5)
        waiting.cancel()
        await asyncio.sleep(1)
        assert manager.statistics().idle == 1
        assert manager.waiting() == 0
        await manager.close(0.0)

    run_virtually(story())


def test_a_caller_who_gives_up_in_the_turn_of_its_success_returns_the_sandbox() -> None:
    async def story() -> None:
        worker = PretendWorker(create_s=0.1)
        manager = manager_over(worker)
        held = await manager.place(F)
        worker.create_s = 5.0
        waiting = asyncio.ensure_future(manager.place(F))
        await asyncio.sleep(1)
        manager.release(held, healthy=True)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert (manager.statistics().idle, manager.statistics().busy) == (1, 0)
        await manager.close(0.0)

    run_virtually(story())


def test_idle_sandboxes_of_others_make_room() -> None:
    async def story() -> None:
        worker = PretendWorker(memory_total_mb=256)
        manager = manager_over(worker)
        for function in (F, G):
            manager.release(await manager.place(function), healthy=True)
            await asyncio.sleep(1)
        placed = await manager.place(version_of("h"))
        assert placed.cold
        assert manager.reserve(F) is None, "the least recently used went"
        assert manager.reserve(G) is not None
        assert manager.statistics().retired_evicted == 1
        await manager.close(0.0)

    run_virtually(story())


def test_idle_sandboxes_go_first_when_the_host_itself_runs_short() -> None:
    async def story() -> None:
        worker = ShortOfMemory()
        manager = manager_over(worker)
        for function in (F, G):
            manager.release(await manager.place(function), healthy=True)
            await asyncio.sleep(1)
        assert (await manager.place(version_of("h"))).cold
        assert manager.reserve(F) is None, "the least recently used went"
        assert manager.reserve(G) is not None
        assert manager.statistics().retired_evicted == 1
        await manager.close(0.0)

    run_virtually(story())


def test_room_that_is_being_freed_is_waited_for() -> None:
    async def story() -> None:
        worker = PretendWorker(memory_total_mb=128, shutdown_s=2.0)
        manager = manager_over(worker)
        manager.release(await manager.place(F), healthy=False)
        started_s = LoopClock().now_s()
        assert (await manager.place(F)).cold
        assert 2.0 <= LoopClock().now_s() - started_s < 2.3
        await manager.close(0.0)

    run_virtually(story())


def test_without_room_the_caller_is_told_to_try_again() -> None:
    async def story() -> None:
        worker = PretendWorker(memory_total_mb=128)
        manager = manager_over(worker)
        held = await manager.place(F)
        with pytest.raises(ServiceError) as refused:
            await manager.place(G)
        assert refused.value.code == "ServiceException"
        assert "128 MB" in refused.value.message
        assert manager.statistics().placing == 0
        assert manager.waiting() == 0
        manager.release(held, healthy=True)
        await manager.place(G)
        await manager.close(0.0)

    run_virtually(story())


def test_without_room_a_caller_still_takes_what_is_given_back() -> None:
    async def story() -> None:
        manager = manager_over(PretendWorker(memory_total_mb=128))
        held = await manager.place(F)
        waiting = asyncio.ensure_future(manager.place(F))
        await asyncio.sleep(1)
        manager.release(held, healthy=True)
        assert not (await waiting).cold
        await asyncio.sleep(0.3)
        assert manager.statistics().placing == 0, "the placement nobody wants any more was given up"
        await manager.close(0.0)

    run_virtually(story())


def test_a_worker_that_refuses_is_passed_over() -> None:
    async def story() -> None:
        stubborn, willing = StubbornWorker("a"), PretendWorker("b")
        manager = manager_over(stubborn, willing)
        assert (await manager.place(F)).sandbox.worker_id == "b"
        await manager.close(0.0)

    run_virtually(story())


def test_why_the_last_worker_refused_is_for_the_operator(capsys: pytest.CaptureFixture[str]) -> None:
    async def story() -> None:
        manager = manager_over(StubbornWorker("a"))
        with pytest.raises(ServiceError, match="No worker has room") as refused:
            await manager.place(F)
        assert refused.value.code == "ServiceException"
        assert "the driver is down" not in refused.value.message
        assert "the driver is down" in capsys.readouterr().out
        await manager.close(0.0)

    run_virtually(story())


def test_a_missing_runtime_is_told_as_it_is() -> None:
    async def story() -> None:
        worker = PretendWorker()
        worker.refuse_runtime = "python3.11"
        manager = manager_over(worker)
        with pytest.raises(RuntimeUnavailable):
            await manager.place(F)
        assert manager.statistics().placing == 0
        await manager.close(0.0)

    run_virtually(story())


def test_over_the_scaling_rate_callers_are_throttled() -> None:
    async def story() -> None:
        manager = manager_over(PretendWorker())
        results = await asyncio.gather(*(manager.place(F) for _ in range(1005)), return_exceptions=True)
        refused = [result for result in results if isinstance(result, ServiceError)]
        assert len(refused) == 5
        assert {error.code for error in refused} == {"TooManyRequestsException"}
        await asyncio.sleep(0.1)
        assert (await manager.place(F)).cold
        await manager.close(0.0)

    run_virtually(story())


def test_new_sandboxes_go_where_the_load_is_and_spread_when_it_is_full() -> None:
    async def story() -> None:
        workers = [PretendWorker(name, memory_total_mb=1024) for name in ("a", "b", "c")]
        manager = manager_over(*workers)
        placed = [(await manager.place(F)).sandbox.worker_id for _ in range(20)]
        assert placed[:7] == ["a"] * 7
        assert set(placed) == {"a", "b", "c"}
        assert all(worker.reserved_mb <= 1024 for worker in workers)
        await manager.close(0.0)

    run_virtually(story())


def test_idle_sandboxes_are_reclaimed_after_ten_minutes_and_the_timer_rests_then() -> None:
    async def story() -> None:
        worker = PretendWorker()
        manager = manager_over(worker)
        reservations = await asyncio.gather(*(manager.place(F) for _ in range(5)))
        for reservation in reservations:
            manager.release(reservation, healthy=True)
        await asyncio.sleep(590)
        kept = manager.reserve(F)
        assert kept is not None
        manager.release(kept, healthy=True)
        await asyncio.sleep(20)
        assert list(worker.live) == [kept.sandbox.sandbox_id]
        await asyncio.sleep(600)
        assert not worker.live
        assert manager.statistics().retired_idle == 5
        assert manager._timer is None
        await manager.close(0.0)

    run_virtually(story())


def test_fourteen_hours_end_a_sandbox_that_is_never_idle_for_long() -> None:
    async def story() -> None:
        worker = PretendWorker()
        manager = manager_over(worker)
        slow = version_of("slow", timeout_s=900)
        reservation = await manager.place(slow)
        names: list[str] = []
        for _ in range(2 * 24 * 6):
            await asyncio.sleep(300)
            manager.release(reservation, healthy=True)
            await asyncio.sleep(300)
            again = manager.reserve(slow)
            reservation = again if again is not None else await manager.place(slow)
            names.append(reservation.sandbox.sandbox_id)
        lives = [names.count(name) * 600.0 for name in dict.fromkeys(names)]
        assert len(lives) == 4
        assert max(lives) <= 14 * 3600.0
        assert min(lives[:-1]) >= 13 * 3600.0
        await manager.close(0.0)

    run_virtually(story())


def test_more_callers_than_sandboxes_for_long_are_all_served_in_turn() -> None:
    async def story() -> None:
        manager = manager_over(PretendWorker(sandboxes_max=8))
        served = 0

        async def calls_again_and_again() -> None:
            nonlocal served
            for _ in range(1000):
                reservation = manager.reserve(F) or await manager.place(F)
                await asyncio.sleep(0.003)
                manager.release(reservation, healthy=True)
                served += 1
                await asyncio.sleep(0)

        await asyncio.gather(*(calls_again_and_again() for _ in range(32)))
        assert served == 32_000
        assert manager.statistics().throttled == 0
        assert manager.waiting() == 0
        await manager.close(0.0)

    run_virtually(story())


def test_who_waits_too_long_is_told_after_three_seconds_each() -> None:
    async def story() -> None:
        manager = manager_over(PretendWorker(sandboxes_max=1))
        held = await manager.place(F)
        begun_s = LoopClock().monotonic_s()
        ended_s: list[float] = []

        async def asks(after_s: float) -> None:
            await asyncio.sleep(after_s)
            with pytest.raises(ServiceError, match="No worker has room"):
                await manager.place(F)
            ended_s.append(LoopClock().monotonic_s() - begun_s)

        await asyncio.gather(asks(0.0), asks(1.0), asks(2.0))
        assert ended_s == pytest.approx([3.0, 4.0, 5.0], abs=0.2)
        manager.release(held, healthy=True)
        await manager.close(0.0)

    run_virtually(story())


def test_without_room_callers_queue_behind_one_maker_and_all_get_theirs_once_there_is_room() -> None:
    async def story() -> None:
        worker = PretendWorker(sandboxes_max=1, create_s=0.01)
        manager = manager_over(worker)
        held = await manager.place(F)
        callers = [asyncio.ensure_future(manager.place(F)) for _ in range(10)]
        await asyncio.sleep(0.5)
        assert manager.waiting() == 10
        assert manager.statistics().placing == 1
        worker.sandboxes_max = 5
        await asyncio.sleep(0.2)
        assert sum(caller.done() for caller in callers) == 4, "not one after the other"
        worker.sandboxes_max = 11
        reservations = [held, *await asyncio.gather(*callers)]
        assert len({reservation.sandbox.sandbox_id for reservation in reservations}) == 11
        assert manager.statistics().placing == 0
        await manager.close(0.0)

    run_virtually(story())


def test_those_who_queue_are_told_when_the_service_closes() -> None:
    async def story() -> None:
        manager = manager_over(PretendWorker(sandboxes_max=1))
        await manager.place(F)
        callers = [asyncio.ensure_future(manager.place(F)) for _ in range(5)]
        await asyncio.sleep(0.5)
        await manager.close(1.0)
        answers = await asyncio.gather(*callers, return_exceptions=True)
        assert all(isinstance(answer, ServiceError) for answer in answers)

    run_virtually(story())
