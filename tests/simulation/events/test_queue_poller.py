"""The poller of a queue in virtual time: throttling, its limit, stopping in a window, deletions that fail."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from random import Random
from typing import Any

import msgspec
import pytest

from stoker.core.clock import Clock
from stoker.events.queue_poller import HELD_SHARE, QueueCounts, QueueMapping, QueuePoller
from stoker.services.events import Attempt, AttemptOutcome
from stoker.services.functions import FunctionKey
from stoker.services.queue import QueuedEvent
from stoker.services.sources import QueueMessage, SourceFailed
from tests.simulation.frontend.virtual_time import run_virtually
from tests.simulation.frontend.world import World

MAPPING = QueueMapping(
    uuid="u",
    source_arn="arn:aws:sqs:us-east-1:000000000000:q",
    function=FunctionKey("000000000000", "us-east-1", "f"),
    qualifier="",
    batch_size=1,
    window_s=0,
    concurrency_max=1000,
    reports_failures=False,
)


class Source:
    """A queue in memory: what was received is hidden for good; long polls end with the first message."""

    def __init__(self) -> None:
        self.waiting: list[str] = []
        self.deleted: list[str] = []
        self.released: list[str] = []
        self.failing_deletions = 0

    async def visibility_s(self, _arn: str) -> int:
        return 60

    async def receive(self, _arn: str, *, limit: int, wait_s: int) -> list[QueueMessage]:
        for _ in range(10 * wait_s):
            if self.waiting:
                break
            await asyncio.sleep(0.1)
        taken, self.waiting = self.waiting[:limit], self.waiting[limit:]
        return [QueueMessage(message_id=name, receipt=name, body=name, md5_of_body="") for name in taken]

    async def delete(self, _arn: str, receipts: Sequence[str]) -> None:
        if self.failing_deletions:
            self.failing_deletions -= 1
            raise SourceFailed("busy")
        self.deleted += receipts

    def release_nowait(self, _arn: str, receipts: Sequence[str]) -> None:
        self.released += receipts


class Invoker:
    """Answers as it is told and remembers how many ran at once."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.outcome = AttemptOutcome.SUCCEEDED
        self.began_s: list[float] = []
        self.running = self.most = 0

    async def run_event(self, _event: QueuedEvent) -> Attempt:
        self.began_s.append(self.clock.monotonic_s())
        self.running += 1
        self.most = max(self.most, self.running)
        if self.outcome is not AttemptOutcome.THROTTLED:
            await asyncio.sleep(1)
        self.running -= 1
        return Attempt(self.outcome)


def polled(tell: Callable[[Source, Invoker, QueuePoller], Coroutine[Any, Any, None]], **changes: Any) -> None:
    async def story() -> None:
        world = World()
        source, invoker = Source(), Invoker(world.clock)
        mapping = msgspec.structs.replace(MAPPING, **changes)
        poller = QueuePoller(mapping, source, invoker, world.clock, Random(7), QueueCounts())
        await tell(source, invoker, poller)
        await poller.close(0.0)
        await world.close()

    run_virtually(story())


@pytest.mark.parametrize("limit", [2, 5])
def test_no_more_invocations_than_the_mapping_allows(limit: int) -> None:
    async def tell(source: Source, invoker: Invoker, poller: QueuePoller) -> None:
        source.waiting = [f"m{number}" for number in range(20)]
        poller.start()
        await asyncio.sleep(30)
        assert invoker.most == limit
        assert sorted(source.deleted) == sorted(f"m{number}" for number in range(20))

    polled(tell, concurrency_max=limit)


def test_a_throttled_batch_is_held_until_its_messages_would_come_back() -> None:
    async def tell(source: Source, invoker: Invoker, poller: QueuePoller) -> None:
        invoker.outcome = AttemptOutcome.THROTTLED
        source.waiting = ["one"]
        poller.start()
        await asyncio.sleep(300)
        assert len(invoker.began_s) > 3
        assert invoker.began_s[-1] - invoker.began_s[0] <= HELD_SHARE * 60
        assert source.deleted == []
        assert poller.in_flight() == 0

    polled(tell)


def test_a_throttled_batch_runs_when_there_is_room() -> None:
    async def tell(source: Source, invoker: Invoker, poller: QueuePoller) -> None:
        invoker.outcome = AttemptOutcome.THROTTLED
        source.waiting = ["one"]
        poller.start()
        await asyncio.sleep(2)
        invoker.outcome = AttemptOutcome.SUCCEEDED
        await asyncio.sleep(20)
        assert source.deleted == ["one"]

    polled(tell)


def test_stopping_in_a_window_gives_back_what_was_gathered() -> None:
    async def tell(source: Source, invoker: Invoker, poller: QueuePoller) -> None:
        source.waiting = ["one", "two"]
        poller.start()
        await asyncio.sleep(5)
        await poller.stop()
        assert source.released == ["one", "two"]
        assert invoker.began_s == []

    polled(tell, batch_size=100, window_s=60)


def test_a_window_that_ends_hands_over_what_there_is() -> None:
    async def tell(source: Source, invoker: Invoker, poller: QueuePoller) -> None:
        source.waiting = ["one", "two"]
        poller.start()
        await asyncio.sleep(59)
        assert invoker.began_s == []
        await asyncio.sleep(5)
        assert len(invoker.began_s) == 1
        assert source.deleted == ["one", "two"]

    polled(tell, batch_size=100, window_s=60)


def test_a_deletion_that_fails_is_tried_again() -> None:
    async def tell(source: Source, _invoker: Invoker, poller: QueuePoller) -> None:
        source.failing_deletions = 3
        source.waiting = ["one"]
        poller.start()
        await asyncio.sleep(30)
        assert source.deleted == ["one"]

    polled(tell)


def test_what_the_function_failed_is_not_deleted() -> None:
    async def tell(source: Source, invoker: Invoker, poller: QueuePoller) -> None:
        invoker.outcome = AttemptOutcome.FUNCTION_ERROR
        source.waiting = ["one"]
        poller.start()
        await asyncio.sleep(10)
        assert len(invoker.began_s) == 1
        assert source.deleted == source.released == []

    polled(tell)


@pytest.mark.parametrize("partly", [False, True])
def test_of_a_fifo_group_nothing_passes_what_failed(partly: bool) -> None:
    """A batch larger than one invocation is cut: behind a part that failed its groups wait, others go on."""
    invoked: list[list[str]] = []

    class Fifo(Source):
        async def receive(self, _arn: str, *, limit: int, wait_s: int) -> list[QueueMessage]:
            found = await super().receive(_arn, limit=limit, wait_s=wait_s)
            return [
                msgspec.structs.replace(
                    one, body=one.body + "x" * 2_500_000, attributes={"MessageGroupId": one.body[0]}
                )
                for one in found
            ]

    class Failing(Invoker):
        async def run_event(self, event: QueuedEvent) -> Attempt:
            names = [one["messageId"] for one in msgspec.json.decode(event.payload)["Records"]]
            invoked.append(names)
            if "a1" not in names:
                return Attempt(AttemptOutcome.SUCCEEDED)
            answer = {"batchItemFailures": [{"itemIdentifier": "a1"}]}
            outcome = AttemptOutcome.SUCCEEDED if partly else AttemptOutcome.FUNCTION_ERROR
            return Attempt(outcome, payload=msgspec.json.encode(answer))

    async def story() -> None:
        world = World()
        source, invoker = Fifo(), Failing(world.clock)
        source.waiting = ["a1", "b1", "a2", "b2", "c1"]
        arn = f"{MAPPING.source_arn}.fifo"
        mapping = msgspec.structs.replace(MAPPING, source_arn=arn, batch_size=10, reports_failures=partly)
        poller = QueuePoller(mapping, source, invoker, world.clock, Random(7), QueueCounts())
        poller.start()
        await asyncio.sleep(10)
        await poller.close(0.0)
        await world.close()
        if partly:  # of the first part b1 was processed
            assert invoked == [["a1", "b1"], ["b2"], ["c1"]]
            assert source.deleted == ["b1", "b2", "c1"]
        else:
            assert invoked == [["a1", "b1"], ["c1"]]
            assert source.deleted == ["c1"]

    run_virtually(story())
