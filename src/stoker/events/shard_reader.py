"""Reads one leased shard and deals its records out to lanes. What is done with them is the lanes' part."""

import asyncio
import zlib
from typing import Final

import msgspec
import structlog

from stoker.events.shard_ledger import ShardLedger
from stoker.events.stream_batches import Discard
from stoker.events.stream_events import Origin, discard_delivery
from stoker.events.stream_filters import RecordTest
from stoker.events.stream_lane import Lane, Stopped
from stoker.events.stream_parts import (
    BROKEN_AFTER,
    StreamMapping,
    StreamParts,
    backoff_s,
    result_of_source,
)
from stoker.events.stream_shards import merged_lanes, resume_position, sequence_order
from stoker.services.sources import SourceFailed
from stoker.services.streams import (
    IteratorExpired,
    LaneProgress,
    LeaseLost,
    Position,
    PositionGone,
    ShardLease,
    SourceGone,
    Start,
    StreamRead,
    StreamRecord,
)

READ_MAX: Final = 10_000
"""Records of one read."""
READ_BETWEEN_S: Final = 0.2
"""Kinesis answers five reads a second of a shard (quotas)."""
POLL_S: Final = 1.0
"""Between reads of a shard that had nothing more (developer guide: once a second)."""
IDLE_AFTER_S: Final = 30.0
"""A shard that had nothing for so long is read at the pace that all idle ones share."""
BUFFER_MAX_BYTES: Final = 16 * 1024 * 1024
"""Of a shard's records that wait or are processed; one read may go over it."""

_OLDEST: Final = Position(start=Start.OLDEST)

_log = structlog.get_logger("stoker.events")


class ShardReader:
    """One shard for as long as its lease is held."""

    def __init__(
        self, lease: ShardLease, mapping: StreamMapping, parts: StreamParts, keeps: RecordTest | None
    ) -> None:
        self._lease = lease
        self._mapping = mapping
        self._parts = parts
        self._keeps = keeps
        self._origin = Origin(
            kind=mapping.kind,
            mapping=mapping.uuid,
            source_arn=mapping.source_arn,
            function_arn=mapping.function_arn,
            shard_id=lease.shard_id,
        )
        self._ledger = ShardLedger(lease, parts)
        self._buffered_bytes = 0
        self._room = asyncio.Event()
        self._position = resume_position(lease.progress, first=lease.term == 1)
        self._iterator: str | None = None
        self._since_s = 0.0
        self._failures = 0
        self._can_be_read = False
        self._read_something_s = parts.clock.monotonic_s()
        self._lanes = self._ledger.lanes = [
            Lane(self._origin, mapping, parts, progress, self._commit, self._released)
            for progress in merged_lanes(lease.progress, mapping.lanes)
        ]

    def stop(self) -> None:
        """Read nothing more; ``run`` ends when the batches under way have."""
        for lane in self._lanes:
            lane.stop()

    def in_flight(self) -> int:
        """Batches that are being processed."""
        return sum(lane.working for lane in self._lanes)

    async def run(self) -> bool:
        """Until the shard is drained (True), or gone, its lease lost, or ``stop`` called (False)."""
        loop = asyncio.get_running_loop()
        reading = loop.create_task(self._read_all())
        lanes = [loop.create_task(lane.run()) for lane in self._lanes]
        try:
            await asyncio.wait([reading, *lanes], return_when=asyncio.FIRST_EXCEPTION)
            if any(task.done() and task.exception() for task in (reading, *lanes)):
                self.stop()
                reading.cancel()
                await asyncio.wait(lanes)
            for task in (*lanes, reading):
                await task
            await self._ledger.end()
        except (Stopped, LeaseLost, SourceGone):
            return False
        else:
            return True
        finally:
            for task in (reading, *lanes):
                task.cancel()
            await asyncio.gather(reading, *lanes, return_exceptions=True)
            self._released(self._buffered_bytes)
            await self._parts.checkpoints.release(self._lease)

    async def _read_all(self) -> None:
        """Read to the end of the shard. Raises SourceGone, LeaseLost."""
        ended = False
        while not ended:
            while self._buffered_bytes >= BUFFER_MAX_BYTES or (
                self._buffered_bytes and self._parts.buffers.full
            ):
                self._room.clear()
                await self._room.wait()
            began_s = self._parts.clock.monotonic_s()
            read = await self._read()
            if read is not None:
                ended = read.iterator is None
                if not ended:
                    await self._pause(began_s, read)
        for lane in self._lanes:
            lane.end()

    async def _read(self) -> StreamRead | None:
        """Read once; None: it is to be tried again. Raises SourceGone, LeaseLost."""
        now_s = self._parts.clock.now_s()
        try:
            read = await self._read_at()
        except IteratorExpired:
            self._go_to(self._behind_what_was_read())
        except PositionGone as problem:
            if self._position == _OLDEST:
                raise SourceGone(str(problem)) from problem
            self._warn(
                "records of a stream were trimmed before they were read; the oldest come next", problem
            )
            self._go_to(_OLDEST)
            for lane in self._lanes:  # what is there may be another stream's, of the same name
                lane.progress = msgspec.structs.replace(lane.progress, done="")
        except SourceFailed as problem:
            await self._failed(problem)
        else:
            self._failures = 0
            if not self._can_be_read:
                self._can_be_read = True
                self._parts.report_read()
            await self._take(read, now_s)
            return read
        return None

    async def _read_at(self) -> StreamRead:
        where = (self._mapping.source_arn, self._lease.shard_id)
        if self._iterator is None:
            await self._parts.starting.turn()
            position = self._position
            self._since_s = position.since_s // 1 if position.start is Start.SINCE else 0.0
            # What arrives until the source answers is not to be missed, should it fail.
            self._position = _since(position)
            self._iterator = await self._parts.source.iterator(*where, position)
        self._parts.counts.reads += 1
        return await self._parts.source.read(*where, self._iterator, limit=READ_MAX)

    async def _take(self, read: StreamRead, now_s: float) -> None:
        """Deal the records out; a read that holds none for a lane is done with at once."""
        self._iterator = read.iterator
        if read.records:
            self._read_something_s = self._parts.clock.monotonic_s()
            for record in read.records:
                self._put(record)
            self._ledger.frontier = read.records[-1].sequence_number
            if all(lane.idle for lane in self._lanes):
                await self._ledger.advance_idle()
        if not read.behind:
            for lane in self._lanes:
                lane.caught_up(now_s)

    def _put(self, record: StreamRecord) -> None:
        lane = self._lanes[zlib.crc32(record.order_key.encode()) % len(self._lanes)]
        done = sequence_order(record.sequence_number) <= sequence_order(lane.progress.done)
        if done or record.arrived_at_s < self._since_s:
            return
        self._parts.counts.records += 1
        if self._keeps is not None and not self._keeps(record):
            self._parts.counts.filtered += 1
            return
        self._buffered_bytes += record.size_bytes
        self._parts.buffers.used_bytes += record.size_bytes
        lane.put(record)

    def _released(self, size_bytes: int) -> None:
        self._buffered_bytes -= size_bytes
        self._parts.buffers.used_bytes -= size_bytes
        self._room.set()

    async def _pause(self, began_s: float, read: StreamRead) -> None:
        wait_s = READ_BETWEEN_S if read.behind else POLL_S
        await asyncio.sleep(max(0.0, began_s + wait_s - self._parts.clock.monotonic_s()))
        if began_s - self._read_something_s > IDLE_AFTER_S:
            await self._parts.idle.turn()

    async def _failed(self, problem: SourceFailed) -> None:
        """Say what is wrong, and wait; what is gone ends the reading."""
        self._parts.counts.source_errors += 1
        self._can_be_read = False
        result = result_of_source(problem, self._mapping.source_arn)
        if result is not None:
            self._parts.report(result)
        self._warn("a stream could not be read", problem)
        if isinstance(problem, SourceGone):
            raise problem
        await asyncio.sleep(backoff_s(self._failures, self._parts.random))
        self._failures += 1
        if self._failures >= BROKEN_AFTER:
            await self._parts.idle.turn()

    def _go_to(self, position: Position) -> None:
        self._position, self._iterator = position, None

    def _behind_what_was_read(self) -> Position:
        if self._ledger.frontier:
            return Position(start=Start.AFTER, sequence_number=self._ledger.frontier)
        return self._position

    def _warn(self, what: str, problem: Exception) -> None:
        _log.warning(
            what,
            mapping=self._mapping.uuid,
            source=self._mapping.source_arn,
            shard=self._lease.shard_id,
            reason=str(problem),
        )

    async def _commit(self, lane: Lane, progress: LaneProgress, discard: Discard | None) -> None:
        destination = self._mapping.on_failure
        if discard is None or not destination:
            await self._ledger.advance(lane, progress, ())
            return
        role_arn = await self._parts.role_arn(self._mapping.function, self._mapping.qualifier)
        now_s = self._parts.clock.now_s()
        delivery = discard_delivery(self._origin, discard, destination, role_arn, now_s)
        await self._ledger.advance(lane, progress, (delivery,))
        self._parts.delivery_added()


def _since(position: Position) -> Position:
    """Where to go on if nothing was read: not at what is the latest then."""
    if position.start is Start.LATEST:
        return Position(start=Start.SINCE, since_s=position.since_s)
    return position
