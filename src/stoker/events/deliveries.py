"""Sends what ended events left to their destinations: at least once, with back-off, some at a time.

A destination that fails rests, so that what waits for it holds up no other. Knows no AWS client.
"""

import asyncio
import uuid
from collections import OrderedDict
from random import Random

import msgspec
import structlog

from stoker.core.arn import parse_function_reference
from stoker.core.clock import Clock
from stoker.core.errors import ServiceError
from stoker.events.polling import IDLE_WAIT_MAX_S, poll, wait_until_s
from stoker.services.delivery import DeliveryFailed, Sender
from stoker.services.functions import FunctionKey
from stoker.services.queue import Delivery, DeliveryQueue, EventExists, EventSink, QueuedEvent, QueueFull

CONCURRENCY_MAX = 8
BATCH_MAX = 32
LEASE_S = 300.0
"""Longer than the clients' time-outs with the wait for a thread."""
BACKOFF_FIRST_S = 1.0
BACKOFF_MAX_S = 300.0
GIVEN_UP_AFTER_S = 6 * 3600.0
"""As long as AWS keeps an event."""
RESTING_MAX = 1000
"""Destinations of which it is remembered that they fail."""

_log = structlog.get_logger("stoker.events")


class DeliveryStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Records and dead letters since the start."""

    in_flight: int
    delivered: int
    failed: int
    """Attempts that the destination did not take."""
    given_up: int


class DeliveryPoller:
    """Takes deliveries that are due. Lambda destinations get an event on the queue here."""

    def __init__(
        self,
        deliveries: DeliveryQueue,
        events: EventSink,
        sender: Sender,
        clock: Clock,
        random: Random,
    ) -> None:
        self._deliveries = deliveries
        self._events = events
        self._sender = sender
        self._clock = clock
        self._random = random
        self._running: set[asyncio.Task[None]] = set()
        self._resting_until_s: OrderedDict[str, float] = OrderedDict()
        self._wake = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None
        self._delivered = self._failed = self._given_up = 0

    def start(self) -> None:
        """Begin to send."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop().create_task(
                poll(self._take, self._wake, failed="deliveries could not be read; trying again")
            )

    def wake(self) -> None:
        """A delivery was added: look now."""
        self._wake.set()

    def put_events_on(self, events: EventSink) -> None:
        """Where events for Lambda destinations go from now on."""
        self._events = events

    def statistics(self) -> DeliveryStatistics:
        """Counts as of now."""
        return DeliveryStatistics(
            in_flight=len(self._running),
            delivered=self._delivered,
            failed=self._failed,
            given_up=self._given_up,
        )

    async def close(self) -> None:
        """Stop; what is cut off is on the queue still and may be sent twice."""
        tasks = [*self._running, *((self._loop,) if self._loop else ())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _take(self) -> float:
        free = min(BATCH_MAX, CONCURRENCY_MAX - len(self._running))
        if free <= 0:
            return IDLE_WAIT_MAX_S
        now_s = self._clock.now_s()
        taken = await self._deliveries.take(now_s=now_s, limit=free, lease_s=LEASE_S)
        held_up: list[Delivery] = []
        for delivery in taken:
            until_s = self._resting_until_s.get(delivery.destination, 0.0)
            if until_s > now_s:
                held_up.append(msgspec.structs.replace(delivery, due_at_s=until_s))
                continue
            task = asyncio.get_running_loop().create_task(self._attempt(delivery))
            self._running.add(task)
            task.add_done_callback(self._ended)
        await self._deliveries.postpone(held_up)
        if len(taken) == free:
            return 0.0
        return wait_until_s(await self._deliveries.next_due_s(), self._clock.now_s())

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._wake.set()

    async def _attempt(self, delivery: Delivery) -> None:
        try:
            await self._send(delivery)
        except Exception as error:
            reason = str(error) if isinstance(error, DeliveryFailed) else repr(error)
            await self._failed_once(delivery, reason)
            return
        self._delivered += 1
        self._resting_until_s.pop(delivery.destination, None)
        try:
            await self._deliveries.remove(delivery.delivery_id)
        except Exception as error:
            # It comes back when its lease ends, and is sent again.
            _log.error("a delivery could not be settled", request_id=delivery.request_id, reason=repr(error))

    async def _send(self, delivery: Delivery) -> None:
        if delivery.destination.split(":")[2:3] == ["lambda"]:
            await self._accept(delivery)
            return
        await self._sender.send(delivery)

    async def _accept(self, delivery: Delivery) -> None:
        try:
            await self._events.put(_event_for(delivery, self._clock.now_s()))
        except EventExists:
            return
        except (QueueFull, ServiceError) as problem:
            raise DeliveryFailed(str(problem)) from problem

    async def _failed_once(self, delivery: Delivery, reason: str) -> None:
        self._failed += 1
        now_s = self._clock.now_s()
        told = {
            "request_id": delivery.request_id,
            "function": delivery.function_arn,
            "destination": delivery.destination,
            "reason": reason,
        }
        try:
            if now_s - delivery.created_at_s > GIVEN_UP_AFTER_S:
                self._given_up += 1
                _log.error("a record of an event's end was dropped: its destination does not take it", **told)
                await self._deliveries.remove(delivery.delivery_id)
                return
            _log.warning("a destination did not take a record; trying again", **told)
            longest_s = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2.0 ** min(delivery.failures, 32))
            due_at_s = now_s + longest_s * (0.5 + self._random.random() / 2)
            self._rest(delivery.destination, due_at_s)
            again = msgspec.structs.replace(delivery, due_at_s=due_at_s, failures=delivery.failures + 1)
            await self._deliveries.postpone([again])
        except Exception as error:
            _log.error("a delivery could not be put back", request_id=delivery.request_id, reason=repr(error))

    def _rest(self, destination: str, until_s: float) -> None:
        self._resting_until_s[destination] = until_s
        self._resting_until_s.move_to_end(destination)
        while len(self._resting_until_s) > RESTING_MAX:
            self._resting_until_s.popitem(last=False)


def _event_for(delivery: Delivery, now_s: float) -> QueuedEvent:
    """The event for a function that is a destination. Its id follows from the delivery's: sent twice, it is
    queued once while it waits."""
    reference = parse_function_reference(delivery.destination)
    key = FunctionKey(reference.account or "", reference.region or "", reference.name)
    return QueuedEvent(
        request_id=str(uuid.uuid5(uuid.NAMESPACE_OID, delivery.delivery_id)),
        key=key,
        qualifier=reference.qualifier or "",
        payload=delivery.body,
        accepted_at_s=now_s,
        due_at_s=now_s,
    )
