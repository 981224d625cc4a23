"""The poller over the real front end, in virtual time: retries, back-off, age, restarts, and sync callers."""

import asyncio
from collections.abc import Callable
from random import Random

import pytest
import structlog

from stoker.core.errors import ServiceError
from stoker.events.poller import LEASE_S, EventPoller
from stoker.events.retries import RetryPolicy
from stoker.services.event_invoke import EventInvokeConfig
from stoker.services.functions import FunctionVersion, Status
from stoker.services.invocation import Invocation
from stoker.services.queue import QueuedEvent
from tests.simulation.frontend.virtual_time import run_virtually
from tests.simulation.frontend.world import Behaviour, World


class Polled:
    """A world with a poller, and when each attempt began."""

    def __init__(self, world: World | None = None, **options: object) -> None:
        self.world = world or World()
        self.poller = EventPoller(
            self.world.queue, self.world.frontend, self.world.clock, Random(5), **options
        )
        self.world.frontend.put_events_on(self.poller)
        self.began_s: list[float] = []
        self.requests: list[str] = []
        self.fails: Callable[[int], bool] = lambda _attempt: False
        self.duration_s = 0.1
        for worker in self.world.workers:
            worker.behave = self.behave

    def behave(self, _function: FunctionVersion, invocation: Invocation) -> Behaviour:
        self.began_s.append(self.world.clock.now_s())
        self.requests.append(invocation.request_id)
        failed = self.fails(len(self.began_s))
        return Behaviour(self.duration_s, "Unhandled" if failed else None)

    async def left(self) -> int:
        return (await self.world.queue.depth())[0]

    async def close(self) -> None:
        await self.poller.close(0.0)
        await self.world.close()


def test_an_event_runs_once_and_at_once() -> None:
    async def story() -> None:
        polled = Polled()
        polled.poller.start()
        await polled.world.create("f")
        await asyncio.sleep(30)
        accepted_s = polled.world.clock.now_s()
        await polled.world.invoke("f", kind="Event", request_id="one")
        await asyncio.sleep(1)
        assert polled.requests == ["one"]
        assert polled.began_s[0] - accepted_s < 0.2
        assert await polled.left() == 0
        assert polled.poller.statistics().succeeded == 1
        await polled.close()

    run_virtually(story())


def test_two_retries_after_one_and_two_minutes_with_the_same_request_id() -> None:
    async def story() -> None:
        polled = Polled()
        polled.poller.start()
        await polled.world.create("f")
        polled.fails = lambda _attempt: True
        with structlog.testing.capture_logs() as logs:
            await polled.world.invoke("f", kind="Event", request_id="one")
            await asyncio.sleep(3600)
        waits_s = [
            later - earlier for earlier, later in zip(polled.began_s, polled.began_s[1:], strict=False)
        ]
        assert waits_s == [pytest.approx(60.1, abs=0.01), pytest.approx(120.1, abs=0.01)]
        assert polled.requests == ["one"] * 3
        assert await polled.left() == 0
        (dropped,) = [entry for entry in logs if "dropped" in entry["event"]]
        assert dropped["reason"] == "RetriesExhausted"
        assert dropped["request_id"] == "one"
        assert dropped["sent_to"] == []
        assert polled.poller.statistics().dropped["RetriesExhausted"] == 1
        await polled.close()

    run_virtually(story())


class Asked:
    """Every event's config."""

    def __init__(self, **members: int) -> None:
        self.members = members

    async def config(self, _event: QueuedEvent) -> EventInvokeConfig:
        return EventInvokeConfig(last_modified_s=0.0, **self.members)


@pytest.mark.parametrize("retries", [0, 1, 2])
def test_a_function_is_retried_as_often_as_it_asks(retries: int) -> None:
    async def story() -> None:
        polled = Polled(configs=Asked(maximum_retry_attempts=retries))
        polled.poller.start()
        await polled.world.create("f")
        polled.fails = lambda _attempt: True
        await polled.world.invoke("f", kind="Event")
        await asyncio.sleep(1000)
        assert len(polled.began_s) == 1 + retries
        assert polled.poller.statistics().dropped["RetriesExhausted"] == 1
        await polled.close()

    run_virtually(story())


def test_an_event_is_given_up_at_the_age_its_function_asks() -> None:
    async def story() -> None:
        polled = Polled(configs=Asked(maximum_event_age_s=100))
        polled.poller.start()
        await polled.world.create("f")
        polled.fails = lambda _attempt: True
        await polled.world.invoke("f", kind="Event")
        await asyncio.sleep(1000)
        assert len(polled.began_s) == 2  # the third would have come after 180 s
        assert polled.poller.statistics().dropped["EventAgeExceeded"] == 1
        await polled.close()

    run_virtually(story())


def test_a_retry_that_succeeds_is_the_last() -> None:
    async def story() -> None:
        polled = Polled(policy=RetryPolicy(scale=0.01))
        polled.poller.start()
        await polled.world.create("f")
        polled.fails = lambda attempt: attempt == 1
        await polled.world.invoke("f", kind="Event")
        await asyncio.sleep(10)
        assert len(polled.began_s) == 2
        assert polled.began_s[1] - polled.began_s[0] == pytest.approx(0.7, abs=0.01)
        await polled.close()

    run_virtually(story())


def test_throttled_events_back_off_and_run_when_there_is_room() -> None:
    async def story() -> None:
        polled = Polled()
        await polled.world.create("f", reserved_concurrency=1)
        polled.duration_s = 100.0
        busy = asyncio.create_task(polled.world.invoke("f"))
        await asyncio.sleep(1)
        polled.poller.start()
        await polled.world.invoke("f", kind="Event", request_id="waits")
        await asyncio.sleep(10)
        assert 4 <= polled.poller.statistics().throttled <= 5  # the first after 0, the last after 3.5 to 7 s
        await busy
        await asyncio.sleep(300)
        assert polled.requests[1:] == ["waits"]
        assert await polled.left() == 0
        await polled.close()

    run_virtually(story())


def test_six_hours_of_throttling_are_the_end() -> None:
    async def story() -> None:
        polled = Polled()
        version = await polled.world.create("f")
        await polled.world.invoke("f", kind="Event")
        await polled.world.update(version, state=Status(value="Inactive"))
        polled.poller.start()
        await asyncio.sleep(6 * 3600 - 600)
        assert await polled.left() == 1
        await asyncio.sleep(700)
        assert await polled.left() == 0
        assert not polled.began_s
        assert polled.poller.statistics().dropped["EventAgeExceeded"] == 1
        await polled.close()

    run_virtually(story())


@pytest.mark.parametrize("how", ["ZeroReservedConcurrency", "FunctionDeleted"])
def test_what_can_never_run_is_dropped_at_once(how: str) -> None:
    async def story() -> None:
        polled = Polled()
        version = await polled.world.create("f", reserved_concurrency=0)
        await polled.world.invoke("f", kind="Event")
        if how == "FunctionDeleted":
            await polled.world.delete(version.key)
        polled.poller.start()
        await asyncio.sleep(1)
        assert await polled.left() == 0
        assert not polled.began_s
        assert polled.poller.statistics().dropped[how] == 1
        await polled.close()

    run_virtually(story())


def test_an_event_taken_but_not_settled_comes_back() -> None:
    async def story() -> None:
        polled = Polled()
        polled.poller.start()
        await polled.world.create("f")
        polled.duration_s = 500.0
        await polled.world.invoke("f", kind="Event", request_id="one")
        await asyncio.sleep(1)
        await polled.poller.close(0.0)
        assert await polled.left() == 1
        assert polled.world.worker.busy == 1, "the function runs on"
        again = EventPoller(polled.world.queue, polled.world.frontend, polled.world.clock, Random(6))
        again.start()
        await asyncio.sleep(LEASE_S + 600)
        assert polled.requests == ["one", "one"]
        assert await polled.left() == 0
        await again.close(0.0)
        polled.world.check_nothing_leaked()
        await polled.close()

    run_virtually(story())


def test_a_flood_of_events_leaves_room_for_callers() -> None:
    async def story() -> None:
        polled = Polled(World(account_concurrency=10), concurrency_max=5)
        polled.poller.start()
        await polled.world.create("noisy")
        await polled.world.create("quiet")
        polled.duration_s = 5.0
        for number in range(100):
            await polled.world.invoke("noisy", kind="Event", request_id=f"event-{number}")
        await asyncio.sleep(1)
        assert polled.world.worker.busy == 5
        calls = [polled.world.invoke("quiet") for _ in range(6)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert [isinstance(result, ServiceError) for result in results] == [False] * 5 + [True]
        await asyncio.sleep(3600)
        events = {request for request in polled.requests if request.startswith("event")}
        assert events == {f"event-{number}" for number in range(100)}
        assert await polled.left() == 0
        await polled.close()

    run_virtually(story())


def test_a_flood_for_one_reserved_sandbox_is_worked_off_in_time() -> None:
    async def story() -> None:
        polled = Polled()
        polled.poller.start()
        await polled.world.create("f", reserved_concurrency=1)
        polled.duration_s = 5.0
        for number in range(200):
            await polled.world.invoke("f", kind="Event", request_id=f"event-{number}")
        await asyncio.sleep(3 * 3600)
        assert len(set(polled.requests)) == len(polled.requests) == 200
        assert await polled.left() == 0
        assert polled.world.worker.busy_most == 1
        await polled.close()

    run_virtually(story())


def test_the_poller_runs_a_bounded_number_at_a_time() -> None:
    async def story() -> None:
        polled = Polled(concurrency_max=7)
        await polled.world.create("f")
        for number in range(50):
            await polled.world.invoke("f", kind="Event", request_id=f"event-{number}")
        polled.poller.start()
        await asyncio.sleep(60)
        assert polled.world.worker.busy_most == 7
        assert len(polled.requests) == 50
        await polled.close()

    run_virtually(story())


def test_a_queue_that_fails_is_asked_again() -> None:
    async def story() -> None:
        polled = Polled()
        await polled.world.create("f")
        await polled.world.invoke("f", kind="Event")
        polled.world.queue.fail_next(OSError("disk"))
        polled.poller.start()
        await asyncio.sleep(0.5)
        assert not polled.began_s
        await asyncio.sleep(2)
        assert len(polled.began_s) == 1
        await polled.close()

    run_virtually(story())


def test_an_outcome_that_cannot_be_written_brings_the_event_back() -> None:
    async def story() -> None:
        polled = Polled()
        await polled.world.create("f")
        await polled.world.invoke("f", kind="Event", request_id="one")
        polled.poller.start()
        await asyncio.sleep(0.05)
        polled.world.queue.fail_next(OSError("disk"))
        await asyncio.sleep(LEASE_S + 10)
        assert polled.requests == ["one", "one"]
        assert await polled.left() == 0
        await polled.close()

    run_virtually(story())
