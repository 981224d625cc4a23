"""Runs a poller for every event source mapping that is enabled, and follows their changes at once."""

import asyncio
import uuid
from collections.abc import Callable
from random import Random
from typing import Protocol

import msgspec
import structlog

from stoker.core.clock import Clock
from stoker.events.mapping_plans import Plan, mapping_plan
from stoker.events.mapping_results import MappingResults
from stoker.events.queue_poller import QueueCounts, QueueMapping, QueuePoller
from stoker.events.read_pace import ReadPace
from stoker.events.stream_parts import Buffers, StreamCounts, StreamParts
from stoker.events.stream_poller import LEASE_S, StreamPoller
from stoker.events.versions import QualifiedVersions
from stoker.services.event_sources import EVENT_SOURCE_MAPPING, EventSourceMapping, mapping_arn
from stoker.services.events import EventInvoker
from stoker.services.records import Entry, RecordKey, Records, Shelf
from stoker.services.sources import QueueSource
from stoker.services.streams import StreamCheckpoints, StreamSource

FAILURE_WAIT_S = 1.0
STARTS_PER_S = 50.0
"""Listings and new iterators of all streams together, so that a restart with many mappings is no stampede."""
IDLE_READS_PER_S = 30.0
"""Of all shards that have had nothing for a while; up to so many shards each is read once a second."""
BURST = 20

_log = structlog.get_logger("stoker.events")


class Poller(Protocol):
    """What runs for one mapping."""

    def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def close(self, grace_s: float) -> None: ...

    def in_flight(self) -> int: ...


class MappingSources(msgspec.Struct, frozen=True, kw_only=True):
    """The clients of what mappings can name, and what is kept of streams."""

    queues: QueueSource
    streams: dict[str, StreamSource]
    """By the service in their ARNs."""
    checkpoints: StreamCheckpoints


class MappingStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Pollers now, and what those of queues did since the start."""

    pollers: int
    in_flight: int
    messages: int
    filtered: int
    invocations: int
    failures: int
    throttles: int
    deleted: int
    source_errors: int


class MappingRunner:
    """One poller a mapping. Shards are leased, for several processes may run them one day."""

    def __init__(
        self,
        records: Records,
        sources: MappingSources,
        invoker: EventInvoker,
        versions: QualifiedVersions,
        clock: Clock,
        random: Random,
    ) -> None:
        self._shelf = Shelf(records, EVENT_SOURCE_MAPPING, EventSourceMapping)
        self._results = MappingResults(records)
        self._sources = sources
        self._invoker = invoker
        self._clock = clock
        self._random = random
        self._counts = QueueCounts()
        self._stream_counts = StreamCounts()
        self._buffers = Buffers()
        self._owner = str(uuid.UUID(int=random.getrandbits(128), version=4))
        self._starting = ReadPace(clock, per_s=STARTS_PER_S, burst=BURST)
        self._idle = ReadPace(clock, per_s=IDLE_READS_PER_S, burst=BURST)
        self._versions = versions
        self._delivery_added: Callable[[], None] = lambda: None
        self._pollers: dict[RecordKey, tuple[Plan, Poller]] = {}
        self._leaving: set[Poller] = set()
        self._changed: set[RecordKey] = set()
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def on_delivery_added(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` after each record of a batch that was given up was left to be delivered."""
        self._delivery_added = callback

    async def start(self) -> None:
        """Start the pollers of all enabled mappings, and forget what belongs to none."""
        entries = await self._shelf.every()
        await self._results.start(frozenset(entry.key for entry in entries))
        there = {entry.key.name for entry in entries}
        for mapping in await self._sources.checkpoints.mappings():
            if mapping not in there:
                await self._sources.checkpoints.forget(mapping)
        for entry in entries:
            await self._follow(entry.key, entry)
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._follow_changes()), loop.create_task(self._renew_leases())]

    def mapping_changed(self, key: RecordKey) -> None:
        """A mapping was written or removed: look at it now."""
        self._changed.add(key)
        self._wake.set()

    def statistics(self) -> MappingStatistics:
        """Counts as of now."""
        self._leaving = {poller for poller in self._leaving if poller.in_flight()}
        running = [poller for _, poller in self._pollers.values()]
        return MappingStatistics(
            pollers=len(running),
            in_flight=sum(poller.in_flight() for poller in (*running, *self._leaving)),
            **msgspec.structs.asdict(self._counts),
        )

    def stream_statistics(self) -> StreamCounts:
        """Counts of the streams' pollers as of now."""
        return msgspec.structs.replace(self._stream_counts)

    async def close(self, grace_s: float) -> None:
        """Read nothing more and give batches under way ``grace_s``."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        pollers = [*(poller for _, poller in self._pollers.values()), *self._leaving]
        await asyncio.gather(*(poller.close(grace_s) for poller in pollers))
        await self._results.close()
        for source in self._sources.streams.values():
            await source.close()

    async def _follow_changes(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            changed, self._changed = self._changed, set()
            for key in changed:
                try:
                    await self._follow(key, await self._shelf.get(key))
                except Exception as error:
                    _log.error("a mapping could not be followed; trying again", reason=repr(error))
                    await asyncio.sleep(FAILURE_WAIT_S)
                    self.mapping_changed(key)

    async def _follow(self, key: RecordKey, entry: Entry[EventSourceMapping] | None) -> None:
        wanted = None if entry is None else mapping_plan(key, entry.value)
        running = self._pollers.get(key)
        if running is None or running[0] != wanted:
            if running is not None:
                del self._pollers[key]
                await running[1].stop()
                self._leaving = {poller for poller in (*self._leaving, running[1]) if poller.in_flight()}
            if wanted is not None:
                poller = self._poller(key, wanted)
                self._pollers[key] = (wanted, poller)
                poller.start()
            elif entry is not None and entry.value.shown.state == "Enabled" and running is None:
                _log.warning(
                    "an event source mapping is not polled: its kind of source is not built yet",
                    mapping=mapping_arn(key),
                    source=entry.value.shown.event_source_arn,
                )
        if entry is None:
            await self._sources.checkpoints.forget(key.name)
            await self._results.forget(key)

    def _poller(self, key: RecordKey, plan: Plan) -> Poller:
        if isinstance(plan, QueueMapping):
            return QueuePoller(
                plan, self._sources.queues, self._invoker, self._clock, self._random, self._counts
            )
        parts = StreamParts(
            source=self._sources.streams[plan.kind],
            checkpoints=self._sources.checkpoints,
            invoker=self._invoker,
            clock=self._clock,
            random=self._random,
            counts=self._stream_counts,
            buffers=self._buffers,
            role_arn=self._versions.role_arn,
            starting=self._starting,
            idle=self._idle,
            report=lambda result: self._results.tell(key, result),
            report_read=lambda: self._results.tell_read(key),
            delivery_added=self._told_of_delivery,
            owner=self._owner,
        )
        return StreamPoller(plan, parts)

    def _told_of_delivery(self) -> None:
        self._delivery_added()

    async def _renew_leases(self) -> None:
        while True:
            await asyncio.sleep(LEASE_S / 3)
            try:
                await self._sources.checkpoints.renew(self._owner, self._clock.now_s() + LEASE_S)
            except Exception as error:
                _log.error("the leases of shards could not be renewed; trying again", reason=repr(error))
