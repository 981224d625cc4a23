"""Mappings to streams in virtual time: positions, batches, retries, lanes, resharding, leases, failing sources."""

import asyncio

import msgspec
import pytest

from stoker.events.shard_reader import IDLE_AFTER_S
from stoker.events.stream_parts import RESULT_FUNCTION_FAILED, RESULT_OK
from stoker.events.stream_poller import LEASE_S
from stoker.services.events import AttemptOutcome
from stoker.services.sources import SourceFailed
from stoker.services.streams import (
    LaneProgress,
    LeaseLost,
    Position,
    ShardProgress,
    SourceDenied,
    SourceGone,
    SourceThrottled,
    Start,
)
from tests.simulation.events.streams import Scene, played


def numbers(first: int, last: int) -> list[str]:
    return [f"r{number}" for number in range(first, last)]


def test_records_come_in_batches_in_their_order_and_are_checkpointed() -> None:
    async def story(scene: Scene) -> None:
        put = scene.put(*numbers(0, 25))
        scene.poller().start()
        await asyncio.sleep(5)
        assert scene.function.batches() == [numbers(0, 10), numbers(10, 20), numbers(20, 25)]
        assert await scene.done() == {"a": put[-1]}
        assert scene.results[-1] == RESULT_OK

    played(story)


@pytest.mark.parametrize("start", [Start.LATEST, Start.SINCE])
def test_where_reading_begins(start: Start) -> None:
    async def story(scene: Scene) -> None:
        scene.put("old", age_s=3600)
        since_s = scene.clock.now_s() - 10
        mapping = msgspec.structs.replace(scene.mapping, position=Position(start=start, since_s=since_s))
        scene.poller(mapping).start()
        await asyncio.sleep(2)
        scene.put("new")
        await asyncio.sleep(5)
        assert scene.function.seen() == ["new"]

    played(story)


def test_the_latest_of_a_mapping_that_was_off_is_not_the_latest_of_now() -> None:
    async def story(scene: Scene) -> None:
        scene.put("old", age_s=3600)
        mapping = msgspec.structs.replace(scene.mapping, position=Position(start=Start.LATEST))
        first = scene.poller(mapping)
        first.start()
        await asyncio.sleep(5)
        await first.stop()
        scene.put("while it was off")
        await asyncio.sleep(5)
        scene.poller(mapping).start()
        await asyncio.sleep(5)
        assert scene.function.seen() == ["while it was off"]

    played(story)


def test_a_window_gathers_a_batch() -> None:
    async def story(scene: Scene) -> None:
        scene.poller().start()
        for number in range(5):
            await asyncio.sleep(4)
            scene.put(f"r{number}")
        await asyncio.sleep(60)
        assert scene.function.batches() == [numbers(0, 5)]

    played(story, window_s=30)


def test_a_full_batch_does_not_wait_for_its_window() -> None:
    async def story(scene: Scene) -> None:
        scene.put(*numbers(0, 10))
        scene.poller().start()
        await asyncio.sleep(2)
        assert scene.function.batches() == [numbers(0, 10)]

    played(story, window_s=300)


def test_an_error_is_tried_again_until_it_passes() -> None:
    async def story(scene: Scene) -> None:
        scene.function.poison = {"r1"}
        scene.put(*numbers(0, 3))
        scene.poller().start()
        await asyncio.sleep(300)
        assert len(scene.function.events) > 8
        assert await scene.done() == {"a": ""}
        assert scene.results[-1] == RESULT_FUNCTION_FAILED
        scene.function.poison = set()
        await asyncio.sleep(60)
        assert (await scene.done())["a"] == scene.stream.open["a"].records[-1].sequence_number
        assert scene.results[-1] == RESULT_OK

    played(story)


def test_after_its_retries_a_batch_is_given_up_and_told_of() -> None:
    async def story(scene: Scene) -> None:
        scene.function.poison = {"r1"}
        put = scene.put(*numbers(0, 3))
        scene.poller().start()
        await asyncio.sleep(60)
        scene.put("next")
        await asyncio.sleep(5)
        assert scene.function.batches() == [numbers(0, 3)] * 3 + [["next"]]
        (document,) = scene.discarded()
        assert document["requestContext"]["condition"] == "RetryAttemptsExhausted"
        assert document["requestContext"]["approximateInvokeCount"] == 3
        assert document["responseContext"] == {
            "statusCode": 200,
            "executedVersion": "$LATEST",
            "functionError": "Unhandled",
        }
        info = document["DDBStreamBatchInfo"]
        assert (info["startSequenceNumber"], info["endSequenceNumber"]) == (put[0], put[-1])
        assert (info["batchSize"], info["shardId"]) == (3, "a")

    played(story, retries_max=2)


def test_throttles_do_not_use_up_the_retries() -> None:
    async def story(scene: Scene) -> None:
        scene.function.outcome = AttemptOutcome.THROTTLED
        scene.put("one")
        scene.poller().start()
        await asyncio.sleep(120)
        scene.function.outcome = None
        await asyncio.sleep(60)
        assert len(scene.function.events) > 4
        assert scene.discarded() == []
        assert (await scene.done())["a"]

    played(story, retries_max=0)


def test_halving_finds_the_poison_and_processes_the_rest() -> None:
    async def story(scene: Scene) -> None:
        scene.function.poison = {"r5"}
        put = scene.put(*numbers(0, 8))
        scene.poller().start()
        await asyncio.sleep(120)
        (document,) = scene.discarded()
        info = document["DDBStreamBatchInfo"]
        assert info["startSequenceNumber"] == info["endSequenceNumber"] == put[5]
        passed = [batch for batch in scene.function.batches() if "r5" not in batch]
        assert [data for batch in passed for data in batch] == [one for one in numbers(0, 8) if one != "r5"]
        # 8, 4 (the first half passes), 4, 2, 1 with one retry: halving itself takes none.
        assert scene.function.batches().count(["r5"]) == 2

    played(story, bisects=True, retries_max=1)


def test_only_what_was_not_processed_comes_again() -> None:
    async def story(scene: Scene) -> None:
        scene.function.unprocessed = {"r2", "r4"}
        put = scene.put(*numbers(0, 6))
        scene.poller().start()
        await asyncio.sleep(0.1)
        assert await scene.done() == {"a": put[1]}
        scene.function.unprocessed = set()
        await asyncio.sleep(30)
        assert scene.function.batches() == [numbers(0, 6), numbers(2, 6)]
        assert await scene.done() == {"a": put[-1]}

    played(story, reports_failures=True)


def test_old_records_are_passed_over() -> None:
    async def story(scene: Scene) -> None:
        old = scene.put("old", age_s=100)
        scene.put("new")
        scene.poller().start()
        await asyncio.sleep(5)
        assert scene.function.batches() == [["new"]]
        (document,) = scene.discarded()
        assert document["requestContext"]["condition"] == "RecordAgeExceeded"
        assert document["requestContext"]["approximateInvokeCount"] == 1
        assert "responseContext" not in document
        assert document["DDBStreamBatchInfo"]["endSequenceNumber"] == old[0]

    played(story, age_max_s=60)


def test_without_a_limit_retries_end_when_the_stream_forgets_the_record() -> None:
    async def story(scene: Scene) -> None:
        scene.function.poison = {"one"}
        scene.put("one")
        scene.poller().start()
        await asyncio.sleep(23 * 3600)
        assert scene.discarded() == []
        await asyncio.sleep(2 * 3600)
        assert [one["requestContext"]["condition"] for one in scene.discarded()] == ["RecordAgeExceeded"]

    played(story)


def test_what_the_filter_drops_is_checkpointed_over() -> None:
    async def story(scene: Scene) -> None:
        put = scene.put("no", "no", "yes", "no", "no")
        scene.poller().start()
        await asyncio.sleep(3)
        put += scene.put("no")
        await asyncio.sleep(3)
        assert scene.function.batches() == [["yes"]]
        assert await scene.done() == {"a": put[-1]}
        assert scene.counts.filtered == 5

    played(story, filters=('{"data": ["yes"]}',))


def test_lanes_run_beside_each_other_and_keep_the_order_of_a_key() -> None:
    async def story(scene: Scene) -> None:
        scene.function.takes_s = 1.0
        for number in range(60):
            scene.put(f"k{number % 12} {number}", key=f"k{number % 12}")
        scene.poller().start()
        await asyncio.sleep(60)
        assert 3 <= scene.function.most <= 4
        seen = scene.function.seen()
        assert len(seen) == len(set(seen)) == 60
        for key in range(12):
            mine = [int(one.split()[1]) for one in seen if one.startswith(f"k{key} ")]
            assert mine == sorted(mine)

    played(story, lanes=4, batch_size=3)


def test_a_lane_that_is_stuck_does_not_hold_up_the_others() -> None:
    async def story(scene: Scene) -> None:
        scene.function.poison = {"bad"}
        scene.put("bad", key="k0")
        for number in range(40):
            scene.put(f"r{number}", key=f"k{number % 10}")
        scene.poller().start()
        await asyncio.sleep(30)
        assert len(set(scene.function.seen())) > 25
        assert await scene.done() == {"a": ""}

    played(story, lanes=4)


def test_a_change_of_the_number_of_lanes_loses_nothing() -> None:
    async def story(scene: Scene) -> None:
        scene.function.takes_s = 0.5
        for number in range(50):
            scene.put(f"r{number}", key=f"k{number}")
        first = scene.poller(msgspec.structs.replace(scene.mapping, lanes=5))
        first.start()
        await asyncio.sleep(1.2)
        await first.stop()
        scene.poller(msgspec.structs.replace(scene.mapping, lanes=2)).start()
        await asyncio.sleep(60)
        assert set(scene.function.seen()) == set(numbers(0, 50))

    played(story, batch_size=2)


def test_parents_are_drained_before_their_children() -> None:
    async def story(scene: Scene) -> None:
        scene.function.takes_s = 3.0
        scene.put(*numbers(0, 25))
        scene.poller().start()
        await asyncio.sleep(2)
        scene.stream.reshard(["a"], ["b", "c"])
        scene.put("b1", shard="b")
        scene.put("c1", shard="c")
        await asyncio.sleep(30)
        seen = scene.function.seen()
        assert seen[:25] == numbers(0, 25)
        assert sorted(seen[25:]) == ["b1", "c1"]
        scene.stream.reshard(["b", "c"], ["d"])
        scene.put("d1", shard="d")
        await asyncio.sleep(30)
        assert scene.function.seen()[-1] == "d1"
        kept = await scene.checkpoints.shards("mapping")
        assert {name for name, one in kept.items() if one.ended} == {"a", "b", "c"}

    played(story)


def test_new_shards_of_a_mapping_from_the_latest_on_are_read_whole() -> None:
    async def story(scene: Scene) -> None:
        scene.put("old", age_s=60)
        mapping = msgspec.structs.replace(scene.mapping, position=Position(start=Start.LATEST))
        scene.poller(mapping).start()
        await asyncio.sleep(3)
        scene.stream.reshard(["a"], ["b"])
        scene.put("b1", shard="b")
        await asyncio.sleep(10)
        assert scene.function.seen() == ["b1"]

    played(story)


def test_expired_iterators_are_renewed_behind_what_was_read() -> None:
    async def story(scene: Scene) -> None:
        scene.put("one")
        scene.poller().start()
        await asyncio.sleep(3)
        scene.stream.expired_before = 10**6
        await asyncio.sleep(1)
        scene.stream.expired_before = 0
        scene.put("two")
        await asyncio.sleep(5)
        assert scene.function.seen() == ["one", "two"]

    played(story)


@pytest.mark.parametrize("done", ["999999999999", "1000001"])
def test_where_a_checkpoint_is_not_in_the_stream_the_oldest_records_come(done: str) -> None:
    async def story(scene: Scene) -> None:
        scene.put("one", "two", "three")
        scene.stream.trim("a", 2)
        kept = ShardProgress(position=scene.mapping.position, lanes=(LaneProgress(done),))
        await scene.checkpoints.add("mapping", {"a": kept})
        scene.poller().start()
        await asyncio.sleep(5)
        assert scene.function.seen() == ["three"]

    played(story)


@pytest.mark.parametrize(
    ("problem", "shown"),
    [
        (SourceThrottled("slow down"), None),
        (SourceDenied("no"), "PROBLEM: Cannot access stream"),
        (SourceFailed("?"), "PROBLEM: internal Lambda error"),
    ],
)
def test_reads_that_fail_back_off_and_are_shown(problem: SourceFailed, shown: str | None) -> None:
    async def story(scene: Scene) -> None:
        scene.stream.failures = [problem] * 6
        scene.put("one")
        scene.poller().start()
        await asyncio.sleep(8)
        assert scene.function.events == []
        assert not scene.results if shown is None else scene.results[-1].startswith(shown)
        assert scene.stream.reads < 7
        await asyncio.sleep(60)
        assert scene.function.seen() == ["one"]
        assert scene.results[-1] == RESULT_OK

    played(story)


def test_a_stream_that_is_gone_is_shown_and_read_when_it_is_back() -> None:
    async def story(scene: Scene) -> None:
        scene.poller().start()
        await asyncio.sleep(3)
        scene.stream.gone = SourceGone("no stream")
        await asyncio.sleep(120)
        assert scene.results[-1].startswith("PROBLEM: Stream not found")
        assert scene.stream.listings < 15
        scene.stream.gone = None
        scene.put("back")
        await asyncio.sleep(60)
        assert scene.function.seen() == ["back"]

    played(story)


def test_stopping_ends_with_the_batch_under_way_and_the_next_goes_on_behind_it() -> None:
    async def story(scene: Scene) -> None:
        scene.function.takes_s = 5.0
        scene.put(*numbers(0, 20))
        first = scene.poller()
        first.start()
        await asyncio.sleep(2)
        await first.stop()
        assert first.in_flight() == 1
        scene.poller().start()
        await asyncio.sleep(60)
        assert scene.function.batches() == [numbers(0, 10), numbers(10, 20)]
        assert scene.function.most == 1
        assert first.in_flight() == 0

    played(story)


def test_a_shard_is_processed_by_one_owner_and_taken_over_when_its_lease_ends() -> None:
    async def story(scene: Scene) -> None:
        scene.put(*numbers(0, 3))
        lease_args = {"owner": "dead", "now_s": scene.clock.now_s(), "until_s": scene.clock.now_s() + LEASE_S}
        await scene.checkpoints.add("mapping", {"a": ShardProgress(position=scene.mapping.position)})
        dead = await scene.checkpoints.lease("mapping", "a", **lease_args)
        scene.poller().start()
        await asyncio.sleep(LEASE_S - 5)
        assert scene.function.events == []
        await asyncio.sleep(15)
        assert scene.function.seen() == numbers(0, 3)
        with pytest.raises(LeaseLost):
            await scene.checkpoints.advance(dead, ShardProgress(position=scene.mapping.position))

    played(story)


def test_a_function_that_is_deleted_loses_no_record() -> None:
    async def story(scene: Scene) -> None:
        scene.poller().start()
        scene.put("one")
        await asyncio.sleep(3)
        scene.function.outcome = AttemptOutcome.FUNCTION_GONE
        scene.put("two")
        await asyncio.sleep(600)
        assert scene.results[-1] == RESULT_FUNCTION_FAILED
        assert scene.discarded() == []
        assert len(scene.function.events) < 40
        scene.function.outcome = None
        await asyncio.sleep(60)
        assert scene.function.batches()[-1] == ["two"]
        assert scene.results[-1] == RESULT_OK

    played(story, retries_max=3)


@pytest.mark.parametrize("jump_s", [3600.0, -3600.0])
def test_a_wall_clock_that_jumps_changes_nothing(jump_s: float) -> None:
    async def story(scene: Scene) -> None:
        scene.function.takes_s = 1.0
        scene.put(*numbers(0, 60))
        scene.poller().start()
        await asyncio.sleep(2.5)
        scene.clock.jumped_s = jump_s
        await asyncio.sleep(60)
        scene.put("later")
        await asyncio.sleep(10)
        assert scene.function.seen() == [*numbers(0, 60), "later"]
        assert scene.discarded() == []

    played(story)


def test_a_source_that_stays_broken_is_asked_at_the_idle_pace() -> None:
    async def story(scene: Scene) -> None:
        scene.stream = type(scene.stream)(*(f"s{number}" for number in range(800)))
        scene.poller().start()
        await asyncio.sleep(30)
        scene.stream.failures = [SourceFailed("down")] * 1_000_000
        await asyncio.sleep(120)
        before = scene.stream.reads
        await asyncio.sleep(60)
        assert (scene.stream.reads - before) / 60 <= 41

    played(story)


def test_idle_shards_share_one_pace() -> None:
    async def story(scene: Scene) -> None:
        scene.stream = type(scene.stream)(*(f"s{number}" for number in range(400)))
        scene.poller().start()
        await asyncio.sleep(IDLE_AFTER_S + 40)
        before, listings = scene.stream.reads, scene.stream.listings
        await asyncio.sleep(60)
        assert (scene.stream.reads - before) / 60 <= 41
        assert scene.stream.listings == listings
        scene.put("late", shard="s7")
        await asyncio.sleep(400 / 40 + 2)
        assert scene.function.seen() == ["late"]

    played(story)


def test_a_restart_with_many_shards_is_no_stampede() -> None:
    async def story(scene: Scene) -> None:
        scene.stream = type(scene.stream)(*(f"s{number}" for number in range(300)))
        scene.poller().start()
        await asyncio.sleep(1)
        assert scene.stream.reads <= 2 * (20 + 50)
        await asyncio.sleep(6)
        assert scene.stream.reads >= 300

    played(story)


def test_a_flood_is_not_read_faster_than_it_is_processed() -> None:
    async def story(scene: Scene) -> None:
        scene.function.takes_s = 30.0
        for number in range(400):
            scene.put(f"{number}" + "x" * 200_000)
        scene.poller().start()
        await asyncio.sleep(5)
        read = scene.counts.records
        scene.put(*("y" * 200_000 for _ in range(100)))
        await asyncio.sleep(20)
        assert scene.counts.records == read  # 80 MB wait already
        assert len(scene.function.events) == 1
        assert len(scene.function.events[0]["Records"]) == 31  # 6 MB
        assert scene.buffers.used_bytes > 0
        await scene.pollers[0].close(60.0)
        assert scene.buffers.used_bytes == 0

    played(story, batch_size=1000)
