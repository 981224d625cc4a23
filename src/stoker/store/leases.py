"""Rows that fall due, as both tables of the queue have them: a lease is a due time moved ahead.

A table has ``due_at_s``, and ``taken_due_at_s``, which keeps the earlier due time while a row is leased.
"""

from sqlalchemy import Column, Connection, RowMapping, Table, func, select, update


def take_due(
    connection: Connection, table: Table, key: Column[str], *, now_s: float, limit: int, lease_s: float
) -> list[RowMapping]:
    """Up to ``limit`` rows that are due, the longest due first; not due again for ``lease_s``.

    When each fell due is its ``taken_due_at_s``.
    """
    due = (
        select(key)
        .where(table.c.due_at_s <= now_s)
        .order_by(table.c.due_at_s)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    lease = (
        update(table)
        .where(key.in_(due.scalar_subquery()))
        .values(
            taken_due_at_s=func.coalesce(table.c.taken_due_at_s, table.c.due_at_s),
            due_at_s=now_s + lease_s,
        )
        .returning(table)
    )
    rows = list(connection.execute(lease).mappings())
    rows.sort(key=lambda row: row["taken_due_at_s"])
    return rows


def next_due_s(connection: Connection, table: Table) -> float | None:
    """When the next row falls due; None when there is none."""
    return connection.execute(select(func.min(table.c.due_at_s))).scalar_one()


def void_leases(connection: Connection, table: Table) -> None:
    """Make what a process that is gone had taken due again as before."""
    statement = update(table).where(table.c.taken_due_at_s.is_not(None))
    connection.execute(statement.values(due_at_s=table.c.taken_due_at_s, taken_due_at_s=None)).close()
