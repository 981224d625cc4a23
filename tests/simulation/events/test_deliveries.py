"""Deliveries in virtual time: back-off, resting destinations, Lambda destinations, six hours and the end."""

import asyncio
import itertools
from random import Random

import msgspec
import pytest

from stoker.events.deliveries import CONCURRENCY_MAX, DeliveryPoller
from stoker.services.delivery import DeliveryFailed
from stoker.services.functions import FunctionKey
from stoker.services.queue import Delivery, DeliveryKind, QueuedEvent
from tests.simulation.frontend.virtual_time import run_virtually
from tests.simulation.frontend.world import World

GOOD, BAD = "arn:aws:sqs:us-east-1:000000000000:good", "arn:aws:sqs:us-east-1:000000000000:bad"
FUNCTION = "arn:aws:lambda:us-east-1:000000000000:function:"


class Recorder:
    """A Sender that keeps what came when, and fails for ``failing`` destinations, slowly."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.tried: list[tuple[float, str]] = []
        self.sent: list[Delivery] = []
        self.failing: set[str] = set()

    async def send(self, delivery: Delivery) -> None:
        self.tried.append((self.world.clock.now_s(), delivery.delivery_id))
        await asyncio.sleep(5 if delivery.destination in self.failing else 0.01)
        if delivery.destination in self.failing:
            raise DeliveryFailed("nobody there")
        self.sent.append(delivery)


class Delivering:
    def __init__(self) -> None:
        self.world = World()
        self.sender = Recorder(self.world)
        queue = self.world.queue
        self.poller = DeliveryPoller(queue.deliveries, queue, self.sender, self.world.clock, Random(5))

    async def leave(self, name: str, destination: str) -> None:
        now_s = self.world.clock.now_s()
        key = FunctionKey("000000000000", "us-east-1", "f")
        event = QueuedEvent(
            request_id=name, key=key, qualifier="", payload=b"", accepted_at_s=now_s, due_at_s=now_s
        )
        await self.world.queue.put(event)
        left = Delivery(
            delivery_id=name,
            kind=DeliveryKind.FAILURE,
            request_id=name,
            function_arn=f"{FUNCTION}f:$LATEST",
            destination=destination,
            body=b"{}",
            created_at_s=now_s,
            due_at_s=now_s,
        )
        await self.world.queue.settle(name, [left])
        self.poller.wake()

    async def close(self) -> None:
        await self.poller.close()
        await self.world.close()


def test_what_is_left_is_sent_once_and_at_once() -> None:
    async def story() -> None:
        all_of = Delivering()
        all_of.poller.start()
        for number in range(3 * CONCURRENCY_MAX):
            await all_of.leave(f"d{number}", GOOD)
        await asyncio.sleep(1)
        assert sorted(one.delivery_id for one in all_of.sender.sent) == sorted(
            f"d{number}" for number in range(3 * CONCURRENCY_MAX)
        )
        assert await all_of.world.queue.deliveries.count() == 0
        assert all_of.poller.statistics().delivered == 3 * CONCURRENCY_MAX
        await all_of.close()

    run_virtually(story())


def test_a_destination_that_fails_is_tried_again_later_and_later() -> None:
    async def story() -> None:
        all_of = Delivering()
        all_of.sender.failing = {BAD}
        all_of.poller.start()
        await all_of.leave("one", BAD)
        await asyncio.sleep(120)
        starts = [at_s for at_s, _ in all_of.sender.tried]
        waits = [later - earlier - 5 for earlier, later in itertools.pairwise(starts)]
        for number, wait_s in enumerate(waits):
            assert 0.5 * 2**number - 0.1 <= wait_s <= 2**number + 0.1
        assert len(waits) >= 4
        all_of.sender.failing = set()
        await asyncio.sleep(300)
        assert [one.delivery_id for one in all_of.sender.sent] == ["one"]
        await all_of.close()

    run_virtually(story())


def test_a_dead_destination_does_not_hold_up_another() -> None:
    async def story() -> None:
        all_of = Delivering()
        all_of.sender.failing = {BAD}
        for number in range(300):
            await all_of.leave(f"bad{number}", BAD)
        all_of.poller.start()
        await asyncio.sleep(20)
        await all_of.leave("good", GOOD)
        await asyncio.sleep(15)
        assert [one.delivery_id for one in all_of.sender.sent] == ["good"]
        assert len(all_of.sender.tried) < 60
        all_of.sender.failing = set()
        await asyncio.sleep(900)
        assert len({one.delivery_id for one in all_of.sender.sent}) == 301
        await all_of.close()

    run_virtually(story())


def test_after_six_hours_a_record_is_given_up() -> None:
    async def story() -> None:
        all_of = Delivering()
        all_of.sender.failing = {BAD}
        all_of.poller.start()
        await all_of.leave("one", BAD)
        await asyncio.sleep(6 * 3600 - 400)
        assert await all_of.world.queue.deliveries.count() == 1
        await asyncio.sleep(1200)
        assert await all_of.world.queue.deliveries.count() == 0
        assert all_of.poller.statistics().given_up == 1
        await all_of.close()

    run_virtually(story())


@pytest.mark.parametrize("failed_removals", [0, 1])
def test_a_function_that_is_a_destination_gets_one_event(failed_removals: int) -> None:
    async def story() -> None:
        all_of = Delivering()
        await all_of.leave("one", f"{FUNCTION}other:live")
        (taken,) = await all_of.world.queue.deliveries.take(
            now_s=all_of.world.clock.now_s(), limit=1, lease_s=0.0
        )
        for _ in range(1 + failed_removals):
            await all_of.poller._send(taken)
        (event,) = await all_of.world.queue.take(now_s=all_of.world.clock.now_s(), limit=5, lease_s=1.0)
        assert (event.key.name, event.qualifier, event.payload) == ("other", "live", b"{}")
        await all_of.close()

    run_virtually(story())


def test_a_queue_that_fails_is_asked_again() -> None:
    async def story() -> None:
        all_of = Delivering()
        await all_of.leave("one", GOOD)
        all_of.world.queue.deliveries.fail_next(OSError("disk"))
        all_of.poller.start()
        await asyncio.sleep(0.5)
        assert not all_of.sender.sent
        await asyncio.sleep(2)
        assert [msgspec.structs.replace(one, due_at_s=0.0).delivery_id for one in all_of.sender.sent] == [
            "one"
        ]
        await all_of.close()

    run_virtually(story())
