"""Which shards of a stream are read, and from where: parents before children. Pure."""

from collections.abc import Mapping, Sequence

from stoker.services.streams import LaneProgress, Position, Shard, ShardProgress, Start

_OLDEST = ShardProgress(position=Position(start=Start.OLDEST))


def first_shards(listed: Sequence[Shard], position: Position) -> dict[str, ShardProgress]:
    """What a mapping begins with. From the latest on there is nothing in shards that are closed."""
    latest = position.start is Start.LATEST
    return {
        shard.shard_id: ShardProgress(position=position, ended=latest and shard.closed) for shard in listed
    }


def new_shards(listed: Sequence[Shard], kept: Mapping[str, ShardProgress]) -> dict[str, ShardProgress]:
    """Shards that appeared since: resharding made them, so all they hold is new."""
    return {shard.shard_id: _OLDEST for shard in listed if shard.shard_id not in kept}


def readable_shards(listed: Sequence[Shard], kept: Mapping[str, ShardProgress]) -> list[str]:
    """Shards that are not read to their end and whose parents are; a parent that is not kept was trimmed."""
    return [
        shard.shard_id
        for shard in listed
        if shard.shard_id in kept
        and not kept[shard.shard_id].ended
        and all(parent not in kept or kept[parent].ended for parent in shard.parents)
    ]


def trimmed_shards(listed: Sequence[Shard], kept: Mapping[str, ShardProgress]) -> list[str]:
    """Kept shards that the stream has no more. One stays, for a mapping that keeps none begins anew."""
    there = {shard.shard_id for shard in listed}
    gone = [shard_id for shard_id in kept if shard_id not in there]
    return gone if there else gone[1:]


def merged_lanes(progress: ShardProgress, lanes: int) -> tuple[LaneProgress, ...]:
    """How far each of ``lanes`` is; where their number was changed, as far as the last of the old ones.

    What the others had done beyond comes again, and open windows begin afresh (ParallelizationFactor can be
    changed at any time).
    """
    if len(progress.lanes) == lanes:
        return progress.lanes
    slowest = min((lane.done for lane in progress.lanes), key=sequence_order, default="")
    return (LaneProgress(slowest),) * lanes


def resume_position(progress: ShardProgress, *, first: bool) -> Position:
    """Where to go on: behind what every lane has done. ``first``: nobody read the shard before.

    Where the latest was to be the first and nothing is done yet, what arrived since must not be missed.
    """
    done = min((lane.done for lane in progress.lanes), key=sequence_order, default="")
    if done:
        return Position(start=Start.AFTER, sequence_number=done)
    if progress.position.start is Start.LATEST and not first:
        return Position(start=Start.SINCE, since_s=progress.position.since_s)
    return progress.position


def sequence_order(sequence_number: str) -> int:
    """Sequence numbers are decimal and of different lengths; the empty one is before all."""
    return int(sequence_number) if sequence_number.isdecimal() else -1
