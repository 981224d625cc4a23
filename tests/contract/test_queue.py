"""What every adapter of EventQueue promises."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from stoker.services.functions import FunctionKey
from stoker.services.queue import Delivery, DeliveryKind, EventExists, EventQueue, QueuedEvent, QueueFull
from stoker.store.deliveries import DELIVERY_OVERHEAD_BYTES
from stoker.store.memory import MemoryEventQueue
from stoker.store.opening import open_queue_database
from stoker.store.queue import EVENT_OVERHEAD_BYTES, SqlEventQueue

CAPACITY_BYTES = 10 * (100 + EVENT_OVERHEAD_BYTES)


@pytest.fixture(params=["memory", "sqlite"])
async def queue(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[EventQueue]:
    if request.param == "memory":
        yield MemoryEventQueue(capacity_bytes=CAPACITY_BYTES)
        return
    database = await open_queue_database(tmp_path)
    made = SqlEventQueue(database, capacity_bytes=CAPACITY_BYTES)
    await made.recover()
    yield made
    await database.close()


def event(name: str, **changes: object) -> QueuedEvent:
    made = QueuedEvent(
        request_id=name,
        key=FunctionKey("000000000000", "us-east-1", "f"),
        qualifier="$LATEST",
        payload=b"x" * 100,
        accepted_at_s=1.0,
        due_at_s=10.0,
    )
    return msgspec.structs.replace(made, **changes)


async def test_what_was_put_is_taken_whole(queue: EventQueue) -> None:
    made = event("a", attempts=1, throttles=2, client_context="{}", trace_id="Root=1", payload=b"\x00\xff")
    await queue.put(made)
    assert await queue.take(now_s=10.0, limit=5, lease_s=60.0) == [made]


async def test_nothing_is_taken_before_it_is_due(queue: EventQueue) -> None:
    await queue.put(event("a", due_at_s=10.0))
    assert await queue.take(now_s=9.9, limit=5, lease_s=60.0) == []
    assert await queue.next_due_s() == 10.0


async def test_the_earliest_due_come_first_up_to_the_limit(queue: EventQueue) -> None:
    for number in (3, 1, 2):
        await queue.put(event(f"e{number}", due_at_s=float(number)))
    taken = await queue.take(now_s=9.0, limit=2, lease_s=60.0)
    assert [found.request_id for found in taken] == ["e1", "e2"]


async def test_a_taken_event_is_hidden_until_its_lease_ends(queue: EventQueue) -> None:
    await queue.put(event("a"))
    await queue.take(now_s=10.0, limit=5, lease_s=60.0)
    assert await queue.take(now_s=69.9, limit=5, lease_s=60.0) == []
    assert await queue.next_due_s() == 70.0
    again = await queue.take(now_s=70.0, limit=5, lease_s=60.0)
    assert [found.request_id for found in again] == ["a"]


async def test_two_takers_never_get_the_same_event(queue: EventQueue) -> None:
    for number in range(8):
        await queue.put(event(f"e{number}", payload=b""))
    batches = await asyncio.gather(*(queue.take(now_s=10.0, limit=3, lease_s=60.0) for _ in range(4)))
    taken = [found.request_id for batch in batches for found in batch]
    assert sorted(taken) == sorted(set(taken)) == [f"e{number}" for number in range(8)]


async def test_rescheduling_keeps_counters_and_the_new_time(queue: EventQueue) -> None:
    await queue.put(event("a"))
    (taken,) = await queue.take(now_s=10.0, limit=5, lease_s=60.0)
    later = msgspec.structs.replace(taken, due_at_s=100.0, attempts=1)
    await queue.reschedule(later)
    assert await queue.take(now_s=99.0, limit=5, lease_s=60.0) == []
    assert await queue.take(now_s=100.0, limit=5, lease_s=60.0) == [later]


async def test_a_settled_event_is_gone_and_settling_twice_is_harmless(queue: EventQueue) -> None:
    await queue.put(event("a"))
    await queue.settle("a")
    await queue.settle("a")
    await queue.reschedule(event("a"))
    assert await queue.depth() == (0, 0)
    assert await queue.next_due_s() is None
    assert await queue.take(now_s=1e9, limit=5, lease_s=60.0) == []


async def test_a_full_queue_refuses_and_takes_again_when_there_is_room(queue: EventQueue) -> None:
    for number in range(10):
        await queue.put(event(f"e{number}"))
    with pytest.raises(QueueFull):
        await queue.put(event("over"))
    assert await queue.depth() == (10, CAPACITY_BYTES)
    await queue.settle("e0")
    await queue.put(event("over"))
    assert await queue.depth() == (10, CAPACITY_BYTES)


async def test_a_flood_at_once_does_not_pass_the_limit(queue: EventQueue) -> None:
    outcomes = await asyncio.gather(
        *(queue.put(event(f"e{number}")) for number in range(15)), return_exceptions=True
    )
    assert sum(outcome is None for outcome in outcomes) == 10
    assert sum(isinstance(outcome, QueueFull) for outcome in outcomes) == 5


async def test_a_request_id_is_queued_once(queue: EventQueue) -> None:
    await queue.put(event("a"))
    with pytest.raises(EventExists):
        await queue.put(event("a"))
    assert await queue.depth() == (1, 100 + EVENT_OVERHEAD_BYTES)


def delivery(name: str, **changes: object) -> Delivery:
    made = Delivery(
        delivery_id=name,
        kind=DeliveryKind.FAILURE,
        request_id="a",
        function_arn="arn:aws:lambda:us-east-1:000000000000:function:f:$LATEST",
        destination="arn:aws:sqs:us-east-1:000000000000:q",
        body=b"x" * 50,
        attributes={"ErrorCode": "200"},
        created_at_s=5.0,
        due_at_s=5.0,
    )
    return msgspec.structs.replace(made, **changes)


async def test_what_a_settled_event_leaves_is_taken_whole_and_once(queue: EventQueue) -> None:
    await queue.put(event("a"))
    left = [delivery("a failure"), delivery("a dead letter", kind=DeliveryKind.DEAD_LETTER, due_at_s=6.0)]
    await queue.settle("a", left)
    await queue.settle("a", [delivery("again")])
    assert await queue.depth() == (0, 2 * (50 + DELIVERY_OVERHEAD_BYTES))
    assert await queue.deliveries.next_due_s() == 5.0
    assert await queue.deliveries.take(now_s=5.5, limit=9, lease_s=60.0) == left[:1]
    assert await queue.deliveries.take(now_s=6.0, limit=9, lease_s=60.0) == left[1:]
    assert await queue.deliveries.take(now_s=64.0, limit=9, lease_s=60.0) == []
    assert await queue.deliveries.count() == 2


async def test_a_postponed_delivery_comes_back_and_a_removed_one_does_not(queue: EventQueue) -> None:
    await queue.put(event("a"))
    await queue.settle("a", [delivery("one"), delivery("two")])
    await queue.deliveries.take(now_s=9.0, limit=9, lease_s=60.0)
    later = delivery("one", due_at_s=20.0, failures=3)
    await queue.deliveries.postpone([later])
    await queue.deliveries.remove("two")
    await queue.deliveries.remove("two")
    await queue.deliveries.postpone([delivery("two")])
    assert await queue.deliveries.take(now_s=19.0, limit=9, lease_s=60.0) == []
    assert await queue.deliveries.take(now_s=20.0, limit=9, lease_s=60.0) == [later]
    await queue.deliveries.remove("one")
    assert await queue.depth() == (0, 0)


async def test_what_waits_for_destinations_leaves_less_room_for_events(queue: EventQueue) -> None:
    await queue.put(event("a"))
    await queue.settle("a", [delivery("large", body=b"x" * CAPACITY_BYTES)])
    with pytest.raises(QueueFull):
        await queue.put(event("b"))
    await queue.deliveries.remove("large")
    await queue.put(event("b"))


async def test_deliveries_survive_a_restart_and_are_due_again(tmp_path: Path) -> None:
    database = await open_queue_database(tmp_path)
    first = SqlEventQueue(database, capacity_bytes=CAPACITY_BYTES)
    await first.put(event("a"))
    await first.settle("a", [delivery("one")])
    await first.deliveries.take(now_s=5.0, limit=1, lease_s=1e9)
    await database.close()
    database = await open_queue_database(tmp_path)
    second = SqlEventQueue(database, capacity_bytes=CAPACITY_BYTES)
    await second.recover()
    assert await second.depth() == (0, 50 + DELIVERY_OVERHEAD_BYTES)
    assert await second.deliveries.take(now_s=5.0, limit=1, lease_s=60.0) == [delivery("one")]
    await database.close()
