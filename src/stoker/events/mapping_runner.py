"""Runs a poller for every event source mapping that is enabled, and follows their changes at once."""

import asyncio
from random import Random

import msgspec
import structlog

from stoker.core.arn import parse_function_reference
from stoker.core.clock import Clock
from stoker.events.queue_poller import QueueCounts, QueueMapping, QueuePoller
from stoker.services.event_sources import EVENT_SOURCE_MAPPING, EventSourceMapping, mapping_arn
from stoker.services.events import EventInvoker
from stoker.services.functions import FunctionKey
from stoker.services.records import Entry, RecordKey, Records, Shelf
from stoker.services.sources import QueueSource

FAILURE_WAIT_S = 1.0

_log = structlog.get_logger("stoker.events")


class MappingStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Pollers now, and what they did since the start."""

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
    """One poller a mapping, in this process alone: the data folder has one owner."""

    def __init__(
        self, records: Records, source: QueueSource, invoker: EventInvoker, clock: Clock, random: Random
    ) -> None:
        self._shelf = Shelf(records, EVENT_SOURCE_MAPPING, EventSourceMapping)
        self._source = source
        self._invoker = invoker
        self._clock = clock
        self._random = random
        self._counts = QueueCounts()
        self._pollers: dict[RecordKey, tuple[QueueMapping, QueuePoller]] = {}
        self._leaving: set[QueuePoller] = set()
        self._changed: set[RecordKey] = set()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the pollers of all enabled mappings."""
        for entry in await self._shelf.every():
            await self._follow(entry.key, entry)
        self._task = asyncio.get_running_loop().create_task(self._follow_changes())

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

    async def close(self, grace_s: float) -> None:
        """Read nothing more and give batches under way ``grace_s``."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        pollers = [*(poller for _, poller in self._pollers.values()), *self._leaving]
        await asyncio.gather(*(poller.close(grace_s) for poller in pollers))

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
        wanted = None if entry is None else queue_mapping(key, entry.value)
        running = self._pollers.get(key)
        if running is not None:
            if running[0] == wanted:
                return
            del self._pollers[key]
            await running[1].stop()
            self._leaving = {poller for poller in (*self._leaving, running[1]) if poller.in_flight()}
        if wanted is not None:
            poller = QueuePoller(wanted, self._source, self._invoker, self._clock, self._random, self._counts)
            self._pollers[key] = (wanted, poller)
            poller.start()
        elif entry is not None and entry.value.shown.state == "Enabled" and running is None:
            _log.warning(
                "the records of an event source mapping are not polled: only SQS is built yet",
                mapping=mapping_arn(key),
                source=entry.value.shown.event_source_arn,
            )


def queue_mapping(key: RecordKey, mapping: EventSourceMapping) -> QueueMapping | None:
    """What is to run for a mapping now; None: nothing, or a source that is not built."""
    shown = mapping.shown
    source, function = shown.event_source_arn or "", shown.function_arn or ""
    if shown.state != "Enabled" or source.split(":")[2:3] != ["sqs"]:
        return None
    reference = parse_function_reference(function)
    scaling = shown.scaling_config
    criteria = shown.filter_criteria
    filters = () if criteria is None else tuple(one.pattern or "{}" for one in criteria.filters or ())
    return QueueMapping(
        uuid=key.name,
        source_arn=source,
        function=FunctionKey(
            reference.account or key.account, reference.region or key.region, reference.name
        ),
        qualifier=reference.qualifier or "",
        batch_size=shown.batch_size or 10,
        window_s=shown.maximum_batching_window_in_seconds or 0,
        concurrency_max=1000 if scaling is None else scaling.maximum_concurrency or 1000,
        reports_failures="ReportBatchItemFailures" in (shown.function_response_types or ()),
        filters=filters,
    )
