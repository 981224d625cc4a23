"""Invocations by version and alias: whose sandbox serves them, and what a write changes."""

import asyncio
from collections import Counter

import pytest

from stoker.core.errors import ServiceError
from stoker.services.functions import FunctionVersion, Status
from stoker.services.invocation import Invocation
from tests.simulation.frontend.virtual_time import run_virtually
from tests.simulation.frontend.world import Behaviour, PretendWorker, World, key_of


class Seen(PretendWorker):
    """Remembers under which ARN each version was invoked."""

    def __init__(self) -> None:
        super().__init__()
        self.arns: list[tuple[str, str]] = []

        def behave(function: FunctionVersion, invocation: Invocation) -> Behaviour:
            self.arns.append((function.version, invocation.invoked_arn.partition(":function:")[2]))
            return Behaviour()

        self.behave = behave


async def executed(world: World, qualifier: str | None) -> str | None:
    return (await world.invoke("f", qualifier=qualifier)).executed_version


async def settled() -> None:
    await asyncio.sleep(0.5)


def test_every_version_has_sandboxes_of_its_own() -> None:
    async def story() -> None:
        worker = Seen()
        world = World(worker)
        await world.create("f")
        await world.publish("f")
        await world.publish("f")
        await world.point("f", "live", "1")
        for _ in range(2):
            assert await executed(world, None) == "$LATEST"
            assert await executed(world, "$LATEST") == "$LATEST"
            assert await executed(world, "1") == "1"
            assert await executed(world, "live") == "1"
            assert await executed(world, "2") == "2"
        assert worker.created == 3
        assert worker.arns[:5] == [
            ("$LATEST", "f"),
            ("$LATEST", "f:$LATEST"),
            ("1", "f:1"),
            ("1", "f:live"),
            ("2", "f:2"),
        ]
        await world.close()

    run_virtually(story())


@pytest.mark.parametrize("qualifier", ["3", "none", "$LATEST.PUBLISHED"])
def test_what_a_qualifier_does_not_name_is_not_found(qualifier: str) -> None:
    async def story() -> None:
        world = World()
        await world.create("f")
        with pytest.raises(ServiceError) as refused:
            await executed(world, qualifier)
        assert refused.value.message == f"Function not found: {key_of('f').arn}:{qualifier}"
        await world.close()

    run_virtually(story())


def test_an_alias_shares_invocations_out_by_weight() -> None:
    async def story() -> None:
        world = World()
        await world.create("f")
        await world.publish("f")
        await world.publish("f")
        await world.point("f", "live", "1", v2=0.25)
        counts = Counter([await executed(world, "live") for _ in range(400)])
        assert set(counts) == {"1", "2"}
        assert 70 <= counts["2"] <= 130
        await world.point("f", "live", "1", v2=1.0)
        assert {await executed(world, "live") for _ in range(20)} == {"2"}
        await world.point("f", "live", "1", v2=0.0)
        assert {await executed(world, "live") for _ in range(20)} == {"1"}
        await world.close()

    run_virtually(story())


def test_writes_leave_sandboxes_of_other_versions_alone() -> None:
    async def story() -> None:
        worker = PretendWorker()
        world = World(worker)
        latest = await world.create("f")
        await world.publish("f")
        for qualifier in (None, "1"):
            await executed(world, qualifier)
        await world.publish("f")
        await world.point("f", "live", "1")
        await world.point("f", "live", "2")
        await settled()
        assert [await executed(world, qualifier) for qualifier in (None, "1")] == ["$LATEST", "1"]
        assert worker.created == 2
        await world.update(latest, deployment_id="f-2")
        await settled()
        await executed(world, "1")
        assert worker.created == 2
        await executed(world, None)
        assert worker.created == 3
        await world.close()

    run_virtually(story())


def test_a_moved_alias_is_obeyed_by_the_very_next_invocation() -> None:
    async def story() -> None:
        world = World()
        await world.create("f")
        await world.publish("f")
        await world.publish("f")
        for version in ("1", "2", "1"):
            await world.point("f", "live", version)
            assert await executed(world, "live") == version
        await world.close()

    run_virtually(story())


def test_sandboxes_of_a_deleted_version_are_drained() -> None:
    async def story() -> None:
        worker = PretendWorker()
        world = World(worker)
        await world.create("f")
        await world.publish("f")
        await world.publish("f")
        for qualifier in (None, "1", "2"):
            await executed(world, qualifier)
        busy = asyncio.ensure_future(executed(world, "1"))
        await asyncio.sleep(0.01)
        await world.unpublish("f", "1")
        assert await busy == "1"
        await settled()
        left = {sandbox.function.version for sandbox in worker.live.values()}
        assert left == {"$LATEST", "2"}
        with pytest.raises(ServiceError):
            await executed(world, "1")
        world.check_nothing_leaked()
        await world.delete(key_of("f"))
        await settled()
        assert not worker.live
        await world.close()

    run_virtually(story())


def test_reserved_concurrency_counts_all_versions() -> None:
    async def story() -> None:
        world = World()
        await world.create("f", reserved_concurrency=2)
        await world.publish("f")
        await world.point("f", "live", "1")
        running = [asyncio.ensure_future(executed(world, qualifier)) for qualifier in ("1", None)]
        await asyncio.sleep(0.01)
        with pytest.raises(ServiceError) as refused:
            await executed(world, "live")
        assert refused.value.code == "TooManyRequestsException"
        assert await asyncio.gather(*running) == ["1", "$LATEST"]
        await world.close()

    run_virtually(story())


def test_an_event_runs_the_version_that_its_alias_has_then() -> None:
    async def story() -> None:
        worker = Seen()
        world = World(worker)
        await world.create("f")
        await world.publish("f")
        await world.publish("f")
        await world.point("f", "live", "1")
        assert (await world.invoke("f", qualifier="live", kind="Event")).status == 202
        await world.point("f", "live", "2")
        (event,) = await world.queue.take(now_s=1e12, limit=5, lease_s=60.0)
        await world.frontend.run_event(event)
        assert worker.arns == [("2", "f:live")]
        await world.close()

    run_virtually(story())


def test_a_version_that_is_being_made_is_waited_for() -> None:
    async def story() -> None:
        world = World()
        await world.create("f")
        version = await world.publish("f", state=Status(value="Pending"))
        waiting = asyncio.ensure_future(executed(world, "1"))
        await asyncio.sleep(1.0)
        assert not waiting.done()
        await world.update(version, state=Status(value="Active"))
        assert await waiting == "1"
        await world.close()

    run_virtually(story())
