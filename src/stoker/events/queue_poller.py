"""The poller of one SQS mapping: receives, batches, has the function run, deletes what it processed.

What is not deleted comes back after the queue's visibility time-out, so a kill at any moment loses nothing.
"""

import asyncio
import uuid
from collections.abc import Sequence
from random import Random

import msgspec
import structlog

from stoker.core.clock import Clock
from stoker.events.queue_batches import (
    PAYLOAD_MAX_BYTES,
    compile_message_filter,
    event_of,
    failed_messages,
    size_bytes,
)
from stoker.services.events import Attempt, AttemptOutcome, EventInvoker
from stoker.services.functions import FunctionKey
from stoker.services.queue import QueuedEvent
from stoker.services.sources import QueueMessage, QueueSource, SourceFailed

RECEIVE_MAX = 10
"""What SQS returns at once."""
LONG_POLL_S = 20
CONCURRENCY_MAX = 50
"""Invocations of one mapping at one time; ScalingConfig.MaximumConcurrency can lower it."""
BACKOFF_FIRST_S = 0.5
BACKOFF_MAX_S = 30.0
DELETE_ATTEMPTS = 4
HELD_SHARE = 0.8
"""Of the visibility time-out: how long a throttled batch is tried again before it is left to come back."""

_log = structlog.get_logger("stoker.events")


class QueueMapping(msgspec.Struct, frozen=True, kw_only=True):
    """What a poller needs to know of its mapping."""

    uuid: str
    source_arn: str
    function: FunctionKey
    qualifier: str
    batch_size: int
    window_s: int
    concurrency_max: int
    reports_failures: bool
    filters: tuple[str, ...] = ()


class QueueCounts(msgspec.Struct):
    """Counted over all pollers since the start."""

    messages: int = 0
    filtered: int = 0
    invocations: int = 0
    failures: int = 0
    throttles: int = 0
    deleted: int = 0
    source_errors: int = 0


class QueuePoller:
    """Runs until it is stopped; batches under way end by themselves."""

    def __init__(
        self,
        mapping: QueueMapping,
        source: QueueSource,
        invoker: EventInvoker,
        clock: Clock,
        random: Random,
        counts: QueueCounts,
    ) -> None:
        self._mapping = mapping
        self._source = source
        self._invoker = invoker
        self._clock = clock
        self._random = random
        self._counts = counts
        self._keeps = compile_message_filter(mapping.filters)
        self._slots = asyncio.Semaphore(min(CONCURRENCY_MAX, mapping.concurrency_max))
        self._batches: set[asyncio.Task[None]] = set()
        self._reader: asyncio.Task[None] | None = None
        self._visibility_s = 0

    def start(self) -> None:
        """Begin to read."""
        self._reader = asyncio.get_running_loop().create_task(self._read())

    async def stop(self) -> None:
        """Read nothing more, at once; what was read and not yet handed to the function is made visible."""
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)

    async def close(self, grace_s: float) -> None:
        """Stop, and give batches under way ``grace_s``."""
        await self.stop()
        if self._batches:
            _, late = await asyncio.wait(self._batches, timeout=grace_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def in_flight(self) -> int:
        """Batches that the function works on."""
        return len(self._batches)

    async def _read(self) -> None:
        failures = 0
        while True:
            await self._slots.acquire()
            handed = False
            try:
                if self._visibility_s == 0 or failures:
                    self._visibility_s = await self._source.visibility_s(self._mapping.source_arn)
                batch = await self._batch()
                failures = 0
                if batch:
                    self._begin(batch)
                    handed = True
            except Exception as error:
                failures += 1
                self._counts.source_errors += 1
                _log.warning(
                    "an event source could not be read; trying again",
                    mapping=self._mapping.uuid,
                    source=self._mapping.source_arn,
                    reason=str(error) if isinstance(error, SourceFailed) else repr(error),
                )
            finally:
                if not handed:
                    self._slots.release()
            if failures:
                await asyncio.sleep(self._wait_s(failures - 1))

    async def _batch(self) -> list[QueueMessage]:
        """Messages that pass the filter: of one receive, or of a batching window."""
        mapping, batch, held_bytes = self._mapping, list[QueueMessage](), 0
        ends_s: float | None = None
        try:
            while True:
                left_s = float(LONG_POLL_S) if ends_s is None else ends_s - self._clock.monotonic_s()
                if left_s < 1.0:  # SQS waits whole seconds
                    await asyncio.sleep(max(0.0, left_s))
                limit = min(RECEIVE_MAX, mapping.batch_size - len(batch))
                found = await self._source.receive(
                    mapping.source_arn, limit=limit, wait_s=max(0, min(LONG_POLL_S, int(left_s)))
                )
                batch += (kept := await self._filtered(found))
                held_bytes += sum(map(size_bytes, kept))
                if ends_s is None and batch:
                    ends_s = self._clock.monotonic_s() + mapping.window_s
                full = len(batch) >= mapping.batch_size or held_bytes >= PAYLOAD_MAX_BYTES
                if full or ends_s is None or self._clock.monotonic_s() >= ends_s:
                    return batch
        except BaseException:
            if batch:
                self._source.release_nowait(mapping.source_arn, [message.receipt for message in batch])
            raise

    async def _filtered(self, found: Sequence[QueueMessage]) -> list[QueueMessage]:
        """Those that the filter keeps; the others are deleted, as Lambda does."""
        self._counts.messages += len(found)
        if self._keeps is None:
            return list(found)
        arn = self._mapping.source_arn
        kept = [message for message in found if self._keeps(message, arn)]
        kept_ids = {id(message) for message in kept}
        dropped = [message.receipt for message in found if id(message) not in kept_ids]
        if dropped:
            self._counts.filtered += len(dropped)
            await self._delete(dropped)
        return kept

    def _begin(self, batch: list[QueueMessage]) -> None:
        task = asyncio.get_running_loop().create_task(self._process(batch))
        self._batches.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._batches.discard(task)
        self._slots.release()

    async def _process(self, batch: list[QueueMessage]) -> None:
        failed_groups: set[str] = set()
        try:
            for whole in _parts(batch):
                # Nothing of a FIFO group may pass what failed of it: that comes back, and then this.
                part = [message for message in whole if self._group(message) not in failed_groups]
                if not part:
                    continue
                failed = self._failed(part, await self._invoke(part))
                failed_groups |= {self._group(one) for one in part if one.message_id in failed} - {""}
                await self._delete([one.receipt for one in part if one.message_id not in failed])
        except Exception as error:
            _log.error("a batch could not be processed", mapping=self._mapping.uuid, reason=repr(error))

    def _group(self, message: QueueMessage) -> str:
        """Within which order is kept; empty in queues that keep none (their groups are for fairness)."""
        if not self._mapping.source_arn.endswith(".fifo"):
            return ""
        return message.attributes.get("MessageGroupId", "")

    def _failed(self, part: Sequence[QueueMessage], attempt: Attempt) -> frozenset[str]:
        """The messages that were not processed."""
        message_ids = [message.message_id for message in part]
        if attempt.outcome is not AttemptOutcome.SUCCEEDED:
            self._counts.failures += 1
            return frozenset(message_ids)
        return (
            failed_messages(attempt.payload, message_ids) if self._mapping.reports_failures else frozenset()
        )

    async def _invoke(self, batch: Sequence[QueueMessage]) -> Attempt:
        """Once, and again while there is no room for it and the messages are hidden still."""
        mapping, now_s = self._mapping, self._clock.now_s()
        event = QueuedEvent(
            request_id=str(uuid.UUID(int=self._random.getrandbits(128), version=4)),
            key=mapping.function,
            qualifier=mapping.qualifier,
            payload=event_of(batch, mapping.source_arn, batched=mapping.window_s > 0),
            accepted_at_s=now_s,
            due_at_s=now_s,
        )
        until_s = self._clock.monotonic_s() + HELD_SHARE * self._visibility_s
        throttles = 0
        while True:
            attempt = await self._invoker.run_event(event)
            self._counts.invocations += 1
            if attempt.outcome not in (AttemptOutcome.THROTTLED, AttemptOutcome.UNAVAILABLE):
                return attempt
            self._counts.throttles += 1
            wait_s = self._wait_s(throttles)
            throttles += 1
            if self._clock.monotonic_s() + wait_s > until_s:
                return attempt
            await asyncio.sleep(wait_s)

    async def _delete(self, receipts: Sequence[str]) -> None:
        for attempt in range(DELETE_ATTEMPTS):
            try:
                await self._source.delete(self._mapping.source_arn, receipts)
            except SourceFailed as problem:
                if attempt == DELETE_ATTEMPTS - 1:
                    # They come back and are processed twice.
                    _log.error(
                        "messages that were processed could not be deleted",
                        mapping=self._mapping.uuid,
                        reason=str(problem),
                    )
                    return
                await asyncio.sleep(self._wait_s(attempt))
            else:
                self._counts.deleted += len(receipts)
                return

    def _wait_s(self, failures: int) -> float:
        longest_s = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2.0 ** min(failures, 32))
        return longest_s * (0.5 + self._random.random() / 2)


def _parts(batch: list[QueueMessage]) -> list[list[QueueMessage]]:
    """The batch, cut where it would be larger than an invocation's payload."""
    parts: list[list[QueueMessage]] = [[]]
    used_bytes = 0
    for message in batch:
        size = size_bytes(message)
        if parts[-1] and used_bytes + size > PAYLOAD_MAX_BYTES:
            parts.append([])
            used_bytes = 0
        parts[-1].append(message)
        used_bytes += size
    return parts
