"""Pools in virtual time: filled behind, taken at once, given up where they cannot be had."""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from stoker.sandbox.driver import Exit, MountPoint
from stoker.worker.pool import PATIENCE_S, POOLED_MEMORY_MB, READY_WITHIN_S
from stoker.worker.pooling import KEEP_S
from tests.simulation.worker.scripted import Runtime, ScriptedDriver, ScriptedSandbox, echo
from tests.simulation.worker.test_life import FUNCTION, World, play, world
from tests.simulation.worker.virtual_time import run

POOL_MB = 64


async def pooled_echo(runtime: Runtime) -> None:
    """The well-behaved function, wherever its sandbox comes from."""
    await runtime.assigned()
    await echo(runtime)


def play_pooled(
    test: Callable[[World], Awaitable[None]], *scripts: Callable[[Runtime], Awaitable[None]]
) -> World:
    return play(test, *(scripts or (pooled_echo,)), pool_memory_mb=POOL_MB)


def pooled(world: World) -> int:
    return len([each for each in world.agent.sandboxes() if each.state == "pooled"])


def waiting(world: World) -> list[ScriptedSandbox]:
    """The pool's sandboxes, oldest first."""
    names = {each.sandbox_id for each in world.agent.sandboxes() if each.state == "pooled"}
    return [each for each in world.driver.sandboxes if each.sandbox_id in names]


async def warmed(world: World) -> None:
    """A first cold start, which finds an empty pool, and time to fill it."""
    sandbox = await world.create()
    assert (await world.invoke(sandbox)).payload == b"1"
    world.agent.retire(sandbox)
    await asyncio.sleep(2)
    assert pooled(world) == 2


def test_the_second_cold_start_takes_what_was_made_behind_the_first() -> None:
    async def test(world: World) -> None:
        await warmed(world)
        statistics = world.agent.statistics
        assert (statistics.pool_hits, statistics.pool_misses, statistics.pool_size) == (0, 1, 2)
        taken = waiting(world)[0]
        assert taken.limits[-1].memory_mb == POOLED_MEMORY_MB
        assert MountPoint.TASK not in taken.mounts
        sandbox = await world.create()
        assert MountPoint.TASK in taken.mounts
        assert taken.limits[-1].memory_mb == 128
        assert (await world.invoke(sandbox)).payload == b"1"
        assert statistics.pool_hits == 1
        assert pooled(world) == 1
        await asyncio.sleep(2)
        assert pooled(world) == 2

    play_pooled(test)


def test_configured_runtimes_are_there_before_their_first_use() -> None:
    async def main() -> None:
        driver = ScriptedDriver(pooled_echo)
        async with world(driver, pool_memory_mb=256, pool_runtimes=("python3.11", "provided.al2023")) as made:
            await made.agent.warm()
            await asyncio.sleep(2)
            kinds = sorted(each.function_arn for each in made.agent.sandboxes())
            assert kinds == ["provided", "provided", "python3.11", "python3.11"]
            assert (await made.invoke(await made.create())).payload == b"1"
            assert made.agent.statistics.pool_hits == 1

    run(main())


def test_what_needs_a_process_of_its_own_takes_a_bare_sandbox() -> None:
    async def main() -> None:
        driver = ScriptedDriver(pooled_echo)
        async with world(driver, pool_memory_mb=POOL_MB, pool_runtimes=("provided",)) as made:
            await made.agent.warm()
            await asyncio.sleep(2)
            (first, _) = waiting(made)
            function = msgspec.structs.replace(FUNCTION, environment={"PYTHONPATH": "/tmp"})
            sandbox = await made.agent.create(function)
            assert (await made.invoke(sandbox)).payload == b"1"
            assert MountPoint.TASK in first.mounts
            assert made.agent.statistics.pool_hits == 1

    run(main())


def test_pooled_sandboxes_count_for_nobody() -> None:
    async def test(world: World) -> None:
        await warmed(world)
        snapshot = world.agent.snapshot()
        assert (snapshot.sandboxes, snapshot.memory_reserved_mb) == (0, 0)

    play_pooled(test)


def test_a_full_worker_has_no_pool() -> None:
    async def test(world: World) -> None:
        for _ in range(4):
            await world.create()
        await asyncio.sleep(30)
        assert pooled(world) == 0

    play_pooled(test)


def test_a_pooled_runtime_is_served_nothing_else() -> None:
    refused: list[int] = []

    async def nosy(runtime: Runtime) -> None:
        if "STOKER_POOLED" in runtime.environment:
            for method, path in (
                ("GET", "/invocation/next"),
                ("POST", "/init/error"),
                ("POST", "/invocation/x/response"),
            ):
                refused.append((await runtime.request(method, path))[0])
        await runtime.assigned()
        assert (await runtime.request("GET", "/../stoker/assignment"))[0] == 404
        await echo(runtime)

    async def test(world: World) -> None:
        sandbox = await world.create()
        assert (await world.invoke(sandbox)).payload == b"1"
        await asyncio.sleep(2)
        assert (await world.invoke(await world.create(), 2)).payload == b"1"
        assert world.agent.statistics.pool_hits == 1

    play_pooled(test, nosy)
    assert refused[:3] == [403, 403, 400]


def test_what_dies_in_the_pool_is_replaced() -> None:
    async def test(world: World) -> None:
        await warmed(world)
        victim = waiting(world)[0]
        victim.end(Exit(None, 9))
        await asyncio.sleep(0.2)
        assert world.agent.statistics.pool_lost == 1
        assert victim.destroyed
        assert pooled(world) == 1
        await asyncio.sleep(3)
        assert pooled(world) == 2
        assert world.lost == []

    play_pooled(test)


@pytest.mark.parametrize("broken", ["mount_error", "limits_error"])
def test_a_pooled_sandbox_that_cannot_be_had_is_replaced_by_a_fresh_one(broken: str) -> None:
    async def test(world: World) -> None:
        await warmed(world)
        victim = waiting(world)[0]
        setattr(world.driver, broken, True)
        sandbox = await world.create()
        setattr(world.driver, broken, False)
        assert (await world.invoke(sandbox)).payload == b"1"
        await asyncio.sleep(0.1)
        assert victim.destroyed

    play_pooled(test)


def test_a_pool_that_cannot_be_made_is_tried_again_ever_less_often() -> None:
    async def test(world: World) -> None:
        sandbox = await world.create()
        world.driver.create_errors = 1000
        await asyncio.sleep(600)
        assert 8 < world.agent.statistics.pool_failures < 20
        world.driver.create_errors = 0
        await asyncio.sleep(100)
        assert pooled(world) == 2
        assert (await world.invoke(sandbox)).payload == b"1"

    play_pooled(test)


def test_a_runtime_that_never_waits_is_given_up() -> None:
    async def deaf(runtime: Runtime) -> None:
        if "STOKER_POOLED" in runtime.environment:
            await asyncio.sleep(10_000)
        await echo(runtime)

    async def test(world: World) -> None:
        sandbox = await world.create()
        assert (await world.invoke(sandbox)).payload == b"1"
        await asyncio.sleep(READY_WITHIN_S + 0.5)
        assert world.agent.statistics.pool_failures == 1
        assert pooled(world) == 0
        assert world.driver.sandboxes[1].destroyed

    play_pooled(test, deaf)


def test_a_runtime_that_ends_before_it_waits_is_a_failure() -> None:
    async def crashing(runtime: Runtime) -> None:
        if "STOKER_POOLED" in runtime.environment:
            runtime.exit(3)
        await echo(runtime)

    async def test(world: World) -> None:
        await world.create()
        await asyncio.sleep(0.9)
        assert world.agent.statistics.pool_failures == 1
        assert (await world.invoke(await world.create(), 2)).payload == b"1"

    play_pooled(test, crashing)


def test_nothing_is_made_while_a_function_starts_but_not_for_ever() -> None:
    async def slow(runtime: Runtime) -> None:
        await runtime.assigned()
        await asyncio.sleep(5)
        await echo(runtime)

    async def test(world: World) -> None:
        await world.create()
        await asyncio.sleep(PATIENCE_S * 0.9)
        assert len(world.driver.sandboxes) == 1
        await asyncio.sleep(PATIENCE_S * 0.3)
        assert len(world.driver.sandboxes) == 2

    play_pooled(test, slow)


def test_an_unused_pool_goes() -> None:
    async def test(world: World) -> None:
        await warmed(world)
        await asyncio.sleep(KEEP_S - 60)
        assert pooled(world) == 2
        await asyncio.sleep(70)
        assert pooled(world) == 0
        assert all(sandbox.destroyed for sandbox in world.driver.sandboxes)
        assert world.agent.statistics.pool_size == 0

    play_pooled(test)


def test_a_failed_init_is_repeated_in_a_sandbox_of_its_own() -> None:
    async def broken(runtime: Runtime) -> None:
        await runtime.assigned()
        await runtime.fail_init(b'{"errorType":"E"}')
        runtime.exit(1)

    async def test(world: World) -> None:
        await warmed(world)
        sandbox = await world.create()
        await asyncio.sleep(0.1)
        assert (await world.invoke(sandbox)).function_error == "Unhandled"
        statistics = world.agent.statistics
        assert (statistics.init_failures, statistics.pool_hits, statistics.pool_misses) == (2, 1, 1)

    play_pooled(test, pooled_echo, broken)


def test_the_agent_closes_while_one_is_in_the_making() -> None:
    async def test(world: World) -> None:
        await world.create()
        world.driver.create_takes_s = 5
        await asyncio.sleep(0.2)
        assert len(world.driver.sandboxes) == 1

    play_pooled(test)
