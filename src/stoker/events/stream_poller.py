"""The poller of one mapping to a stream: has a reader for each shard. Records are the readers' part."""

import asyncio
from typing import Final

import msgspec
import structlog

from stoker.events.shard_reader import ShardReader
from stoker.events.stream_filters import compile_record_filter
from stoker.events.stream_parts import (
    BROKEN_AFTER,
    StreamMapping,
    StreamParts,
    backoff_s,
    result_of_source,
)
from stoker.events.stream_shards import first_shards, new_shards, readable_shards, trimmed_shards
from stoker.services.sources import SourceFailed
from stoker.services.streams import Position, Start

LEASE_S: Final = 30.0
RELIST_S: Final = 300.0
"""Shards appear when others end, which is seen at once; this is for sources that say so late."""
AGAIN_S: Final = 1.0
"""Before a shard that another holds is asked for again."""
CHILDLESS_S: Final = 5.0
"""Before a stream is listed again all of whose known shards are drained."""

_log = structlog.get_logger("stoker.events")


class StreamPoller:
    """Runs until it is stopped; batches under way end by themselves, and only then are their shards free."""

    def __init__(self, mapping: StreamMapping, parts: StreamParts) -> None:
        self._mapping = mapping
        self._parts = parts
        self._keeps = compile_record_filter(mapping.kind, mapping.filters)
        self._readers: dict[str, ShardReader] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._lister: asyncio.Task[None] | None = None
        self._failures = 0
        self._stopping = False

    def start(self) -> None:
        """Begin to read."""
        self._lister = asyncio.get_running_loop().create_task(self._follow())

    async def stop(self) -> None:
        """Read nothing more and begin no batch."""
        self._stopping = True
        self._wake.set()
        for reader in self._readers.values():
            reader.stop()

    async def close(self, grace_s: float) -> None:
        """Stop, and give batches under way ``grace_s``."""
        await self.stop()
        tasks = [*self._tasks, *((self._lister,) if self._lister else ())]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=grace_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def in_flight(self) -> int:
        """Batches that are being processed; once it was stopped, shards that are not given back."""
        if self._stopping:
            return len(self._readers)
        return sum(reader.in_flight() for reader in self._readers.values())

    async def _follow(self) -> None:
        """Have a reader for every shard that is to be read."""
        while not self._stopping:
            self._wake.clear()
            try:
                broken = self._failures >= BROKEN_AFTER
                await (self._parts.idle if broken else self._parts.starting).turn()
                wait_s = await self._lead()
                self._failures = 0
            except Exception as problem:
                wait_s = self._failed(problem)
            try:
                await asyncio.wait_for(self._wake.wait(), wait_s)
            except TimeoutError:
                continue

    async def _lead(self) -> float:
        """Look at the shards and start readers; how long until the next look."""
        mapping, checkpoints = self._mapping, self._parts.checkpoints
        listed = await self._parts.source.shards(mapping.source_arn)
        kept = await checkpoints.shards(mapping.uuid)
        added = new_shards(listed, kept) if kept else first_shards(listed, self._first_position())
        if added:
            await checkpoints.add(mapping.uuid, added)
        trimmed = trimmed_shards(listed, kept)
        if trimmed:
            await checkpoints.drop(mapping.uuid, trimmed)
        known = {**added, **{name: kept[name] for name in kept if name not in trimmed}}
        wanted = readable_shards(listed, known)
        refused = [name for name in wanted if name not in self._readers and not await self._begin(name)]
        if refused:
            return AGAIN_S
        return RELIST_S if self._readers else CHILDLESS_S

    async def _begin(self, shard_id: str) -> bool:
        """Lease a shard and read it; whether nobody else holds it."""
        now_s = self._parts.clock.now_s()
        lease = await self._parts.checkpoints.lease(
            self._mapping.uuid, shard_id, owner=self._parts.owner, now_s=now_s, until_s=now_s + LEASE_S
        )
        if lease is None:
            return False
        if self._stopping:
            await self._parts.checkpoints.release(lease)
            return True
        reader = ShardReader(lease, self._mapping, self._parts, self._keeps)
        self._readers[shard_id] = reader
        task = asyncio.get_running_loop().create_task(self._read(shard_id, reader))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def _read(self, shard_id: str, reader: ShardReader) -> None:
        try:
            if not await reader.run() and not self._stopping:
                await asyncio.sleep(AGAIN_S)
        except Exception as problem:
            _log.error(
                "a shard could not be processed; trying again",
                mapping=self._mapping.uuid,
                shard=shard_id,
                reason=repr(problem),
            )
            await asyncio.sleep(AGAIN_S)
        finally:
            del self._readers[shard_id]
            self._wake.set()

    def _first_position(self) -> Position:
        position = self._mapping.position
        if position.start is Start.LATEST:
            return msgspec.structs.replace(position, since_s=self._parts.clock.now_s())
        return position

    def _failed(self, problem: Exception) -> float:
        """Say what is wrong; how long to wait."""
        self._parts.counts.source_errors += 1
        if isinstance(problem, SourceFailed):
            result = result_of_source(problem, self._mapping.source_arn)
            if result is not None:
                self._parts.report(result)
        _log.warning(
            "an event source could not be read; trying again",
            mapping=self._mapping.uuid,
            source=self._mapping.source_arn,
            reason=str(problem) if isinstance(problem, SourceFailed) else repr(problem),
        )
        wait_s = backoff_s(self._failures, self._parts.random)
        self._failures += 1
        return wait_s
