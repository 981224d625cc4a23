"""Thousands of invocations with seeded arrivals, durations, failures, cancellations and updates: what must
hold whatever happens."""

import asyncio
from collections import Counter
from random import Random

import msgspec
import pytest

from stoker.core.errors import ServiceError
from stoker.manager.pool import PoolLimits
from stoker.services.functions import FunctionVersion
from stoker.services.invocation import Invocation
from tests.simulation.frontend.virtual_time import run_virtually
from tests.simulation.frontend.world import Behaviour, PretendWorker, World, key_of

FUNCTIONS = {"plain": None, "other": None, "third": None, "reserved": 3, "single": 1}
ACCOUNT_CONCURRENCY = 20
UNRESERVED = ACCOUNT_CONCURRENCY - 4
EACH = 300


class Watch:
    """Counts what runs, per function, as the pretended worker sees it."""

    def __init__(self, world: World, random: Random) -> None:
        self.world = world
        self.random = random
        self.running: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.unreserved_most = 0
        for worker in world.workers:
            worker.behave = self.behave

    def behave(self, function: FunctionVersion, invocation: Invocation) -> Behaviour:
        duration_s = min(self.random.expovariate(1 / 0.4), 100.0)
        name = function.key.name
        self.running[name] += 1
        self.most[name] = max(self.most[name], self.running[name])
        unreserved = sum(count for each, count in self.running.items() if FUNCTIONS[each] is None)
        self.unreserved_most = max(self.unreserved_most, unreserved)
        asyncio.get_running_loop().call_later(duration_s, self._ended, name)
        healthy = self.random.random() > 0.05
        return Behaviour(duration_s, None if healthy else "Unhandled", healthy)

    def _ended(self, name: str) -> None:
        self.running[name] -= 1


class Traffic:
    """Callers of one function: some leave, some are refused, and each sees the newest version or none older."""

    def __init__(self, world: World, name: str, random: Random) -> None:
        self.world = world
        self.name = name
        self.random = random
        self.outcomes: Counter[str] = Counter()
        self.published = 1

    async def run(self, count: int) -> None:
        calls: list[asyncio.Task[None]] = []
        for number in range(count):
            await asyncio.sleep(self.random.expovariate(12.0))
            calls.append(asyncio.create_task(self.call(f"{self.name}-{number}")))
            if self.random.random() < 0.1:
                leave_s = self.random.random()
                asyncio.get_running_loop().call_later(leave_s, calls[-1].cancel)
            if self.random.random() < 0.03:
                await self.update()
        await asyncio.gather(*calls, return_exceptions=True)

    async def update(self) -> None:
        stored = await self.world.metadata.version(key_of(self.name), "$LATEST")
        assert stored is not None
        number = self.published + 1
        await self.world.update(stored, deployment_id=f"{self.name}-{number}")
        self.published = number

    async def call(self, request_id: str) -> None:
        at_least = self.published
        try:
            await self.world.invoke(self.name, request_id=request_id)
        except ServiceError as error:
            self.outcomes[error.fields.get("Reason", error.code)] += 1
            return
        except asyncio.CancelledError:
            self.outcomes["left"] += 1
            raise
        self.outcomes["answered"] += 1
        (deployment,) = {
            deployment
            for worker in self.world.workers
            for served, deployment, _ in worker.served
            if served == request_id
        }
        assert int(deployment.rsplit("-", 1)[1]) >= at_least, "an old deployment ran after its update"


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_the_invariants_hold_under_random_traffic(seed: int) -> None:
    async def story() -> None:
        random = Random(seed)
        workers = [PretendWorker(name, memory_total_mb=1536, create_s=0.15) for name in ("a", "b")]
        limits = PoolLimits(idle_timeout_s=60.0, lease_s=50.0)
        world = World(*workers, account_concurrency=ACCOUNT_CONCURRENCY, limits=limits)
        watch = Watch(world, random)
        for name, reserved in FUNCTIONS.items():
            await world.create(name, reserved_concurrency=reserved)
        traffic = [Traffic(world, name, Random(f"{seed}-{name}")) for name in FUNCTIONS]
        await asyncio.gather(*(each.run(EACH) for each in traffic))
        await asyncio.sleep(200)  # those whose callers left end, too

        assert watch.unreserved_most <= UNRESERVED
        assert watch.most["reserved"] <= 3
        assert watch.most["single"] <= 1
        assert all(worker.oldest_at_end_s <= 150.0 for worker in workers)
        outcomes = sum((each.outcomes for each in traffic), Counter())
        assert sum(outcomes.values()) == EACH * len(FUNCTIONS)
        assert outcomes["answered"] > EACH
        assert outcomes["left"] > 20
        assert outcomes["ReservedFunctionConcurrentInvocationLimitExceeded"] > 20
        ran = Counter(request for worker in workers for request, _, _ in worker.served)
        assert max(ran.values()) == 1, "an invocation ran twice"
        world.check_nothing_leaked()
        assert all(not worker.live and worker.reserved_mb == 0 for worker in workers), "not reclaimed"
        await world.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run_virtually(story())


def test_a_simulation_repeats_exactly() -> None:
    async def story() -> list[tuple[str, str, str]]:
        world = World(PretendWorker(memory_total_mb=1024))
        Watch(world, Random(7))
        await world.create("plain")
        await Traffic(world, "plain", Random(8)).run(200)
        await world.close()
        return world.worker.served

    assert run_virtually(story()) == run_virtually(story())


def test_load_stays_on_the_fewest_sandboxes() -> None:
    async def story() -> None:
        world = World()
        await world.create("plain")
        world.worker.behave = lambda _f, _i: Behaviour(duration_s=1.0)
        await asyncio.gather(*(world.invoke("plain") for _ in range(30)))
        world.worker.served.clear()
        world.worker.behave = lambda _f, _i: Behaviour(duration_s=0.1)
        for _ in range(200):
            await asyncio.gather(world.invoke("plain"), world.invoke("plain"))
        assert len({sandbox for _, _, sandbox in world.worker.served}) == 2
        await asyncio.sleep(590)
        assert len(world.worker.live) == 2, "the other 28 were not reclaimed"
        await world.close()

    run_virtually(story())


def test_a_version_that_is_updated_all_the_time_is_never_served_old() -> None:
    async def story() -> None:
        world = World(PretendWorker(create_s=0.01))
        world.worker.behave = lambda _f, _i: Behaviour(duration_s=0.01)
        version = await world.create("plain", deployment_id="plain-0")
        for number in range(1, 200):
            version = await world.update(version, deployment_id=f"plain-{number}")
            await world.invoke("plain")
            assert world.worker.served[-1][1] == f"plain-{number}"
        await asyncio.sleep(1)
        assert len(world.worker.live) == 1
        assert msgspec.structs.asdict(world.manager.statistics())["retired_forgotten"] == 198
        await world.close()

    run_virtually(story())
