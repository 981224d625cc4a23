"""Processes the records of one lane of a shard, batch by batch, in their order. Never reads or stores."""

import asyncio
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from typing import Final

import msgspec

from stoker.core.errors import StokerError
from stoker.events.stream_answers import STATE_MAX_BYTES, first_failed, window_state
from stoker.events.stream_batches import (
    INFINITE,
    PAYLOAD_MAX_BYTES,
    RETRIES_EXHAUSTED,
    Discard,
    Work,
    after_attempt,
    batch_length,
    window_start_s,
    without_old,
)
from stoker.events.stream_events import Origin, Tumbling, event_of
from stoker.events.stream_parts import (
    RESULT_FUNCTION_FAILED,
    RESULT_OK,
    StreamMapping,
    StreamParts,
    backoff_s,
)
from stoker.services.events import Attempt, AttemptOutcome
from stoker.services.queue import QueuedEvent
from stoker.services.sources import SourceFailed
from stoker.services.streams import LaneProgress, OpenWindow, StreamRecord

RETENTION_MIN_S: Final = 86_400.0
"""No stream keeps its records for less: younger ones need not be asked about."""

Commit = Callable[["Lane", LaneProgress, Discard | None], Awaitable[None]]


class Stopped(StokerError):
    """The poller is to end; what was not committed is processed again by whoever comes next."""


class Lane:
    """Records that wait, and the one batch that is being processed."""

    def __init__(
        self,
        origin: Origin,
        mapping: StreamMapping,
        parts: StreamParts,
        progress: LaneProgress,
        commit: Commit,
        released: Callable[[int], None],
    ) -> None:
        self.progress = progress
        self.working = False
        self._origin = origin
        self._mapping = mapping
        self._parts = parts
        self._commit = commit
        self._released = released
        self._pending: deque[StreamRecord] = deque()
        self._since_s = 0.0
        self._changed = asyncio.Event()
        self._stopping = asyncio.Event()
        self._ended = False
        self._caught_up_s = float("-inf")
        self._failures = 0

    @property
    def idle(self) -> bool:
        """Nothing waits and nothing is under way."""
        return not self._pending and not self.working

    def put(self, record: StreamRecord) -> None:
        """Add a record that was read."""
        if not self._pending:
            self._since_s = self._parts.clock.monotonic_s()
        self._pending.append(record)
        self._changed.set()

    def caught_up(self, at_s: float) -> None:
        """Everything that had arrived at a time (of the wall clock) was added."""
        self._caught_up_s = at_s
        if self.progress.window is not None:
            self._changed.set()

    def end(self) -> None:
        """Nothing more is added."""
        self._ended = True
        self._changed.set()

    def stop(self) -> None:
        """Begin nothing more."""
        self._stopping.set()
        self._changed.set()

    async def run(self) -> None:
        """Process until the shard ends. Raises Stopped, and what ``commit`` raises."""
        while True:
            if self._stopping.is_set():
                raise Stopped("stopped")
            self._changed.clear()
            if self._window_is_over():
                await self._working(self._close_window())
            elif not self._pending:
                if self._ended:
                    return
                await self._changed.wait()
            else:
                count, full = batch_length(self._pending, self._mapping.rules)
                wait_s = 0.0 if full or self._ended else self._gathering_s()
                if wait_s <= 0:
                    await self._working(self._process(self._taken(count)))
                else:
                    await _waited(self._changed, wait_s)

    async def _working(self, work: Awaitable[None]) -> None:
        self.working = True
        try:
            await work
        finally:
            self.working = False

    def _taken(self, count: int) -> list[StreamRecord]:
        taken = list(islice(self._pending, count))
        for _ in range(count):
            self._pending.popleft()
        self._since_s = self._parts.clock.monotonic_s()
        return taken

    def _gathering_s(self) -> float:
        return self._since_s + self._mapping.rules.window_s - self._parts.clock.monotonic_s()

    def _window_is_over(self) -> bool:
        window, length_s = self.progress.window, self._mapping.rules.tumbling_s
        if window is None:
            return False
        if not length_s or (self._ended and not self._pending):
            return True
        if self._pending:
            return window_start_s(self._pending[0], length_s) > window.start_s
        return self._caught_up_s >= window.start_s + length_s

    async def _close_window(self) -> None:
        """The window's last invocation; until it succeeds nothing else is processed."""
        window = self.progress.window
        while window is not None:
            attempt, _ = await self._invoke((), window, final=True)
            if attempt.outcome is AttemptOutcome.SUCCEEDED:
                self._succeeded()
                window = None
                await self._commit(self, msgspec.structs.replace(self.progress, window=None), None)
            else:
                await self._pause()

    async def _process(self, records: Sequence[StreamRecord]) -> None:
        works = [Work(records=records)]
        while works:
            work = works.pop(0)
            discard, work = without_old(work, self._parts.clock.now_s(), await self._age_max_s(work))
            if discard is None and work.records[0].size_bytes > PAYLOAD_MAX_BYTES:
                # It can never be an invocation. Its condition is not documented.
                discard, work = Discard(work, RETRIES_EXHAUSTED), msgspec.structs.replace(work, records=())
            if discard is not None:
                await self._give_up(discard)
            if work.records:
                works[:0] = await self._attempt(work)
        self._released(sum(record.size_bytes for record in records))

    async def _attempt(self, work: Work) -> tuple[Work, ...]:
        """Invoke once and keep what came of it; what is left of the batch."""
        rules = self._mapping.rules
        window = self._window_for(work.records)
        attempt, request_id = await self._invoke(work.records, window)
        work = msgspec.structs.replace(work, request_id=request_id)
        failed_at, window = self._understood(attempt, work, window)
        step = after_attempt(rules, work, attempt, failed_at)
        if attempt.outcome not in (AttemptOutcome.SUCCEEDED, AttemptOutcome.FUNCTION_ERROR):
            self._parts.counts.throttles += 1
        if step.done:
            self._parts.counts.processed += step.done
            last = work.records[step.done - 1].sequence_number
            await self._commit(self, LaneProgress(last, window), None)
        if step.discard is not None:
            await self._give_up(step.discard)
        if not step.failed or step.done or step.discard is not None:
            self._failures = 0
        if not step.failed:
            self._succeeded()
        elif step.waits:
            await self._pause()
        return step.rest

    def _understood(
        self, attempt: Attempt, work: Work, window: OpenWindow | None
    ) -> tuple[int | None, OpenWindow | None]:
        """(the first record that failed, the window with the state that the function gave)."""
        if attempt.outcome is not AttemptOutcome.SUCCEEDED:
            return None, window
        failed_at = None
        if self._mapping.rules.reports_failures:
            numbers = [record.sequence_number for record in work.records]
            failed_at = first_failed(attempt.payload, numbers)
        if window is None:
            return failed_at, None
        state = window_state(attempt.payload)
        if state is None:
            return 0, window
        early = len(bytes(state)) > STATE_MAX_BYTES
        return failed_at, OpenWindow(window.start_s, msgspec.Raw(b"{}") if early else state, early)

    def _window_for(self, records: Sequence[StreamRecord]) -> OpenWindow | None:
        length_s = self._mapping.rules.tumbling_s
        if not length_s:
            return None
        return self.progress.window or OpenWindow(window_start_s(records[0], length_s), msgspec.Raw(b"{}"))

    async def _invoke(
        self, records: Sequence[StreamRecord], window: OpenWindow | None, *, final: bool = False
    ) -> tuple[Attempt, str]:
        """(what became of one invocation, its request id)."""
        if self._stopping.is_set():
            raise Stopped("stopped")
        mapping, parts = self._mapping, self._parts
        now_s = parts.clock.now_s()
        tumbling = None
        if window is not None:
            # Where windows were taken off the mapping, the one that was open ends at once.
            tumbling = Tumbling(open=window, length_s=max(1, mapping.rules.tumbling_s), final=final)
        role_arn = await parts.role_arn(mapping.function, mapping.qualifier)
        event = QueuedEvent(
            request_id=str(uuid.UUID(int=parts.random.getrandbits(128), version=4)),
            key=mapping.function,
            qualifier=mapping.qualifier,
            payload=event_of(self._origin, records, role_arn, tumbling),
            accepted_at_s=now_s,
            due_at_s=now_s,
        )
        parts.counts.invocations += 1
        return await parts.invoker.run_event(event), event.request_id

    async def _give_up(self, discard: Discard) -> None:
        records = discard.work.records
        self._parts.counts.discarded += len(records)
        progress = msgspec.structs.replace(self.progress, done=records[-1].sequence_number)
        await self._commit(self, progress, discard)

    async def _age_max_s(self, work: Work) -> float:
        """How old records may be. Without a limit of the mapping it is how long their stream keeps them."""
        limit_s = self._mapping.rules.age_max_s
        age_s = self._parts.clock.now_s() - work.records[0].arrived_at_s
        if limit_s != INFINITE or not self._failures or age_s < RETENTION_MIN_S:
            return limit_s
        try:
            return await self._parts.source.retention_s(self._mapping.source_arn)
        except SourceFailed:
            return INFINITE

    def _succeeded(self) -> None:
        self._failures = 0
        self._parts.report(RESULT_OK)

    async def _pause(self) -> None:
        """After a failure: longer each time. Raises Stopped."""
        self._parts.counts.failures += 1
        self._parts.report(RESULT_FUNCTION_FAILED)
        wait_s = backoff_s(self._failures, self._parts.random)
        self._failures += 1
        if await _waited(self._stopping, wait_s):
            raise Stopped("stopped")


async def _waited(event: asyncio.Event, wait_s: float) -> bool:
    """Whether the event came within the time."""
    try:
        await asyncio.wait_for(event.wait(), wait_s)
    except TimeoutError:
        return False
    return True
