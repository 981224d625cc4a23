"""The deliveries of settled events in SQL, beside the events; leases as theirs. Knows no destination."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, RowMapping, bindparam, delete, func, insert, select, update

from stoker.services.queue import Delivery, DeliveryKind
from stoker.store.database import Database
from stoker.store.leases import next_due_s, take_due
from stoker.store.schema import deliveries as table

DELIVERY_OVERHEAD_BYTES = 512
"""Counted for each delivery beside its body."""


class SqlDeliveryQueue:
    """The DeliveryQueue port. ``released`` is told the bytes of each that is removed."""

    def __init__(self, database: Database, released: Callable[[int], None]) -> None:
        self._database = database
        self._released = released

    async def take(self, *, now_s: float, limit: int, lease_s: float) -> list[Delivery]:
        rows = await self._database.write(
            lambda connection: take_due(
                connection, table, table.c.delivery_id, now_s=now_s, limit=limit, lease_s=lease_s
            )
        )
        return [_delivery(row) for row in rows]

    async def postpone(self, deliveries: Sequence[Delivery]) -> None:
        rows = [
            {"id": one.delivery_id, "due_at_s": one.due_at_s, "failures": one.failures} for one in deliveries
        ]
        if not rows:
            return
        statement = (
            update(table)
            .where(table.c.delivery_id == bindparam("id"))
            .values(due_at_s=bindparam("due_at_s"), failures=bindparam("failures"), taken_due_at_s=None)
        )
        await self._database.write(lambda connection: connection.execute(statement, rows).close())

    async def remove(self, delivery_id: str) -> None:
        statement = delete(table).where(table.c.delivery_id == delivery_id).returning(table.c.size_bytes)
        size_bytes = await self._database.write(
            lambda connection: connection.execute(statement).scalar_one_or_none()
        )
        if size_bytes is not None:
            self._released(size_bytes)

    async def next_due_s(self) -> float | None:
        return await self._database.read(lambda connection: next_due_s(connection, table))

    async def count(self) -> int:
        return await self._database.read(
            lambda connection: connection.execute(select(func.count()).select_from(table)).scalar_one()
        )


def insert_deliveries(connection: Connection, added: Sequence[Delivery]) -> None:
    """Add rows in the caller's transaction."""
    if added:
        connection.execute(insert(table), [_row(one) for one in added])


def stored_bytes(connection: Connection) -> int:
    """What all deliveries count together."""
    statement = select(func.coalesce(func.sum(table.c.size_bytes), 0))
    return int(connection.execute(statement).scalar_one())


def delivery_size_bytes(delivery: Delivery) -> int:
    """What a delivery counts against the queue's capacity."""
    return len(delivery.body) + DELIVERY_OVERHEAD_BYTES


def _row(delivery: Delivery) -> dict[str, Any]:
    return {
        "delivery_id": delivery.delivery_id,
        "kind": delivery.kind.value,
        "request_id": delivery.request_id,
        "function_arn": delivery.function_arn,
        "destination": delivery.destination,
        "body": delivery.body,
        "attributes": msgspec.json.encode(delivery.attributes),
        "created_at_s": delivery.created_at_s,
        "due_at_s": delivery.due_at_s,
        "taken_due_at_s": None,
        "failures": delivery.failures,
        "size_bytes": delivery_size_bytes(delivery),
    }


def _delivery(row: RowMapping) -> Delivery:
    return Delivery(
        delivery_id=row["delivery_id"],
        kind=DeliveryKind(row["kind"]),
        request_id=row["request_id"],
        function_arn=row["function_arn"],
        destination=row["destination"],
        body=row["body"],
        attributes=msgspec.json.decode(row["attributes"], type=dict[str, str]),
        created_at_s=row["created_at_s"],
        due_at_s=row["taken_due_at_s"],
        failures=row["failures"],
    )
