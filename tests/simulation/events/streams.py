"""A stream, its checkpoints and a function in memory, polled in virtual time."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

import msgspec

from stoker.core.clock import Clock
from stoker.events.read_pace import ReadPace
from stoker.events.stream_batches import BatchRules
from stoker.events.stream_parts import Buffers, StreamCounts, StreamMapping, StreamParts
from stoker.events.stream_poller import LEASE_S, StreamPoller
from stoker.services.events import Attempt, AttemptOutcome
from stoker.services.functions import FunctionKey
from stoker.services.queue import QueuedEvent
from stoker.services.streams import Position, Start
from stoker.store.memory_streams import MemoryStream, MemoryStreamCheckpoints
from tests.simulation.frontend.virtual_time import LoopClock, run_virtually

ARN = "arn:aws:dynamodb:us-east-1:000000000000:table/t/stream/1"
MAPPING = StreamMapping(
    uuid="mapping",
    kind="dynamodb",
    source_arn=ARN,
    function=FunctionKey("000000000000", "us-east-1", "f"),
    qualifier="",
    function_arn="arn:aws:lambda:us-east-1:000000000000:function:f",
    rules=BatchRules(batch_size=10),
    position=Position(start=Start.OLDEST),
    on_failure="arn:aws:sqs:us-east-1:000000000000:dead",
)


class WallClock(LoopClock):
    """Its wall time can be set; the monotonic one goes on."""

    jumped_s = 0.0

    def now_s(self) -> float:
        return super().now_s() + self.jumped_s


class Function:
    """Remembers what it was given and answers as it is told."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.events: list[dict[str, Any]] = []
        self.at_s: list[float] = []
        self.poison: set[str] = set()
        """Data at which it raises."""
        self.unprocessed: set[str] = set()
        """Data that it names in batchItemFailures."""
        self.answer: Callable[[dict[str, Any]], Any] | None = None
        self.outcome: AttemptOutcome | None = None
        self.takes_s = 0.01
        self.running = self.most = 0

    async def run_event(self, event: QueuedEvent) -> Attempt:
        shown = json.loads(event.payload)
        self.events.append(shown)
        self.at_s.append(self.clock.monotonic_s())
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(self.takes_s)
        finally:
            self.running -= 1
        if self.outcome is not None:
            return Attempt(self.outcome)
        if any(record["data"] in self.poison for record in shown["Records"]):
            return Attempt(AttemptOutcome.FUNCTION_ERROR, "", b"{}", "Unhandled", "$LATEST")
        failed = [number(one) for one in shown["Records"] if one["data"] in self.unprocessed]
        answer: Any = {"batchItemFailures": [{"itemIdentifier": one} for one in failed]} if failed else None
        if self.answer is not None:
            answer = self.answer(shown)
        return Attempt(AttemptOutcome.SUCCEEDED, "", json.dumps(answer).encode(), None, "$LATEST")

    def batches(self) -> list[list[str]]:
        return [[record["data"] for record in event["Records"]] for event in self.events]

    def seen(self) -> list[str]:
        return [data for batch in self.batches() for data in batch]


def number(record: dict[str, Any]) -> str:
    return str(record["eventID"].rpartition(":")[2])


class Scene:
    """Everything about one mapping; ``poller`` can be made again, as after a restart."""

    def __init__(self, **changes: Any) -> None:
        self.clock = WallClock()
        self.stream = MemoryStream("a")
        self.checkpoints: Any = MemoryStreamCheckpoints()
        self.function = Function(self.clock)
        rules = {name: changes.pop(name) for name in list(changes) if name in BatchRules.__struct_fields__}
        self.mapping = msgspec.structs.replace(
            MAPPING, **changes, rules=msgspec.structs.replace(MAPPING.rules, **rules)
        )
        self.counts = StreamCounts()
        self.buffers = Buffers()
        self.results: list[str] = []
        self.random = Random(7)
        self.pollers: list[StreamPoller] = []
        self.starting = ReadPace(self.clock, per_s=50, burst=20)
        self.idle = ReadPace(self.clock, per_s=40, burst=20)

    def poller(self, mapping: StreamMapping | None = None, owner: str = "one") -> StreamPoller:
        parts = StreamParts(
            source=self.stream,
            checkpoints=self.checkpoints,
            invoker=self.function,
            clock=self.clock,
            random=self.random,
            counts=self.counts,
            buffers=self.buffers,
            role_arn=_role_arn,
            starting=self.starting,
            idle=self.idle,
            report=self.results.append,
            report_read=lambda: None,
            delivery_added=lambda: None,
            owner=owner,
        )
        made = StreamPoller(mapping or self.mapping, parts)
        self.pollers.append(made)
        return made

    def put(self, *data: str, shard: str = "a", key: str = "k", age_s: float = 0.0) -> list[str]:
        now_s = self.clock.now_s() - age_s
        return [self.stream.put(shard, key, one, now_s) for one in data]

    def discarded(self) -> list[dict[str, Any]]:
        return [json.loads(one.body) for one in self.checkpoints.deliveries.values()]

    async def done(self, mapping: str = "mapping") -> dict[str, str]:
        """How far each shard's slowest lane is."""
        kept = await self.checkpoints.shards(mapping)
        return {name: min((lane.done for lane in one.lanes), default="") for name, one in kept.items()}


async def _role_arn(_key: FunctionKey, _qualifier: str) -> str:
    return "arn:aws:iam::000000000000:role/r"


def played(story: Callable[[Scene], Coroutine[Any, Any, None]], **changes: Any) -> None:
    """Tell a story of a mapping with some settings of its rules or its own."""

    async def whole() -> None:
        scene = Scene(**changes)
        renewing = asyncio.ensure_future(_renew(scene))
        await story(scene)
        renewing.cancel()
        for poller in scene.pollers:
            await poller.close(0.0)

    run_virtually(whole())


async def _renew(scene: Scene) -> None:
    while True:
        await asyncio.sleep(LEASE_S / 3)
        await scene.checkpoints.renew("one", scene.clock.now_s() + LEASE_S)
