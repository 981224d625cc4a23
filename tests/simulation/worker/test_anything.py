"""Anything at any moment: random runtimes and random callers in virtual time, and what must hold regardless."""

import asyncio
import random
from collections.abc import Iterator

import pytest

from stoker.core.errors import StokerError
from stoker.services.invocation import InvocationResult
from stoker.services.worker import StaleReference, WorkerUnavailable
from tests.simulation.worker.scripted import Runtime, Script, ScriptedDriver
from tests.simulation.worker.test_life import World, world
from tests.simulation.worker.virtual_time import run

TIMEOUT_S = 3


async def mishap(dice: random.Random, runtime: Runtime) -> None:
    """Perhaps a pause, an exit, a lost connection, memory that runs out, some output."""
    if dice.random() < 0.3:
        await asyncio.sleep(dice.choice([0.0, 0.01, 0.1, 1.0, 4.0, 11.0]))
    if dice.random() < 0.05:
        runtime.exit(*dice.choice([(0, None), (1, None), (None, 11)]))
    if dice.random() < 0.02:
        runtime.disconnect()
    if dice.random() < 0.02:
        runtime.sandbox.oom, runtime.sandbox.peak = 1, 128 << 20
    if dice.random() < 0.1:
        runtime.print("something\n")


def random_runtime(dice: random.Random) -> Script:
    """A runtime that does its work with mishaps before and after each step."""

    async def script(runtime: Runtime) -> None:
        await mishap(dice, runtime)
        if dice.random() < 0.1:
            await runtime.fail_init(b'{"errorType":"I"}')
            await mishap(dice, runtime)
            runtime.exit(1)
        while True:
            body = await runtime.next()
            await mishap(dice, runtime)
            if dice.random() < 0.1:
                await runtime.fail(b'{"errorType":"E"}')
            else:
                await runtime.respond(body)
            await mishap(dice, runtime)

    return script


async def random_caller(
    dice: random.Random, made: World, results: list[object], numbers: Iterator[int]
) -> None:
    for _ in range(dice.randrange(1, 4)):
        try:
            sandbox = await made.create(timeout_s=TIMEOUT_S)
        except WorkerUnavailable:
            await asyncio.sleep(1)
            continue
        for _ in range(dice.randrange(0, 6)):
            await asyncio.sleep(dice.choice([0.0, 0.02, 0.2, 2.0]))
            call = asyncio.create_task(made.invoke(sandbox, next(numbers)))
            if dice.random() < 0.1:
                await asyncio.sleep(dice.random())
                call.cancel()
            begun_s = made.loop.time()
            try:
                result = await call
            except asyncio.CancelledError:
                continue
            except StokerError as error:
                results.append(error)
                break
            # Init, then at most its timeout; what the driver takes and last words come on top.
            assert made.loop.time() - begun_s < 10 + TIMEOUT_S + 1
            results.append(result)
            if not result.healthy:
                break
        made.agent.retire(sandbox)


@pytest.mark.parametrize("seed", range(60))
def test_whatever_happens_every_call_ends_and_nothing_is_left(seed: int) -> None:
    dice = random.Random(seed)
    results: list[object] = []

    async def main() -> World:
        driver = ScriptedDriver(*(random_runtime(dice) for _ in range(40)))
        driver.create_errors = dice.choice([0, 0, 0, 2])
        driver.destroy_takes_s = dice.choice([0.0, 0.01, 0.5])
        driver.create_takes_s = dice.choice([0.0, 0.01])
        async with world(driver) as made:
            numbers = iter(range(10_000))
            await asyncio.gather(*(random_caller(dice, made, results, numbers) for _ in range(3)))
            await asyncio.sleep(dice.choice([0, 30]))
        return made

    made = run(main())
    for result in results:
        assert isinstance(result, InvocationResult | StaleReference | WorkerUnavailable), result
        if isinstance(result, InvocationResult):
            assert result.function_error in (None, "Unhandled")
            assert (result.function_error is None) <= result.healthy
            assert result.log_tail is not None
            assert result.log_tail.count(b"REPORT RequestId") == 1
    ends = [line for line in made.logs.messages if line.startswith("END")]
    reports = [line for line in made.logs.messages if line.startswith("REPORT")]
    assert len(ends) == len(reports) == made.agent.statistics.invocations
    assert len({*ends}) == len(ends)
    sandboxes = made.agent.statistics
    assert sandboxes.sandboxes_destroyed >= sandboxes.sandboxes_created
    assert made.logs.closed == sandboxes.sandboxes_destroyed
