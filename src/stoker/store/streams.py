"""How far the shards of streams are processed, in SQL beside the deliveries. Knows no stream."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, and_, delete, insert, or_, select, update

from stoker.services.queue import Delivery
from stoker.services.streams import LeaseLost, ShardLease, ShardProgress
from stoker.store.database import Database
from stoker.store.deliveries import delivery_size_bytes, insert_deliveries
from stoker.store.schema import stream_shards as table

_DECODER = msgspec.json.Decoder(ShardProgress)


class SqlStreamCheckpoints:
    """The StreamCheckpoints port. ``added`` is told the bytes of the deliveries that were added."""

    def __init__(self, database: Database, added: Callable[[int], None]) -> None:
        self._database = database
        self._added = added

    async def shards(self, mapping: str) -> dict[str, ShardProgress]:
        query = select(table.c.shard_id, table.c.progress).where(table.c.mapping == mapping)
        rows = await self._database.read(lambda connection: list(connection.execute(query)))
        return {shard_id: _DECODER.decode(progress) for shard_id, progress in rows}

    async def add(self, mapping: str, shards: Mapping[str, ShardProgress]) -> None:
        def transaction(connection: Connection) -> None:
            there = set(
                connection.execute(select(table.c.shard_id).where(table.c.mapping == mapping)).scalars()
            )
            rows = [
                {**_row(progress), "mapping": mapping, "shard_id": shard_id, "until_s": 0.0, "term": 0}
                for shard_id, progress in shards.items()
                if shard_id not in there
            ]
            if rows:
                connection.execute(insert(table), rows)

        await self._database.write(transaction)

    async def drop(self, mapping: str, shards: Sequence[str]) -> None:
        statement = delete(table).where(table.c.mapping == mapping, table.c.shard_id.in_(shards))
        await self._database.write(lambda connection: connection.execute(statement).close())

    async def lease(
        self, mapping: str, shard_id: str, *, owner: str, now_s: float, until_s: float
    ) -> ShardLease | None:
        statement = (
            update(table)
            .where(
                table.c.mapping == mapping,
                table.c.shard_id == shard_id,
                or_(table.c.owner.is_(None), table.c.until_s <= now_s),
            )
            .values(owner=owner, until_s=until_s, term=table.c.term + 1)
            .returning(table.c.term, table.c.progress)
        )
        row = await self._database.write(lambda connection: connection.execute(statement).one_or_none())
        return None if row is None else ShardLease(mapping, shard_id, row[0], _DECODER.decode(row[1]))

    async def renew(self, owner: str, until_s: float) -> None:
        statement = update(table).where(table.c.owner == owner).values(until_s=until_s)
        await self._database.write(lambda connection: connection.execute(statement).close())

    async def advance(
        self, lease: ShardLease, progress: ShardProgress, deliveries: Sequence[Delivery] = ()
    ) -> None:
        statement = update(table).where(_held(lease)).values(**_row(progress)).returning(table.c.term)

        def transaction(connection: Connection) -> None:
            if connection.execute(statement).one_or_none() is None:
                raise LeaseLost(f"{lease.mapping} {lease.shard_id}")
            insert_deliveries(connection, deliveries)

        await self._database.write(transaction)
        self._added(sum(map(delivery_size_bytes, deliveries)))

    async def release(self, lease: ShardLease) -> None:
        statement = update(table).where(_held(lease)).values(owner=None, until_s=0.0)
        await self._database.write(lambda connection: connection.execute(statement).close())

    async def forget(self, mapping: str) -> None:
        statement = delete(table).where(table.c.mapping == mapping)
        await self._database.write(lambda connection: connection.execute(statement).close())

    async def mappings(self) -> frozenset[str]:
        query = select(table.c.mapping).distinct()
        return await self._database.read(lambda connection: frozenset(connection.execute(query).scalars()))


def void_shard_leases(connection: Connection) -> None:
    """Give back what a process that is gone had leased."""
    connection.execute(
        update(table).where(table.c.owner.is_not(None)).values(owner=None, until_s=0.0)
    ).close()


def _held(lease: ShardLease) -> ColumnElement[bool]:
    return and_(
        table.c.mapping == lease.mapping,
        table.c.shard_id == lease.shard_id,
        table.c.term == lease.term,
        table.c.owner.is_not(None),
    )


def _row(progress: ShardProgress) -> dict[str, Any]:
    return {"progress": msgspec.json.encode(progress)}
