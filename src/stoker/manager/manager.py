"""The worker manager of one process: carries out what the pool decides, over workers and a placement."""

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any

import msgspec
import structlog

from stoker.core.clock import Clock
from stoker.core.errors import ServiceError, StokerError, too_many_requests
from stoker.core.promise import Promise
from stoker.manager.pool import Pool, PoolLimits, PoolStatistics, Ticket
from stoker.manager.preparing import Preparing
from stoker.manager.waiting import Waiter, Waiting
from stoker.services.functions import FunctionKey, FunctionVersion
from stoker.services.manager import Reservation
from stoker.services.placement import Placement, PlacementRequest, WorkerSnapshot
from stoker.services.worker import CodeNotHere, SandboxReference, Worker, WorkerUnavailable

RECLAIM_INTERVAL_S = 1.0
ROOM_WAIT_S = 3.0
"""How long a new sandbox waits for room: longer than the longest shutdown phase (2 s), which frees it."""
ROOM_POLL_FIRST_S = 0.005
ROOM_POLL_MAX_S = 0.1
EVICTION_INTERVAL_S = 0.5
"""An evicted sandbox has this long to be gone before further ones are evicted for the same placement."""

_log = structlog.get_logger("stoker.manager")


class _NoLongerWanted(StokerError):
    """Whoever waited for this sandbox was served by another."""


class _Search(msgspec.Struct, eq=False):
    """How far one maker is with finding a worker; ``refused``: those that had no room when asked."""

    request: PlacementRequest
    refused: dict[str, WorkerUnavailable] = {}
    evict_at_s: float = 0.0
    pause_s: float = ROOM_POLL_FIRST_S


class LocalWorkerManager:
    """The WorkerManager port for workers that this process alone uses."""

    def __init__(
        self,
        workers: Mapping[str, Worker],
        placement: Placement,
        clock: Clock,
        *,
        limits: PoolLimits | None = None,
        pool: Pool | None = None,
        proactive: bool = True,
    ) -> None:
        self._workers = workers
        self._placement = placement
        self._clock = clock
        self._pool = pool or Pool(limits)
        self._waiting = Waiting()
        self._loop = asyncio.get_running_loop()
        self._making: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._preparing = Preparing(
            self._pool, self._waiting, clock, self, proactive=proactive, arm=self._arm
        )
        self.provision = self._preparing.provision
        self.provisioned = self._preparing.provisioned
        for worker in workers.values():
            worker.on_sandbox_lost(self._lost)

    def reserve(self, function: FunctionVersion) -> Reservation | None:
        reservation = self._pool.reserve(function.deployment_id, self._clock.monotonic_s())
        if reservation is not None and reservation.proactive:
            self._preparing.after_use(function)
        return reservation

    def place(self, function: FunctionVersion) -> Promise[Reservation]:
        """A sandbox that is made for the caller, or one given back meanwhile, whichever is there first.

        The answer may be a ServiceError, 429 over the scaling rate or 500 when no worker has room, or
        RuntimeUnavailable: no worker can run the function's runtime.
        """
        waiter: Waiter = Promise(unclaimed=self._unclaimed)
        if self._closed:
            waiter.fail(_closing())
            return waiter
        deployment_id, now_s = function.deployment_id, self._clock.monotonic_s()
        self._waiting.add(deployment_id, waiter, now_s)
        if self._waiting.lacks_makers(deployment_id) and not self._begin_making(function, now_s):
            self._waiting.discard(deployment_id, waiter)
            waiter.fail(_over_rate())
            return waiter
        self._arm()
        waiter.when_done(lambda _: self._waiting.discard(deployment_id, waiter) if waiter.cancelled else None)
        return waiter

    def _unclaimed(self, reservation: Reservation) -> None:
        self.release(reservation, healthy=True)

    def release(self, reservation: Reservation, *, healthy: bool) -> None:
        reference, now_s = reservation.sandbox, self._clock.monotonic_s()
        if self._waiting and self._pass_on(reference, healthy=healthy, now_s=now_s):
            return
        released = self._pool.release(reference, healthy=healthy, now_s=now_s)
        if released.idle is not None:
            self._workers[reference.worker_id].idle(released.idle)
        elif released.retire is not None:
            self.retire([released.retire])

    def versions(self, key: FunctionKey) -> frozenset[str]:
        return self._pool.versions(key)

    def forget(self, key: FunctionKey, version: str, *, keep_deployment_id: str | None) -> None:
        self.retire(self._pool.forget(key, version, keep_deployment_id=keep_deployment_id))

    def statistics(self) -> PoolStatistics:
        """Counts as of now."""
        return self._pool.statistics()

    def waiting(self) -> int:
        """Callers that wait for a sandbox."""
        return len(self._waiting)

    async def close(self, grace_s: float) -> None:
        """Place nothing more; sandboxes in the making have ``grace_s``. The workers end them all."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._making:
            _, late = await asyncio.wait(self._making, timeout=grace_s)
            for task in late:
                task.cancel()

    def _begin_making(self, function: FunctionVersion, now_s: float) -> bool:
        """Make one more sandbox; False over the scaling rate."""
        ticket = self._pool.plan(function, now_s)
        if ticket is not None:
            self._waiting.making(function.deployment_id)
            self.spawn(self._make(ticket, function))
        return ticket is not None

    def _make_more(self, function: FunctionVersion) -> None:
        """A maker for callers that only queued while there was no room; it calls for the next one itself."""
        deployment_id = function.deployment_id
        while self._waiting.lacks_makers(deployment_id):
            error = _closing()
            if not self._closed:
                if self._begin_making(function, self._clock.monotonic_s()):
                    return
                error = _over_rate()
            waiter = self._waiting.pop_surplus(deployment_id)
            if waiter is not None:
                waiter.fail(error)

    async def _make(self, ticket: Ticket, function: FunctionVersion) -> None:
        deployment_id = function.deployment_id
        try:
            reference = await self._create(function)
        except BaseException as error:
            self._pool.abandon(ticket)
            self._waiting.made(deployment_id)
            self._fail(deployment_id, error)
            self._make_more(function)
            if not isinstance(error, Exception):
                raise
            return
        self._waiting.made(deployment_id)
        reservation = self._pool.adopt(ticket, function, reference, self._clock.monotonic_s())
        waiter = self._waiting.pop(deployment_id)
        if waiter is not None:
            waiter.succeed(reservation)
            self._preparing.after_use(function)
        else:
            self.release(reservation, healthy=True)

    async def create_where_room(self, function: FunctionVersion, *, provisioned: bool) -> SandboxReference:
        """A sandbox that no caller waits for, as ``Preparing`` wants it."""
        snapshots = self._snapshots(function.key, {})
        request = PlacementRequest(function.memory_mb, function.architecture)
        worker_id = None if self._closed else self._placement.choose(snapshots, request)
        if worker_id is None:
            if provisioned:
                self.retire(self._pool.make_room(snapshots, function.memory_mb))
            raise WorkerUnavailable("no worker has room")
        return await self._workers[worker_id].create(function, provisioned=provisioned)

    async def _create(self, function: FunctionVersion) -> SandboxReference:
        """Ask workers until one makes the sandbox; wait while none has room."""
        search = _Search(PlacementRequest(function.memory_mb, function.architecture))
        while True:
            worker_id = self._placement.choose(
                self._snapshots(function.key, search.refused), search.request
            ) or await self._wait_for_room(function, search)
            self._make_more(function)
            try:
                return await self._workers[worker_id].create(function)
            except WorkerUnavailable as error:
                search.refused[worker_id] = error

    async def _wait_for_room(self, function: FunctionVersion, search: "_Search") -> str:
        """The worker that has room at last. One maker of a deployment waits; other callers just queue."""
        if not self._waiting.stand_still(function.deployment_id):
            raise _NoLongerWanted
        try:
            while True:
                now_s = self._clock.monotonic_s()
                # Sandboxes that come back are passed on meanwhile: others wait now, and fewer or more.
                oldest_s = self._waiting.oldest_since_s(function.deployment_id)
                if oldest_s is None or self._waiting.has_surplus(function.deployment_id):
                    raise _NoLongerWanted
                if now_s >= oldest_s + ROOM_WAIT_S or self._closed:
                    raise _no_capacity(function, search.refused)
                snapshots = self._snapshots(function.key, search.refused)
                if now_s >= search.evict_at_s:
                    victims = self._pool.make_room(snapshots, function.memory_mb)
                    self.retire(victims)
                    search.evict_at_s = now_s + EVICTION_INTERVAL_S if victims else 0.0
                await asyncio.sleep(search.pause_s)
                search.pause_s = min(search.pause_s * 2, ROOM_POLL_MAX_S)
                search.refused.clear()
                snapshots = self._snapshots(function.key, search.refused)
                worker_id = self._placement.choose(snapshots, search.request)
                if worker_id is not None:
                    return worker_id
        finally:
            self._waiting.go_on(function.deployment_id)

    def _snapshots(
        self, key: FunctionKey, refused: Mapping[str, WorkerUnavailable]
    ) -> tuple[WorkerSnapshot, ...]:
        """Every worker as of now; one that has just refused counts as full."""
        same = self._pool.sandboxes_by_worker(key) if len(self._workers) > 1 else {}
        snapshots: list[WorkerSnapshot] = []
        for worker_id, worker in self._workers.items():
            snapshot = worker.snapshot()
            changes: dict[str, int] = {"same_function": same.get(worker_id, 0)}
            if worker_id in refused:
                changes["memory_reserved_mb"] = max(snapshot.memory_total_mb, snapshot.memory_reserved_mb)
            snapshots.append(msgspec.structs.replace(snapshot, **changes))
        return tuple(snapshots)

    def _pass_on(self, reference: SandboxReference, *, healthy: bool, now_s: float) -> bool:
        """Give a sandbox that comes back to a caller who waits for one of its deployment."""
        deployment_id = self._pool.deployment_of(reference)
        if deployment_id is None or not self._waiting.is_wanted(deployment_id):
            return False
        reservation = self._pool.hand_over(reference, healthy=healthy, now_s=now_s)
        if reservation is None:
            return False
        waiter = self._waiting.pop(deployment_id)
        if waiter is None:
            # Every waiter was cancelled in this very turn of the loop: the sandbox goes idle after all.
            released = self._pool.release(reservation.sandbox, healthy=True, now_s=now_s)
            if released.idle is not None:
                self._workers[reference.worker_id].idle(released.idle)
            return True
        waiter.succeed(reservation)
        return True

    def _fail(self, deployment_id: str, error: BaseException) -> None:
        if isinstance(error, _NoLongerWanted):
            return
        waiter = self._waiting.pop_surplus(deployment_id)
        if waiter is not None:
            waiter.fail(_closing() if isinstance(error, asyncio.CancelledError) else error)
        elif not isinstance(error, asyncio.CancelledError):
            _log.warning("a sandbox that nobody waits for could not be made", reason=str(error))

    def retire(self, references: list[SandboxReference]) -> None:
        """Let workers end sandboxes that the pool has let go."""
        for reference in references:
            self._workers[reference.worker_id].retire(reference)

    def _lost(self, reference: SandboxReference) -> None:
        self._pool.lost(reference)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Make something behind; ``close`` waits for it."""
        task = asyncio.get_running_loop().create_task(work)
        self._making.add(task)
        task.add_done_callback(self._making.discard)

    def _arm(self) -> None:
        if self._timer is None and not self._closed:
            self._timer = asyncio.get_running_loop().call_later(RECLAIM_INTERVAL_S, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self.retire(self._pool.reclaim(self._clock.monotonic_s()))
        self._preparing.check()
        if not self._pool.is_empty():
            self._arm()


def _over_rate() -> ServiceError:
    return too_many_requests("Rate Exceeded.", "FunctionInvocationRateLimitExceeded")


def _closing() -> ServiceError:
    return ServiceError("ServiceException", "The service is shutting down.")


def _no_capacity(function: FunctionVersion, refused: Mapping[str, WorkerUnavailable]) -> ServiceError:
    """500 ServiceException, which every AWS SDK retries with back-off, as when a region lacks capacity.

    Why a worker refused is the operator's business: it may name folders of the host.
    """
    if refused:
        _log.warning(
            "no worker has room", function=function.arn, reasons=[str(why) for why in refused.values()]
        )
    for why in refused.values():
        if isinstance(why, CodeNotHere) and why.outage:
            return ServiceError("ServiceException", f"The function's code cannot be read: {why.outage}.")
    return ServiceError(
        "ServiceException",
        f"No worker has room for {function.memory_mb} MB more. Running functions hold all of it; try again, "
        "or give Stoker more memory.",
    )
