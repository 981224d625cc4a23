"""What every adapter of StreamCheckpoints promises."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from stoker.services.queue import Delivery, DeliveryKind
from stoker.services.streams import (
    LaneProgress,
    LeaseLost,
    OpenWindow,
    Position,
    ShardLease,
    ShardProgress,
    Start,
    StreamCheckpoints,
)
from stoker.store.memory_streams import MemoryStreamCheckpoints
from stoker.store.opening import open_queue_database
from stoker.store.queue import SqlEventQueue

FIRST = ShardProgress(position=Position(start=Start.OLDEST))
FURTHER = ShardProgress(
    position=Position(start=Start.SINCE, since_s=12.5),
    lanes=(LaneProgress("12"), LaneProgress("9", OpenWindow(60.0, msgspec.Raw(b'{"a":[1]}'), early=True))),
)


@pytest.fixture(params=["memory", "sqlite"])
async def checkpoints(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[StreamCheckpoints]:
    if request.param == "memory":
        yield MemoryStreamCheckpoints()
        return
    database = await open_queue_database(tmp_path)
    queue = SqlEventQueue(database, capacity_bytes=1000)
    await queue.recover()
    yield queue.streams
    await database.close()


async def leased(checkpoints: StreamCheckpoints, shard: str = "s", owner: str = "one") -> ShardLease:
    lease = await checkpoints.lease("m", shard, owner=owner, now_s=0.0, until_s=30.0)
    assert lease is not None
    return lease


async def test_shards_are_added_once(checkpoints: StreamCheckpoints) -> None:
    assert await checkpoints.shards("m") == {}
    await checkpoints.add("m", {"s": FIRST})
    await checkpoints.add("m", {"s": FURTHER, "t": FURTHER})
    assert await checkpoints.shards("m") == {"s": FIRST, "t": FURTHER}
    assert await checkpoints.mappings() == {"m"}


async def test_progress_is_kept_whole(checkpoints: StreamCheckpoints) -> None:
    await checkpoints.add("m", {"s": FIRST})
    await checkpoints.advance(await leased(checkpoints), FURTHER)
    assert await checkpoints.shards("m") == {"s": FURTHER}


async def test_a_shard_is_leased_to_one_until_its_time_is_over(checkpoints: StreamCheckpoints) -> None:
    await checkpoints.add("m", {"s": FIRST})
    first = await leased(checkpoints)
    for owner in ("one", "two"):
        assert await checkpoints.lease("m", "s", owner=owner, now_s=29.9, until_s=60.0) is None
    second = await checkpoints.lease("m", "s", owner="two", now_s=30.0, until_s=60.0)
    assert second is not None
    assert second.term == first.term + 1
    with pytest.raises(LeaseLost):
        await checkpoints.advance(first, FURTHER)
    await checkpoints.release(first)
    await checkpoints.advance(second, FURTHER)
    assert await checkpoints.lease("m", "s", owner="one", now_s=31.0, until_s=60.0) is None


async def test_leases_are_prolonged_together(checkpoints: StreamCheckpoints) -> None:
    await checkpoints.add("m", {"s": FIRST, "t": FIRST, "u": FIRST})
    for shard, owner in (("s", "one"), ("t", "one"), ("u", "two")):
        await leased(checkpoints, shard, owner)
    await checkpoints.renew("one", 100.0)
    found = [await checkpoints.lease("m", shard, owner="x", now_s=50.0, until_s=60.0) for shard in "stu"]
    assert [lease is None for lease in found] == [True, True, False]


async def test_a_shard_that_was_given_back_is_free(checkpoints: StreamCheckpoints) -> None:
    await checkpoints.add("m", {"s": FIRST})
    lease = await leased(checkpoints)
    await checkpoints.release(lease)
    with pytest.raises(LeaseLost):
        await checkpoints.advance(lease, FURTHER)
    assert (await leased(checkpoints)).progress == FIRST


async def test_what_is_forgotten_cannot_be_written(checkpoints: StreamCheckpoints) -> None:
    await checkpoints.add("m", {"s": FIRST, "t": FIRST})
    await checkpoints.add("other", {"s": FIRST})
    lease = await leased(checkpoints)
    await checkpoints.drop("m", ["t"])
    assert set(await checkpoints.shards("m")) == {"s"}
    await checkpoints.forget("m")
    with pytest.raises(LeaseLost):
        await checkpoints.advance(lease, FURTHER)
    assert await checkpoints.lease("m", "s", owner="one", now_s=0.0, until_s=1.0) is None
    assert await checkpoints.mappings() == {"other"}


def record(name: str) -> Delivery:
    return Delivery(
        delivery_id=name,
        kind=DeliveryKind.DISCARDED_BATCH,
        request_id="r",
        function_arn="arn:aws:lambda:us-east-1:000000000000:function:f",
        destination="arn:aws:sqs:us-east-1:000000000000:q",
        body=b"{}",
        created_at_s=1.0,
        due_at_s=1.0,
    )


async def test_deliveries_come_with_the_progress_or_not_at_all(tmp_path: Path) -> None:
    database = await open_queue_database(tmp_path)
    queue = SqlEventQueue(database, capacity_bytes=100_000)
    await queue.recover()
    await queue.streams.add("m", {"s": FIRST})
    lease = await leased(queue.streams)
    await queue.streams.advance(lease, FURTHER, [record("one")])
    assert (await queue.depth())[1] > 0
    await queue.streams.release(lease)
    with pytest.raises(LeaseLost):
        await queue.streams.advance(lease, FIRST, [record("two")])
    assert [one.delivery_id for one in await queue.deliveries.take(now_s=5.0, limit=9, lease_s=1.0)] == [
        "one"
    ]
    await queue.deliveries.remove("one")
    assert await queue.depth() == (0, 0)
    await database.close()


async def test_a_restart_gives_back_what_was_leased(tmp_path: Path) -> None:
    database = await open_queue_database(tmp_path)
    queue = SqlEventQueue(database, capacity_bytes=1000)
    await queue.streams.add("m", {"s": FIRST})
    before = await leased(queue.streams)
    await queue.recover()
    with pytest.raises(LeaseLost):
        await queue.streams.advance(before, FURTHER)
    assert (await leased(queue.streams)).term == before.term + 1
    await database.close()
