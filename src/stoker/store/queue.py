"""The durable queue of asynchronous events in SQL: due times are rows, a lease is a due time moved ahead."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, RowMapping, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from stoker.core.errors import StokerError
from stoker.services.functions import FunctionKey
from stoker.services.queue import Delivery, EventExists, QueuedEvent, QueueFull, QueueReport
from stoker.store.database import Database
from stoker.store.deliveries import (
    SqlDeliveryQueue,
    delivery_size_bytes,
    insert_deliveries,
    stored_bytes,
)
from stoker.store.grouping import Grouping
from stoker.store.leases import next_due_s, take_due, void_leases
from stoker.store.queue_report import queue_report
from stoker.store.schema import deliveries as deliveries_table
from stoker.store.schema import events
from stoker.store.streams import SqlStreamCheckpoints, void_shard_leases

EVENT_OVERHEAD_BYTES = 512
"""Counted for each event beside its payload, so that many small events cannot fill the disk."""


_Settled = tuple[str, Sequence[Delivery]]
"""A request id, and what its event leaves."""


class SqlEventQueue:
    """The EventQueue port on a database of its own. Only this process writes to the file."""

    def __init__(self, database: Database, *, capacity_bytes: int) -> None:
        self._database = database
        self._capacity_bytes = capacity_bytes
        self._count = 0
        self._bytes = 0
        self._puts = Grouping(self._put_all)
        self._settles = Grouping(self._settle_all)
        self.deliveries = SqlDeliveryQueue(database, lambda size_bytes: self._account(0, -size_bytes))
        self.streams = SqlStreamCheckpoints(database, lambda size_bytes: self._account(0, size_bytes))

    async def recover(self) -> None:
        """Count what waits, and void the leases of a process that is gone: due again as before it took them.

        Call once, before anything else.
        """

        def transaction(connection: Connection) -> None:
            void_leases(connection, events)
            void_leases(connection, deliveries_table)
            void_shard_leases(connection)

        await self._database.write(transaction)
        self._count, self._bytes = await self._database.read(_depth)

    async def put(self, event: QueuedEvent, *, lease_s: float = 0.0) -> None:
        size_bytes = event_size_bytes(event)
        if self._bytes + size_bytes > self._capacity_bytes:
            raise QueueFull(f"{self._bytes} of {self._capacity_bytes} bytes wait")
        self._account(1, size_bytes)
        try:
            await self._puts.submit(_row(event, lease_s))
        except StokerError:
            self._account(-1, -size_bytes)
            raise

    async def take(self, *, now_s: float, limit: int, lease_s: float) -> list[QueuedEvent]:
        rows = await self._database.write(
            lambda connection: take_due(
                connection, events, events.c.request_id, now_s=now_s, limit=limit, lease_s=lease_s
            )
        )
        return [_event(row) for row in rows]

    async def reschedule(self, event: QueuedEvent) -> None:
        statement = (
            update(events)
            .where(events.c.request_id == event.request_id)
            .values(
                due_at_s=event.due_at_s,
                taken_due_at_s=None,
                attempts=event.attempts,
                throttles=event.throttles,
            )
        )
        await self._database.write(lambda connection: connection.execute(statement).close())

    async def settle(self, request_id: str, deliveries: Sequence[Delivery] = ()) -> None:
        size_bytes = await self._settles.submit((request_id, deliveries))
        if size_bytes is not None:
            self._account(-1, sum(map(delivery_size_bytes, deliveries)) - size_bytes)

    async def next_due_s(self) -> float | None:
        return await self._database.read(lambda connection: next_due_s(connection, events))

    async def report(self) -> QueueReport:
        """What waits, summed up for people."""
        return await queue_report(self._database)

    async def depth(self) -> tuple[int, int]:
        return self._count, self._bytes

    async def _put_all(self, rows: Sequence[dict[str, Any]]) -> Sequence[None]:
        def transaction(connection: Connection) -> None:
            try:
                connection.execute(insert(events), list(rows))
            except IntegrityError as problem:
                raise EventExists(f"one of {[row['request_id'] for row in rows]}") from problem

        await self._database.write(transaction)
        return [None] * len(rows)

    async def _settle_all(self, settled: Sequence[_Settled]) -> Sequence[int | None]:
        """The bytes of each event that was there."""
        left = dict(settled)
        statement = (
            delete(events)
            .where(events.c.request_id.in_(left))
            .returning(events.c.request_id, events.c.size_bytes)
        )

        def transaction(connection: Connection) -> dict[str, int]:
            gone = {row.request_id: row.size_bytes for row in connection.execute(statement)}
            insert_deliveries(connection, [one for request_id in gone for one in left[request_id]])
            return gone

        gone = await self._database.write(transaction)
        return [gone.pop(request_id, None) for request_id, _ in settled]

    def _account(self, count: int, size_bytes: int) -> None:
        # Counted here, since summing the table for every event would cost more the longer the queue is.
        self._count += count
        self._bytes += size_bytes


def _depth(connection: Connection) -> tuple[int, int]:
    row = connection.execute(select(func.count(), func.coalesce(func.sum(events.c.size_bytes), 0))).one()
    return int(row[0]), int(row[1]) + stored_bytes(connection)


def event_size_bytes(event: QueuedEvent) -> int:
    """What an event counts against the queue's capacity."""
    return len(event.payload) + len(event.client_context or "") + EVENT_OVERHEAD_BYTES


def _row(event: QueuedEvent, lease_s: float) -> dict[str, Any]:
    return {
        "request_id": event.request_id,
        "account": event.key.account,
        "region": event.key.region,
        "name": event.key.name,
        "qualifier": event.qualifier,
        "payload": event.payload,
        "accepted_at_s": event.accepted_at_s,
        "due_at_s": event.due_at_s + lease_s,
        "taken_due_at_s": event.due_at_s if lease_s else None,
        "attempts": event.attempts,
        "throttles": event.throttles,
        "client_context": event.client_context,
        "trace_id": event.trace_id,
        "size_bytes": event_size_bytes(event),
    }


def _event(row: RowMapping) -> QueuedEvent:
    return QueuedEvent(
        request_id=row["request_id"],
        key=FunctionKey(row["account"], row["region"], row["name"]),
        qualifier=row["qualifier"],
        payload=row["payload"],
        accepted_at_s=row["accepted_at_s"],
        due_at_s=row["taken_due_at_s"],
        attempts=row["attempts"],
        throttles=row["throttles"],
        client_context=row["client_context"],
        trace_id=row["trace_id"],
    )
