"""Which shards are read and from where, and the filters of streams."""

import base64
import json
from typing import Any

import pytest

from stoker.events.stream_events import DYNAMODB, KINESIS
from stoker.events.stream_filters import compile_record_filter
from stoker.events.stream_shards import (
    first_shards,
    merged_lanes,
    new_shards,
    readable_shards,
    resume_position,
    sequence_order,
    trimmed_shards,
)
from stoker.services.streams import LaneProgress, Position, Shard, ShardProgress, Start, StreamRecord

LATEST = Position(start=Start.LATEST, since_s=7.0)
OLDEST = Position(start=Start.OLDEST)


def kept(**ended: bool) -> dict[str, ShardProgress]:
    return {name: ShardProgress(position=OLDEST, ended=value) for name, value in ended.items()}


def progress(*done: str, position: Position = OLDEST) -> ShardProgress:
    return ShardProgress(position=position, lanes=tuple(LaneProgress(one) for one in done))


def test_from_the_latest_on_closed_shards_hold_nothing() -> None:
    listed = [Shard(shard_id="a", closed=True), Shard(shard_id="b", parents=("a",))]
    assert {name: one.ended for name, one in first_shards(listed, LATEST).items()} == {"a": True, "b": False}
    assert not any(one.ended for one in first_shards(listed, OLDEST).values())


def test_children_wait_for_all_their_parents() -> None:
    listed = [
        Shard(shard_id="a"),
        Shard(shard_id="b"),
        Shard(shard_id="merged", parents=("a", "b")),
        Shard(shard_id="orphan", parents=("trimmed",)),
    ]
    there = kept(a=False, b=False, merged=False, orphan=False)
    assert readable_shards(listed, there) == ["a", "b", "orphan"]
    assert readable_shards(listed, {**there, **kept(a=True)}) == ["b", "orphan"]
    assert readable_shards(listed, {**there, **kept(a=True, b=True)}) == ["merged", "orphan"]


def test_shards_that_appear_are_read_whole() -> None:
    listed = [Shard(shard_id="a"), Shard(shard_id="b")]
    assert new_shards(listed, kept(a=False)) == {"b": ShardProgress(position=OLDEST)}


def test_what_the_stream_has_no_more_is_dropped_but_never_all() -> None:
    assert trimmed_shards([Shard(shard_id="b")], kept(a=True, b=False)) == ["a"]
    assert trimmed_shards([], kept(a=True, b=True)) == ["b"]


def test_numbers_of_different_lengths_are_ordered() -> None:
    assert sorted(["100", "9", "", "11"], key=sequence_order) == ["", "9", "11", "100"]


def test_reading_goes_on_behind_the_slowest_lane() -> None:
    assert resume_position(progress("100", "9"), first=False) == Position(
        start=Start.AFTER, sequence_number="9"
    )
    assert resume_position(progress("100", ""), first=False) == OLDEST


def test_only_the_first_reader_begins_with_the_latest() -> None:
    assert resume_position(progress(position=LATEST), first=True) == LATEST
    assert resume_position(progress("", position=LATEST), first=False) == Position(
        start=Start.SINCE, since_s=7.0
    )


def test_a_changed_number_of_lanes_goes_on_with_the_slowest() -> None:
    assert merged_lanes(progress("100", "9"), 2) == (LaneProgress("100"), LaneProgress("9"))
    assert merged_lanes(progress("100", "9"), 3) == (LaneProgress("9"),) * 3
    assert merged_lanes(progress(), 2) == (LaneProgress(),) * 2


def record(event: dict[str, Any]) -> StreamRecord:
    return StreamRecord(sequence_number="1", order_key="k", arrived_at_s=0.0, size_bytes=1, event=event)


@pytest.mark.parametrize(
    ("data", "pattern", "keeps"),
    [
        (b'{"kind": "a"}', {"data": {"kind": ["a"]}}, True),
        (b'{"kind": "b"}', {"data": {"kind": ["a"]}}, False),
        (b"text", {"data": ["text"]}, True),
        (b"text", {"data": {"kind": ["a"]}}, False),
        (b'{"kind": "a"}', {"data": ['{"kind": "a"}']}, False),
        (b"\xff", {"data": {"kind": ["a"]}}, False),
        (b"\xff", {"partitionKey": ["k"]}, True),
        (b"text", {"partitionKey": ["other"]}, False),
    ],
)
def test_filters_see_the_data_of_kinesis_decoded(data: bytes, pattern: Any, keeps: bool) -> None:
    test = compile_record_filter(KINESIS, [json.dumps(pattern)])
    assert test is not None
    event = {"kinesis": {"data": base64.b64encode(data).decode(), "partitionKey": "k"}}
    assert test(record(event)) is keeps


def test_filters_see_records_of_dynamodb_as_they_are() -> None:
    pattern = {"eventName": ["INSERT"], "dynamodb": {"NewImage": {"n": {"N": ["1"]}}}}
    test = compile_record_filter(DYNAMODB, [json.dumps(pattern)])
    assert test is not None
    assert test(record({"eventName": "INSERT", "dynamodb": {"NewImage": {"n": {"N": "1"}}}}))
    assert not test(record({"eventName": "REMOVE", "dynamodb": {"NewImage": {"n": {"N": "1"}}}}))
    assert compile_record_filter(DYNAMODB, []) is None
