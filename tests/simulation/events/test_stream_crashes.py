"""The poller of a stream is killed at every write it makes, before and behind it; nothing is lost, order stays."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

import pytest

from stoker.services.queue import Delivery
from stoker.services.streams import ShardLease, ShardProgress
from stoker.store.memory_streams import MemoryStreamCheckpoints
from tests.simulation.events.streams import Scene, played

RECORDS = 48
KEYS = 6
LANES = 2
BATCH = 4


class Mortal:
    """Checkpoints whose process dies at a write: it hangs, and nothing is written any more."""

    def __init__(self, inner: MemoryStreamCheckpoints, at: int, *, behind: bool) -> None:
        self.inner = inner
        self.died = asyncio.Event()
        self.names: list[str] = []
        self.at = at
        self._behind = behind

    async def _write(self, name: str, *arguments: Any, **options: Any) -> Any:
        self.names.append(name)
        dying = len(self.names) - 1 == self.at  # -1: never
        if self.died.is_set():
            raise RuntimeError("the dead write nothing")
        if dying and not self._behind:
            self.died.set()
            await asyncio.Event().wait()
        result = await getattr(self.inner, name)(*arguments, **options)
        if dying:
            self.died.set()
            await asyncio.Event().wait()
        return result

    async def shards(self, mapping: str) -> dict[str, ShardProgress]:
        return await self.inner.shards(mapping)

    async def add(self, mapping: str, shards: Mapping[str, ShardProgress]) -> None:
        await self._write("add", mapping, shards)

    async def drop(self, mapping: str, shards: Sequence[str]) -> None:
        await self._write("drop", mapping, shards)

    async def lease(
        self, mapping: str, shard_id: str, *, owner: str, now_s: float, until_s: float
    ) -> ShardLease | None:
        return await self._write("lease", mapping, shard_id, owner=owner, now_s=now_s, until_s=until_s)

    async def renew(self, owner: str, until_s: float) -> None:
        await self.inner.renew(owner, until_s)

    async def advance(
        self, lease: ShardLease, progress: ShardProgress, deliveries: Sequence[Delivery] = ()
    ) -> None:
        await self._write("advance", lease, progress, deliveries)

    async def release(self, lease: ShardLease) -> None:
        await self._write("release", lease)

    async def forget(self, mapping: str) -> None:
        await self._write("forget", mapping)

    async def mappings(self) -> frozenset[str]:
        return await self.inner.mappings()


async def lived(scene: Scene, at: int, *, behind: bool) -> Mortal:
    """Poll, die at a write, start again. The stream is resharded on the way."""
    random = Random(3)
    kept = MemoryStreamCheckpoints()
    scene.checkpoints = mortal = Mortal(kept, at, behind=behind)
    scene.function.poison = {"k1 7", "k2 32"}
    for number in range(RECORDS // 2):
        key = f"k{number % KEYS}"
        scene.put(f"{key} {number}", key=key)
    scene.stream.reshard(["a"], ["b", "c"])
    for number in range(RECORDS // 2, RECORDS):
        key = f"k{number % KEYS}"
        scene.put(f"{key} {number}", key=key, shard="bc"[number % 2])
    poller = scene.poller()
    poller.start()
    dying = asyncio.ensure_future(mortal.died.wait())
    await asyncio.wait([dying], timeout=60 + random.random())
    dying.cancel()
    if mortal.died.is_set():
        await poller.close(0.0)
        kept.void_leases()
        scene.checkpoints = kept
        scene.poller().start()
        await asyncio.sleep(60)
    else:
        mortal.at = -1
    scene.checkpoints = kept
    return mortal


def check(scene: Scene) -> int:
    """Everything was seen, of each key in its order; how many records came twice."""
    seen = scene.function.seen()
    assert set(seen) == {f"k{number % KEYS} {number}" for number in range(RECORDS)}
    for key in range(KEYS):
        mine = [int(one.split()[1]) for one in dict.fromkeys(seen) if one.startswith(f"k{key} ")]
        assert mine == sorted(mine)
    told = {document["DDBStreamBatchInfo"]["startSequenceNumber"] for document in scene.discarded()}
    assert len(told) == 2
    good = [one for one in seen if one not in scene.function.poison]
    return sum(count - 1 for count in Counter(good).values())


def test_killed_at_every_write() -> None:
    """Each write once, before and behind: what comes again is at most what the lanes had under way."""
    without = 0
    points: Counter[str] = Counter()
    duplicates: list[int] = []

    async def whole(scene: Scene) -> None:
        nonlocal without
        await lived(scene, -1, behind=False)
        without = check(scene)

    options = {"lanes": LANES, "batch_size": BATCH, "bisects": True, "retries_max": 1}
    played(whole, **options)
    for behind in (False, True):
        at, died = 0, True
        while died:

            async def one(scene: Scene) -> None:
                nonlocal died
                mortal = await lived(scene, at, behind=behind)  # noqa: B023
                died = mortal.died.is_set()
                if died:
                    points[mortal.names[at]] += 1  # noqa: B023
                duplicates.append(check(scene))

            played(one, **options)
            at += 1
    print(f"killed at {points.total()} writes {dict(points)}: {sum(duplicates)} records came again, ", end="")
    print(f"at most {max(duplicates)} at once; {without} came again through halving alone")
    assert {"add", "lease", "advance", "release"} <= set(points)
    assert max(duplicates) - without <= 2 * LANES * BATCH


@pytest.mark.parametrize("seed", range(8))
def test_killed_again_and_again_at_random(seed: int) -> None:
    async def story(scene: Scene) -> None:
        random = Random(seed)
        kept = MemoryStreamCheckpoints()
        for number in range(2000):
            key = f"k{number % 40}"
            scene.put(f"{key} {number}", key=key)
        lives = 0
        while True:
            mortal = scene.checkpoints = Mortal(kept, random.randrange(2, 60), behind=random.random() < 0.5)
            poller = scene.poller()
            poller.start()
            try:
                await asyncio.wait_for(mortal.died.wait(), 120)
            except TimeoutError:
                mortal.at = -1
                break
            lives += 1
            await poller.close(0.0)
            kept.void_leases()
        seen = scene.function.seen()
        assert len(set(seen)) == 2000
        for key in range(40):
            mine = [int(one.split()[1]) for one in dict.fromkeys(seen) if one.startswith(f"k{key} ")]
            assert mine == sorted(mine)
        print(f"{lives} kills, 2000 records, {len(seen) - 2000} came again")
        assert lives > 3
        scene.checkpoints = kept

    played(story, lanes=3, batch_size=10)
