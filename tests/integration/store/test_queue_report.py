"""What ``stoker events`` says of the queue."""

from pathlib import Path

import msgspec

from stoker.services.functions import FunctionKey
from stoker.services.queue import (
    Delivery,
    DeliveryKind,
    QueuedEvent,
    QueueReport,
    WaitingDeliveries,
    WaitingEvents,
)
from stoker.store.opening import open_queue_database
from stoker.store.queue import EVENT_OVERHEAD_BYTES, SqlEventQueue

DEAD = "arn:aws:sqs:us-east-1:000000000000:dead"


def event(name: str, function: str, **changes: object) -> QueuedEvent:
    made = QueuedEvent(
        request_id=name,
        key=FunctionKey("000000000000", "us-east-1", function),
        qualifier="$LATEST",
        payload=b"secret",
        accepted_at_s=5.0,
        due_at_s=10.0,
    )
    return msgspec.structs.replace(made, **changes)


async def test_a_report_sums_up_by_function_and_destination(tmp_path: Path) -> None:
    database = await open_queue_database(tmp_path)
    queue = SqlEventQueue(database, capacity_bytes=10**6)
    assert await queue.report() == QueueReport([], [])
    await queue.put(event("a", "f"))
    await queue.put(event("b", "f", attempts=2, accepted_at_s=3.0, due_at_s=90.0))
    await queue.put(event("c", "g", due_at_s=1.0))
    await queue.put(event("d", "h"))
    await queue.take(now_s=1.0, limit=1, lease_s=60.0)
    arn = "arn:aws:lambda:us-east-1:000000000000:function:"
    left = Delivery(
        delivery_id="d-1",
        kind=DeliveryKind.DEAD_LETTER,
        request_id="d",
        function_arn=arn + "h",
        destination=DEAD,
        body=b"secret",
        created_at_s=7.0,
        due_at_s=8.0,
        failures=3,
    )
    await queue.settle("d", [left])
    report = await queue.report()
    size_bytes = len(b"secret") + EVENT_OVERHEAD_BYTES
    assert report.events == [
        WaitingEvents(
            function_arn=arn + "f",
            waiting=2,
            taken=0,
            retried=1,
            attempts_max=2,
            size_bytes=2 * size_bytes,
            oldest_accepted_at_s=3.0,
            next_due_at_s=10.0,
        ),
        WaitingEvents(
            function_arn=arn + "g",
            waiting=1,
            taken=1,
            retried=0,
            attempts_max=0,
            size_bytes=size_bytes,
            oldest_accepted_at_s=5.0,
            next_due_at_s=None,
        ),
    ]
    assert report.deliveries == [
        WaitingDeliveries(
            function_arn=arn + "h",
            destination=DEAD,
            kind=DeliveryKind.DEAD_LETTER.value,
            waiting=1,
            failures_max=3,
            oldest_created_at_s=7.0,
            next_due_at_s=8.0,
        )
    ]
    assert b"secret" not in msgspec.json.encode(report)
    await database.close()
