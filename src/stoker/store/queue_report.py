"""What waits in the queue's database, summed up by function and destination, for people. Reads only."""

from sqlalchemy import Connection, case, func, select

from stoker.services.queue import QueueReport, WaitingDeliveries, WaitingEvents
from stoker.store.database import Database
from stoker.store.schema import deliveries, events

ROWS_MAX = 1000
"""Functions, and destinations, in a report; those of which most waits come first."""


async def queue_report(database: Database) -> QueueReport:
    """Summed up in one snapshot; takes as long as the queue is deep."""
    return await database.read(lambda connection: QueueReport(_events(connection), _deliveries(connection)))


def _events(connection: Connection) -> list[WaitingEvents]:
    function = (events.c.account, events.c.region, events.c.name)
    query = (
        select(
            *function,
            func.count().label("waiting"),
            func.sum(case((events.c.taken_due_at_s.is_(None), 0), else_=1)),
            func.sum(case((events.c.attempts > 0, 1), else_=0)),
            func.max(events.c.attempts),
            func.sum(events.c.size_bytes),
            func.min(events.c.accepted_at_s),
            func.min(case((events.c.taken_due_at_s.is_(None), events.c.due_at_s))),
        )
        .group_by(*function)
        .order_by(func.count().desc(), *function)
        .limit(ROWS_MAX)
    )
    return [
        WaitingEvents(
            function_arn=f"arn:aws:lambda:{region}:{account}:function:{name}",
            waiting=waiting,
            taken=taken,
            retried=retried,
            attempts_max=attempts,
            size_bytes=size_bytes,
            oldest_accepted_at_s=oldest,
            next_due_at_s=due,
        )
        for account, region, name, waiting, taken, retried, attempts, size_bytes, oldest, due in (
            connection.execute(query)
        )
    ]


def _deliveries(connection: Connection) -> list[WaitingDeliveries]:
    what = (deliveries.c.function_arn, deliveries.c.destination, deliveries.c.kind)
    query = (
        select(
            *what,
            func.count().label("waiting"),
            func.max(deliveries.c.failures),
            func.min(deliveries.c.created_at_s),
            func.min(deliveries.c.due_at_s),
        )
        .group_by(*what)
        .order_by(func.count().desc(), *what)
        .limit(ROWS_MAX)
    )
    return [
        WaitingDeliveries(
            function_arn=function_arn,
            destination=destination,
            kind=kind,
            waiting=waiting,
            failures_max=failures,
            oldest_created_at_s=oldest,
            next_due_at_s=due,
        )
        for function_arn, destination, kind, waiting, failures, oldest, due in connection.execute(query)
    ]
