"""Callers who leave, sandboxes that vanish and workers that fail: what it costs, and that nothing leaks."""

import asyncio

import pytest

from stoker.core.errors import ServiceError
from stoker.services.worker import StaleReference
from stoker.transport.faulty import Fault, Faults, FaultyWorker
from tests.simulation.frontend.virtual_time import run_virtually
from tests.simulation.frontend.world import Behaviour, PretendSandbox, PretendWorker, World


def test_a_caller_who_leaves_a_warm_invocation_does_not_end_it() -> None:
    async def story() -> None:
        world = World()
        await world.create("f", reserved_concurrency=1)
        await world.invoke("f")
        world.worker.behave = lambda _f, _i: Behaviour(duration_s=10.0)
        call = asyncio.create_task(world.invoke("f"))
        await asyncio.sleep(1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert world.worker.busy == 1
        with pytest.raises(ServiceError) as refused:
            await world.invoke("f")
        assert refused.value.fields["Reason"] == "ReservedFunctionConcurrentInvocationLimitExceeded"
        assert world.frontend.statistics().in_background == 1
        await asyncio.sleep(9.5)
        world.check_nothing_leaked()
        await world.invoke("f")
        assert world.worker.created == 1, "the sandbox was not given back"
        await world.close()

    run_virtually(story())


def test_a_caller_who_leaves_before_it_is_warm_does_not_end_it_either() -> None:
    async def story() -> None:
        world = World(PretendWorker(create_s=5.0))
        await world.create("f")
        call = asyncio.create_task(world.invoke("f"))
        await asyncio.sleep(1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.sleep(5)
        assert len(world.worker.served) == 1
        world.check_nothing_leaked()
        await world.close()

    run_virtually(story())


def test_a_caller_who_leaves_as_the_result_arrives_leaks_nothing() -> None:
    async def story() -> None:
        world = World()
        await world.create("f")
        await world.invoke("f")
        end = world.worker._end

        def end_and_cancel(sandbox: PretendSandbox, behaviour: Behaviour) -> None:
            end(sandbox, behaviour)
            call.cancel()

        world.worker._end = end_and_cancel
        call = asyncio.create_task(world.invoke("f"))
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.sleep(1)
        world.check_nothing_leaked()
        await world.close()

    run_virtually(story())


def test_a_warm_sandbox_that_is_gone_costs_the_caller_a_cold_start_only() -> None:
    async def story() -> None:
        world = World()
        await world.create("f")
        await world.invoke("f")
        (name,) = world.worker.live
        world.worker.vanish(name)
        assert (await world.invoke("f")).status == 200
        assert len(world.worker.served) == 2
        world.check_nothing_leaked()
        await world.close()

    run_virtually(story())


def test_a_sandbox_that_died_idle_is_not_tried() -> None:
    async def story() -> None:
        world = World()
        await world.create("f")
        await world.invoke("f")
        (name,) = world.worker.live
        world.worker.lose(name)
        world.check_nothing_leaked()
        assert (await world.invoke("f")).status == 200
        assert world.manager.statistics().lost == 1
        await world.close()

    run_virtually(story())


def test_new_sandboxes_that_die_at_once_are_given_up_after_a_few() -> None:
    async def story() -> None:
        faults = Faults()
        world = World(wrap=lambda worker: FaultyWorker(worker, faults))
        await world.create("f")
        faults.add("invoke", Fault(error=StaleReference("gone")), times=2)
        assert (await world.invoke("f")).status == 200
        faults.add("invoke", Fault(error=StaleReference("gone")), times=4)
        with pytest.raises(ServiceError) as refused:
            await world.invoke("f")
        assert refused.value.code == "ServiceException"
        await asyncio.sleep(1)
        world.check_nothing_leaked()
        await world.close()

    run_virtually(story())


def test_a_duplicated_message_runs_once() -> None:
    async def story() -> None:
        faults = Faults()
        world = World(wrap=lambda worker: FaultyWorker(worker, faults))
        await world.create("f")
        await world.invoke("f")
        faults.add("retire", Fault(duplicate=True), times=9)
        world.worker.behave = lambda _f, _i: Behaviour(healthy=False)
        await world.invoke("f")
        await asyncio.sleep(1)
        assert not world.worker.live
        assert world.worker.reserved_mb == 0
        await world.close()

    run_virtually(story())


def test_a_worker_of_which_nobody_knows_is_a_service_error_and_leaks_nothing() -> None:
    async def story() -> None:
        faults = Faults()
        world = World(wrap=lambda worker: FaultyWorker(worker, faults))
        await world.create("f")
        await world.invoke("f")
        faults.add("invoke", Fault(error=OSError("connection lost")))
        with pytest.raises(OSError, match="connection lost"):
            await world.invoke("f")
        await asyncio.sleep(1)
        world.check_nothing_leaked()
        assert (await world.invoke("f")).status == 200
        await world.close()

    run_virtually(story())


def test_a_runtime_that_no_worker_has() -> None:
    async def story() -> None:
        world = World()
        world.worker.refuse_runtime = "python3.11"
        await world.create("f")
        with pytest.raises(ServiceError) as refused:
            await world.invoke("f")
        assert refused.value.code == "InvalidRuntimeException"
        assert "python3.11 is not here" in refused.value.message
        world.check_nothing_leaked()
        await world.close()

    run_virtually(story())
