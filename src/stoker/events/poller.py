"""The poller of the durable queue: takes what is due, has it run, and carries out what ``retries`` decides.
Knows no function, sandbox or caller."""

import asyncio
from collections import deque
from collections.abc import Callable
from random import Random

import msgspec
import structlog

from stoker.core.clock import Clock
from stoker.events.endings import Endings
from stoker.events.outcome_records import Ending
from stoker.events.policies import EventConfigs, narrowed
from stoker.events.polling import IDLE_WAIT_MAX_S, poll, wait_until_s
from stoker.events.retries import Decision, Drop, DropReason, Retry, RetryPolicy, decide, is_too_old
from stoker.services.events import Attempt, AttemptOutcome, EventInvoker
from stoker.services.queue import Delivery, EventQueue, QueuedEvent

CONCURRENCY_MAX = 50
"""Events under way at one time, whoever's they are: half of the 100 that always stay unreserved, since the
front end gives events no more than half and would throttle the rest."""
AHEAD_MAX = 64
"""Events taken while every slot is busy, so that a slot that falls free is filled at once and one transaction
takes many."""
BEGUN_PER_TURN_MAX = 2
"""Events that start in one turn of the event loop: callers who came meanwhile go first; where nobody comes,
turns follow each other at once."""
LEASE_S = 1200.0
"""Longer than the longest attempt: 900 s, after an Init of up to 130 s, and the wait for a sandbox."""

_log = structlog.get_logger("stoker.events")


class EventStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What became of events since the start."""

    in_flight: int
    succeeded: int
    function_errors: int
    throttled: int
    unavailable: int
    retried: int
    dropped: dict[str, int]
    """By the reason's AWS name."""


class EventPoller:
    """At least once: an event is settled after its attempt, so a crash in between runs it again."""

    def __init__(
        self,
        queue: EventQueue,
        invoker: EventInvoker,
        clock: Clock,
        random: Random,
        *,
        policy: RetryPolicy | None = None,
        configs: EventConfigs | None = None,
        endings: Endings | None = None,
        delivery_added: Callable[[], None] = lambda: None,
        concurrency_max: int = CONCURRENCY_MAX,
    ) -> None:
        self._queue = queue
        self._invoker = invoker
        self._clock = clock
        self._random = random
        self._policy = policy or RetryPolicy()
        self._configs = configs
        self._endings = endings
        self._delivery_added = delivery_added
        self._concurrency_max = concurrency_max
        self._running: set[asyncio.Task[None]] = set()
        self._ahead: deque[QueuedEvent] = deque()
        self._filling: asyncio.Handle | None = None
        self._arriving = 0
        """Events being put that will run at once."""
        self._is_behind = True
        """Whether events may be due that were not taken."""
        self._wake = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None
        self._is_closed = False
        self._outcomes = dict.fromkeys(AttemptOutcome, 0)
        self._dropped = dict.fromkeys(DropReason, 0)
        self._retried = 0

    def start(self) -> None:
        """Begin to take events."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop().create_task(
                poll(self._take, self._wake, failed="the event queue could not be read; trying again")
            )

    async def put(self, event: QueuedEvent) -> None:
        """Put an event on the queue. It runs without being read back where there is room and no other waits.

        Raises:
            QueueFull, EventExists: nothing was written.
        """
        if self._is_closed or self._is_behind or len(self._ahead) + self._arriving >= AHEAD_MAX:
            await self._queue.put(event)
            self._is_behind = True
            self._wake.set()
            return
        self._arriving += 1
        try:
            await self._queue.put(event, lease_s=LEASE_S)
        finally:
            self._arriving -= 1
        self._ahead.append(event)  # once closed it stays there, on the queue still as after a crash
        self._fill()

    def statistics(self) -> EventStatistics:
        """Counts as of now."""
        return EventStatistics(
            in_flight=len(self._running),
            succeeded=self._outcomes[AttemptOutcome.SUCCEEDED],
            function_errors=self._outcomes[AttemptOutcome.FUNCTION_ERROR],
            throttled=self._outcomes[AttemptOutcome.THROTTLED],
            unavailable=self._outcomes[AttemptOutcome.UNAVAILABLE],
            retried=self._retried,
            dropped={reason.value: count for reason, count in self._dropped.items()},
        )

    async def close(self, grace_s: float) -> None:
        """Take nothing more and give what runs ``grace_s``; what is cut off is on the queue still."""
        self._is_closed = True
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=grace_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _take(self) -> float:
        """Take what is due and fits; returns how long there is nothing to do, unless woken."""
        wanted = AHEAD_MAX - len(self._ahead) - self._arriving
        now_s = self._clock.now_s()
        events = await self._queue.take(now_s=now_s, limit=wanted, lease_s=LEASE_S) if wanted > 0 else []
        self._ahead.extend(events)
        self._fill()
        self._is_behind = len(events) >= wanted
        if self._is_behind:
            return IDLE_WAIT_MAX_S
        return wait_until_s(await self._queue.next_due_s(), self._clock.now_s())

    def _free(self) -> int:
        return self._concurrency_max - len(self._running)

    def _fill(self) -> None:
        """Start some of what is ahead in the next turn, and the rest in turns after it."""
        if self._filling is None and self._ahead and self._free() > 0 and not self._is_closed:
            self._filling = asyncio.get_running_loop().call_soon(self._fill_some)

    def _fill_some(self) -> None:
        self._filling = None
        for _ in range(min(BEGUN_PER_TURN_MAX, self._free(), len(self._ahead))):
            self._begin(self._ahead.popleft())
        if self._is_behind and len(self._ahead) <= AHEAD_MAX // 2:
            self._wake.set()
        self._fill()

    def _begin(self, event: QueuedEvent) -> None:
        task = asyncio.get_running_loop().create_task(self._attempt(event))
        self._running.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._fill()

    async def _attempt(self, event: QueuedEvent) -> None:
        try:
            decision, attempt = await self._run(event)
            await self._carry_out(event, decision, attempt)
        except Exception as error:
            # The event is on the queue still and comes back when its lease ends.
            _log.error(
                "an event's outcome could not be written", request_id=event.request_id, reason=repr(error)
            )

    async def _run(self, event: QueuedEvent) -> tuple[Decision, Attempt | None]:
        policy = self._policy
        try:
            if self._configs is not None:
                policy = narrowed(policy, await self._configs.config(event))
            if is_too_old(event, self._clock.now_s(), policy):
                return Drop(DropReason.EVENT_AGE_EXCEEDED), None
            attempt = await self._invoker.run_event(event)
        except Exception as error:
            _log.error("an event could not be run", request_id=event.request_id, reason=repr(error))
            attempt = Attempt(AttemptOutcome.UNAVAILABLE, repr(error))
        self._outcomes[attempt.outcome] += 1
        decision = decide(event, attempt, self._clock.now_s(), policy, chance=self._random.random())
        return decision, attempt

    async def _carry_out(self, event: QueuedEvent, decision: Decision, attempt: Attempt | None) -> None:
        if isinstance(decision, Retry):
            self._retried += 1
            await self._queue.reschedule(decision.event)
            self._wake.set()
            return
        reason = decision.reason if isinstance(decision, Drop) else None
        left: list[Delivery] = []
        if self._endings is not None:
            ending = Ending(event=event, reason=reason, attempt=attempt, now_s=self._clock.now_s())
            left = await self._endings.deliveries(ending)
        await self._queue.settle(event.request_id, left)
        if left:
            self._delivery_added()
        if reason is not None:
            self._dropped[reason] += 1
            _log.warning(
                "an asynchronous event was dropped for good",
                request_id=event.request_id,
                function=event.key.arn,
                reason=reason.value,
                attempts=event.attempts,
                sent_to=[one.destination for one in left],
            )
