"""How far one leased shard is processed: what its lanes have done, written before they go on."""

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec
import structlog

from stoker.core.errors import StokerError
from stoker.events.stream_lane import Lane
from stoker.events.stream_parts import StreamParts
from stoker.events.stream_shards import sequence_order
from stoker.services.queue import Delivery
from stoker.services.streams import LaneProgress, LeaseLost, ShardLease, ShardProgress

AGAIN_S: Final = 1.0
"""Before a write that the store refused is tried again."""

_log = structlog.get_logger("stoker.events")


class ShardLedger:
    """Writes progress, one write after the other."""

    def __init__(self, lease: ShardLease, parts: StreamParts) -> None:
        self._lease = lease
        self._parts = parts
        self._writing = asyncio.Lock()
        self.lanes: Sequence[Lane] = ()
        self.frontier = ""
        """The last sequence number that was read."""

    async def advance(self, lane: Lane, progress: LaneProgress, deliveries: Sequence[Delivery]) -> None:
        """Keep what a lane has done, together with what is to be sent. Raises LeaseLost."""
        # Under the lock, for no write may show what another has not yet written with its deliveries.
        async with self._writing:
            await self._write(self._progress(lane, progress), deliveries)
            lane.progress = progress

    async def advance_idle(self) -> None:
        """Keep that everything which was read is done with. Raises LeaseLost."""
        async with self._writing:
            await self._write(self._progress(), ())

    async def end(self) -> None:
        """Keep that the shard is drained. Raises LeaseLost."""
        async with self._writing:
            await self._write(msgspec.structs.replace(self._progress(), ended=True), ())

    def _progress(self, changed: Lane | None = None, progress: LaneProgress | None = None) -> ShardProgress:
        lanes = tuple(
            progress if lane is changed and progress is not None else self._shown(lane) for lane in self.lanes
        )
        return ShardProgress(position=self._lease.progress.position, lanes=lanes)

    def _shown(self, lane: Lane) -> LaneProgress:
        """A lane with nothing to do has done all that was read: what was not for it, or was filtered."""
        done = lane.progress.done
        if lane.idle:
            done = max(done, self.frontier, key=sequence_order)
        return msgspec.structs.replace(lane.progress, done=done)

    async def _write(self, progress: ShardProgress, deliveries: Sequence[Delivery]) -> None:
        while True:
            try:
                await self._parts.checkpoints.advance(self._lease, progress, deliveries)
            except LeaseLost:
                raise
            except StokerError as problem:
                _log.error(
                    "the progress of a shard could not be kept; trying again",
                    mapping=self._lease.mapping,
                    shard=self._lease.shard_id,
                    reason=str(problem),
                )
                await asyncio.sleep(AGAIN_S)
            else:
                return
