"""Fakes of streams and of their checkpoints for tests. They can be told to fail."""

from collections.abc import Mapping, Sequence

import msgspec

from stoker.services.queue import Delivery
from stoker.services.streams import (
    IteratorExpired,
    LeaseLost,
    Position,
    PositionGone,
    Shard,
    ShardLease,
    ShardProgress,
    SourceFailed,
    SourceGone,
    Start,
    StreamRead,
    StreamRecord,
)


class _Held(msgspec.Struct):
    progress: bytes
    owner: str | None = None
    until_s: float = 0.0
    term: int = 0


class MemoryStreamCheckpoints:
    """The StreamCheckpoints port in dictionaries, encoded as a database keeps it."""

    def __init__(self) -> None:
        self._shards: dict[str, dict[str, _Held]] = {}
        self.deliveries: dict[str, Delivery] = {}
        self.writes = 0

    async def shards(self, mapping: str) -> dict[str, ShardProgress]:
        return {name: _decoded(held) for name, held in self._shards.get(mapping, {}).items()}

    async def add(self, mapping: str, shards: Mapping[str, ShardProgress]) -> None:
        self.writes += 1
        kept = self._shards.setdefault(mapping, {})
        for shard_id, progress in shards.items():
            kept.setdefault(shard_id, _Held(msgspec.json.encode(progress)))

    async def drop(self, mapping: str, shards: Sequence[str]) -> None:
        self.writes += 1
        for shard_id in shards:
            self._shards.get(mapping, {}).pop(shard_id, None)

    async def lease(
        self, mapping: str, shard_id: str, *, owner: str, now_s: float, until_s: float
    ) -> ShardLease | None:
        self.writes += 1
        held = self._shards.get(mapping, {}).get(shard_id)
        if held is None or (held.owner is not None and held.until_s > now_s):
            return None
        held.owner, held.until_s, held.term = owner, until_s, held.term + 1
        return ShardLease(mapping, shard_id, held.term, _decoded(held))

    async def renew(self, owner: str, until_s: float) -> None:
        self.writes += 1
        for kept in self._shards.values():
            for held in kept.values():
                if held.owner == owner:
                    held.until_s = until_s

    async def advance(
        self, lease: ShardLease, progress: ShardProgress, deliveries: Sequence[Delivery] = ()
    ) -> None:
        self.writes += 1
        held = self._holder(lease)
        if held is None:
            raise LeaseLost(lease.shard_id)
        held.progress = msgspec.json.encode(progress)
        self.deliveries.update({one.delivery_id: one for one in deliveries})

    async def release(self, lease: ShardLease) -> None:
        self.writes += 1
        held = self._holder(lease)
        if held is not None:
            held.owner, held.until_s = None, 0.0

    async def forget(self, mapping: str) -> None:
        self.writes += 1
        self._shards.pop(mapping, None)

    async def mappings(self) -> frozenset[str]:
        return frozenset(name for name, kept in self._shards.items() if kept)

    def void_leases(self) -> None:
        """As at a start of the one process that uses them."""
        for kept in self._shards.values():
            for held in kept.values():
                held.owner, held.until_s = None, 0.0

    def _holder(self, lease: ShardLease) -> _Held | None:
        held = self._shards.get(lease.mapping, {}).get(lease.shard_id)
        return held if held is not None and held.owner is not None and held.term == lease.term else None


def _decoded(held: _Held) -> ShardProgress:
    return msgspec.json.decode(held.progress, type=ShardProgress)


class MemoryShard:
    """A shard of a ``MemoryStream``."""

    def __init__(self, shard_id: str, parents: tuple[str, ...]) -> None:
        self.shard_id = shard_id
        self.parents = parents
        self.closed = False
        self.records: list[StreamRecord] = []


class MemoryStream:
    """The StreamSource port over lists. ``failures`` are raised by the next reads, one each."""

    def __init__(self, *shards: str, retention_s: float = 86_400.0) -> None:
        self.open: dict[str, MemoryShard] = {name: MemoryShard(name, ()) for name in shards}
        self.failures: list[SourceFailed] = []
        self.gone: SourceFailed | None = None
        self.reads = 0
        self.listings = 0
        self.expired_before = 0
        """Iterators made by that many calls or fewer are too old."""
        self._iterators = 0
        self._numbers = 0
        self._retention_s = retention_s

    def put(self, shard_id: str, order_key: str, data: str, arrived_at_s: float) -> str:
        """Append a record; its sequence number."""
        self._numbers += 1
        number = str(10**6 + self._numbers)
        event = {"eventID": f"{shard_id}:{number}", "data": data, "key": order_key}
        self.open[shard_id].records.append(
            StreamRecord(
                sequence_number=number,
                order_key=order_key,
                arrived_at_s=arrived_at_s,
                size_bytes=len(data) + 100,
                event=event,
            )
        )
        return number

    def reshard(self, parents: Sequence[str], children: Sequence[str]) -> None:
        """Close shards and open others in their place."""
        for parent in parents:
            self.open[parent].closed = True
        for child in children:
            self.open[child] = MemoryShard(child, tuple(parents))

    def trim(self, shard_id: str, count: int) -> None:
        """Forget the oldest records."""
        del self.open[shard_id].records[:count]

    async def shards(self, arn: str) -> list[Shard]:
        del arn
        self.listings += 1
        if self.gone is not None:
            raise self.gone
        return [
            Shard(shard_id=shard.shard_id, parents=shard.parents, closed=shard.closed)
            for shard in self.open.values()
        ]

    async def iterator(self, arn: str, shard_id: str, position: Position) -> str:
        del arn
        records = self._shard(shard_id).records
        match position.start:
            case Start.OLDEST:
                place = 0
            case Start.LATEST:
                place = int(records[-1].sequence_number) if records else self._numbers + 10**6
            case Start.SINCE:
                earlier = [one for one in records if one.arrived_at_s < position.since_s]
                place = int(earlier[-1].sequence_number) if earlier else 0
            case Start.AFTER:
                place = int(position.sequence_number)
                if place > 10**6 + self._numbers:
                    raise PositionGone("no such record")
        self._iterators += 1
        return f"{self._iterators} {place}"

    async def read(self, arn: str, shard_id: str, iterator: str, *, limit: int) -> StreamRead:
        del arn
        self.reads += 1
        if self.failures:
            raise self.failures.pop(0)
        shard = self._shard(shard_id)
        made, place = map(int, iterator.split())
        if made <= self.expired_before:
            raise IteratorExpired("too old")
        left = [record for record in shard.records if int(record.sequence_number) > place]
        records = left[:limit]
        ended = shard.closed and len(left) <= limit
        self._iterators += 1
        last = records[-1].sequence_number if records else str(place)
        return StreamRead(
            records=records,
            iterator=None if ended else f"{self._iterators} {last}",
            behind=len(left) > limit,
        )

    async def retention_s(self, arn: str) -> float:
        del arn
        return self._retention_s

    async def close(self) -> None:
        pass

    def _shard(self, shard_id: str) -> MemoryShard:
        if self.gone is not None:
            raise self.gone
        if shard_id not in self.open:
            raise SourceGone(f"no shard {shard_id}")
        return self.open[shard_id]
