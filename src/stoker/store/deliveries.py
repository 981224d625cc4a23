"""The deliveries of settled events in SQL, beside the events; leases as theirs. Knows no destination."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, RowMapping, bindparam, delete, func, insert, select, update

from stoker.services.queue import Delivery, DeliveryKind
from stoker.store.database import Database
from stoker.store.schema import deliveries as table

DELIVERY_OVERHEAD_BYTES = 512
"""Counted for each delivery beside its body."""


class SqlDeliveryQueue:
    """The DeliveryQueue port. ``released`` is told the bytes of each that is removed."""

    def __init__(self, database: Database, released: Callable[[int], None]) -> None:
        self._database = database
        self._released = released

    async def take(self, *, now_s: float, limit: int, lease_s: float) -> list[Delivery]:
        due = (
            select(table)
            .where(table.c.due_at_s <= now_s)
            .order_by(table.c.due_at_s)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        lease = (
            update(table)
            .where(table.c.delivery_id == bindparam("taken_id"))
            .values(
                taken_due_at_s=func.coalesce(table.c.taken_due_at_s, table.c.due_at_s),
                due_at_s=now_s + lease_s,
            )
        )

        def transaction(connection: Connection) -> list[RowMapping]:
            rows = list(connection.execute(due).mappings())
            if rows:
                connection.execute(lease, [{"taken_id": row["delivery_id"]} for row in rows])
            return rows

        return [_delivery(row) for row in await self._database.write(transaction)]

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
        return await self._database.read(
            lambda connection: connection.execute(select(func.min(table.c.due_at_s))).scalar_one()
        )

    async def count(self) -> int:
        return await self._database.read(
            lambda connection: connection.execute(select(func.count()).select_from(table)).scalar_one()
        )


def void_leases(connection: Connection) -> None:
    """Make what a process that is gone had taken due again as before."""
    leased = table.c.taken_due_at_s.is_not(None)
    statement = update(table).where(leased)
    connection.execute(statement.values(due_at_s=table.c.taken_due_at_s, taken_due_at_s=None))


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
        due_at_s=row["due_at_s"],
        failures=row["failures"],
    )
