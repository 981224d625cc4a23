"""Front end and manager over the real worker agent: what the pretended worker promises, the real one keeps."""

import asyncio

import pytest

from tests.simulation.frontend import world as worlds
from tests.simulation.worker import test_life as lives
from tests.simulation.worker.scripted import Runtime, echo


async def slow_echo(runtime: Runtime) -> None:
    while True:
        event = await runtime.next()
        await asyncio.sleep(1)
        await runtime.respond(event)


def test_a_caller_who_leaves_does_not_end_the_function_nor_lose_the_sandbox() -> None:
    async def test(life: lives.World) -> None:
        world = worlds.World(life.agent)
        await world.create("f")
        await world.invoke("f")
        call = asyncio.create_task(world.invoke("f", request_id="left"))
        await asyncio.sleep(0.5)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        statistics = world.manager.statistics()
        assert (statistics.busy, statistics.idle) == (1, 0)
        await asyncio.sleep(1)
        assert any(line.startswith("END RequestId: left") for line in life.log)
        statistics = world.manager.statistics()
        assert (statistics.busy, statistics.idle) == (0, 1)
        assert (await world.invoke("f")).status == 200
        assert world.manager.statistics().adopted == 1
        await world.close()

    lives.play(test, slow_echo)


def test_an_update_and_a_deletion_end_the_sandboxes() -> None:
    async def test(life: lives.World) -> None:
        world = worlds.World(life.agent)
        version = await world.create("f", deployment_id="old")
        await world.invoke("f")
        await world.update(version, deployment_id="new")
        await world.invoke("f")
        await asyncio.sleep(1)
        assert len(life.agent.sandboxes()) == 1
        assert world.manager.statistics().adopted == 2
        await world.delete(version.key)
        await asyncio.sleep(1)
        assert life.agent.sandboxes() == []
        await world.close()

    lives.play(test, echo, echo)
