"""Pre-warmed sandboxes: complete, of no function, waiting. Made behind the invocations, one at a time.

How many there should be is ``pooling``'s decision. A pool never knows functions and never sees their code.
"""

import asyncio
import secrets
from collections.abc import Callable, Mapping
from functools import partial

import msgspec

from stoker.core.clock import Clock
from stoker.core.errors import SandboxError
from stoker.runtimes.catalog import RuntimePlan
from stoker.runtimes.environment import pooled_environment
from stoker.sandbox.driver import Exit, Launch, MountPoint, SandboxDriver, SandboxLimits, SandboxSpec
from stoker.services.worker import SandboxStatus
from stoker.worker.environment import Environment, ServeServiceApi
from stoker.worker.pooling import PoolPlan, Step
from stoker.worker.states import SandboxState, SandboxStates
from stoker.worker.statistics import WorkerStatistics
from stoker.worker.tasks import Background
from stoker.worker.zygotes import Zygote, Zygotes

BARE = "provided"
"""The kind without a process: for ``provided`` runtimes, and for whatever must start its own."""

POOLED_MEMORY_MB = 256
"""What a sandbox may use while it is of no function; assignment sets the function's limit."""

READY_WITHIN_S = 10.0
"""A pooled runtime that does not wait for its assignment by then is given up."""

QUIET_S = 0.02
"""The worker is looked at this often until nobody starts and the event loop is on time ..."""

PATIENCE_S = 1.0
"""... but no longer than this: a worker that is always busy needs its pool most."""

LATE_S = 0.005
"""An event loop this much behind has better things to do."""

SETTLED_S = 5.0
"""How often a pool that is as it should be is looked at."""

AGE_MAX_S = 4 * 3600.0
"""Older ones are replaced: interpreters and certificates of the host move on."""

RETRY_FIRST_S = 1.0
RETRY_LONGEST_S = 60.0

_MIB = 1024 * 1024
_GUESS_MB: Mapping[str, float] = {"python": 10.0, "nodejs": 45.0}
_GUESS_OTHERS_MB = 2.0


class PoolSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What every sandbox of the pools has in common, and how many may be in the making."""

    worker_id: str
    cpu_policy: str
    egress: bool
    makers: int = 1


class Pooled:
    """One sandbox of a pool: the owner of its environment until a function takes it."""

    def __init__(self, kind: str, now_s: float, monotonic_s: float, lost: Callable[["Pooled"], None]) -> None:
        self.kind = kind
        self.made_at_s = now_s
        self.made_at_monotonic_s = monotonic_s
        self.states = SandboxStates()
        self.ready = asyncio.Event()
        self.environment: Environment | None = None
        self._lost = lost

    def runtime_waits(self) -> None:
        """It asks what it is for."""
        self.ready.set()

    def runtime_ended(self, end: Exit) -> None:
        self.ready.set()
        self._lost(self)

    # Nothing of a function is served yet, so nothing of one can be heard; the Runtime API refuses it.

    def runtime_ready(self) -> None: ...

    def runtime_answered(self, request_id: str, payload: bytes) -> None: ...

    def runtime_failed(self, request_id: str, error_type: str, payload: bytes) -> None: ...

    def runtime_init_failed(self, error_type: str, payload: bytes) -> None: ...


class Pool:
    """The pools of one worker. ``take`` is a plain function; everything else happens behind it."""

    def __init__(
        self,
        settings: PoolSettings,
        plan: PoolPlan,
        *,
        driver: SandboxDriver,
        clock: Clock,
        statistics: WorkerStatistics,
        background: Background,
        serve_service_api: ServeServiceApi | None,
        room: Callable[[], int],
        busy: Callable[[], bool],
        zygotes: Zygotes | None = None,
    ) -> None:
        self._settings = settings
        self._plan = plan
        self._driver = driver
        self._clock = clock
        self._statistics = statistics
        self._background = background
        self._serve_service_api = serve_service_api
        self._zygotes = zygotes
        self._room = room
        self._busy = busy
        self._loop = asyncio.get_running_loop()
        self._ready: dict[str, list[Pooled]] = {}
        self._making: list[Pooled] = []
        self._launches: dict[str, RuntimePlan] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._due_s = 0.0
        self._waiting_since_s: float | None = None
        self._retry_s = RETRY_FIRST_S
        self._closed = False

    # --- taking

    def expect(self, runtime: RuntimePlan | None) -> None:
        """Keep some of this runtime (None: of the bare kind) ready from now on."""
        kind = BARE if runtime is None else runtime.runtime
        if runtime is not None:
            self._launches[kind] = runtime
        self._plan.expect(kind, _guess_mb(kind), self._clock.monotonic_s())
        self._look_in(QUIET_S)

    def take(self, runtime: RuntimePlan | None) -> Environment | None:
        """A ready environment: with this runtime waiting in it, else a bare one, else None.

        It is the caller's from now on, to be owned, or destroyed. None for ``runtime``: a bare one.
        """
        kind = BARE if runtime is None else runtime.runtime
        self.expect(runtime)
        self._plan.took(kind, self._clock.monotonic_s())
        environment = self._pop(kind)
        if environment is not None:
            self._statistics.pool_hits += 1
            return environment
        self._statistics.pool_misses += 1
        return self._pop(BARE) if kind != BARE else None

    def _pop(self, kind: str) -> Environment | None:
        ready = self._ready.get(kind)
        if not ready:
            return None
        pooled = ready.pop(0)
        pooled.states.move(SandboxState.ASSIGNED)
        self._count()
        return pooled.environment

    # --- making and ending, behind

    def _look_in(self, wait_s: float) -> None:
        """See to the pools in ``wait_s``, or earlier if that was asked for already."""
        if self._closed:
            return
        due_s = self._loop.time() + wait_s
        if self._timer is not None:
            if self._due_s <= due_s:
                return
            self._timer.cancel()
        self._due_s = due_s
        self._timer = self._loop.call_later(wait_s, self._look)

    def _look(self) -> None:
        self._timer = None
        now_s = self._clock.monotonic_s()
        self._end_old(now_s)
        zygotes_left = self._zygotes is not None and self._zygotes.sweep()
        self._plan.forget_unused(now_s)
        step = self._plan.next_step(now_s, self._stock(), self._room())
        if step is None:
            self._waiting_since_s = None
            if self._ready or zygotes_left:
                self._look_in(SETTLED_S)
        elif not step.grow:
            self._end_one(step.kind)
            self._look_in(QUIET_S)
        elif len(self._making) < self._settings.makers and self._is_time(now_s):
            self._waiting_since_s = None
            self._background.spawn(self._make(step))
        else:
            self._look_in(QUIET_S)

    def _is_time(self, now_s: float) -> bool:
        """Whether nobody else needs the CPU now, or has needed it for too long."""
        if self._waiting_since_s is None:
            self._waiting_since_s = now_s
        late = self._loop.time() - self._due_s > LATE_S
        return (not late and not self._busy()) or now_s - self._waiting_since_s >= PATIENCE_S

    def _stock(self) -> dict[str, int]:
        stock = {kind: len(ready) for kind, ready in self._ready.items() if ready}
        for pooled in self._making:
            stock[pooled.kind] = stock.get(pooled.kind, 0) + 1
        return stock

    async def _make(self, step: Step) -> None:
        began_s = self._clock.monotonic_s()
        pooled = Pooled(step.kind, self._clock.now_s(), began_s, self._lost)
        self._making.append(pooled)
        try:
            pooled.environment = await self._made(pooled)
        except SandboxError:
            self._statistics.pool_failures += 1
            self._look_in(self._retry_s)
            self._retry_s = min(self._retry_s * 2, RETRY_LONGEST_S)
            return
        finally:
            self._making.remove(pooled)
        if self._closed:
            await pooled.environment.destroy()
            return
        self._retry_s = RETRY_FIRST_S
        self._ready.setdefault(step.kind, []).append(pooled)
        used_bytes = pooled.environment.sandbox.memory_current_bytes()
        self._plan.weigh(step.kind, used_bytes / _MIB if used_bytes else _guess_mb(step.kind))
        self._count()
        # Half of the time at most is spent on pools, and only half of one CPU.
        self._look_in(max(QUIET_S, self._clock.monotonic_s() - began_s))

    async def _made(self, pooled: Pooled) -> Environment:
        """A ready environment of this kind.

        Raises:
            SandboxError: nothing is left of the attempt.
        """
        runtime = self._launches.get(pooled.kind)
        zygote = await self._zygotes.take(runtime) if runtime is not None and self._zygotes else None
        environment = await self._empty(pooled, runtime, zygote)
        try:
            await self._start(environment, pooled, runtime, forked=zygote is not None)
        except BaseException as error:
            if self._zygotes and zygote and isinstance(error, SandboxError):
                self._zygotes.gave_up(zygote)
            await environment.destroy()
            raise
        if self._zygotes and zygote:
            self._zygotes.succeeded(zygote)
        return environment

    async def _start(
        self, environment: Environment, pooled: Pooled, runtime: RuntimePlan | None, *, forked: bool
    ) -> None:
        """Have the runtime wait for its assignment, where there is one.

        Raises:
            SandboxError: it does not.
        """
        try:
            async with asyncio.timeout(READY_WITHIN_S):
                await environment.serve(self._serve_service_api)
                environment.own(pooled, None)
                if runtime is None:
                    environment.watch()
                elif forked:
                    await environment.forked()
                    await pooled.ready.wait()
                else:
                    await environment.launch(
                        Launch(runtime.argv, pooled_environment(runtime.environment), "/")
                    )
                    await pooled.ready.wait()
                environment.own(pooled, None)
        except TimeoutError as error:
            raise SandboxError(f"{pooled.kind} was not ready within {READY_WITHIN_S} s") from error

    async def _empty(self, pooled: Pooled, runtime: RuntimePlan | None, zygote: Zygote | None) -> Environment:
        settings = self._settings
        mounts = {} if runtime is None else {MountPoint(at): path for at, path in runtime.mounts.items()}
        limits = SandboxLimits(POOLED_MEMORY_MB, 0.0, settings.cpu_policy)
        name = f"pool-{secrets.token_hex(8)}"
        gone = partial(self._zygotes.child_gone, zygote) if self._zygotes and zygote else None
        spec = SandboxSpec(name, limits, mounts, settings.egress, zygote=zygote.name if zygote else "")
        try:
            sandbox = await self._driver.create(spec)
        except BaseException:
            if gone is not None:
                gone()
            raise
        waits = None if runtime is None else pooled.runtime_waits
        return Environment(sandbox, self._clock, waits, gone)

    def _lost(self, pooled: Pooled) -> None:
        """It died; one that is still in the making is found dead there."""
        ready = self._ready.get(pooled.kind, [])
        if pooled in ready:
            ready.remove(pooled)
            self._statistics.pool_lost += 1
            self._end(pooled)
            # Not at once: whatever kills them may go on for a while.
            self._look_in(RETRY_FIRST_S)

    def _end_old(self, now_s: float) -> None:
        for ready in self._ready.values():
            while ready and now_s - ready[0].made_at_monotonic_s >= AGE_MAX_S:
                self._end(ready.pop(0))

    def _end_one(self, kind: str) -> None:
        ready = self._ready.get(kind)
        if ready:
            self._end(ready.pop(0))

    def _end(self, pooled: Pooled) -> None:
        pooled.states.move(SandboxState.DRAINING)
        self._count()
        if pooled.environment is not None:
            pooled.environment.abandon()
            self._background.spawn(pooled.environment.destroy())

    def _count(self) -> None:
        self._ready = {kind: ready for kind, ready in self._ready.items() if ready}
        self._statistics.pool_size = sum(map(len, self._ready.values()))
        self._statistics.pool_memory_mb = round(self._plan.memory_mb(self._stock()))

    # --- telling and closing

    def troubles(self) -> tuple[str, ...]:
        """What does not work as it should, in words."""
        found = self._zygotes.troubles if self._zygotes is not None else {}
        return tuple(f"{kind} is launched, not forked from a zygote: {why}" for kind, why in found.items())

    def statuses(self) -> list[SandboxStatus]:
        """For people: the runtime stands where a function's name would."""
        return [self._status(pooled) for ready in self._ready.values() for pooled in ready]

    def _status(self, pooled: Pooled) -> SandboxStatus:
        environment = pooled.environment
        return SandboxStatus(
            sandbox_id=environment.sandbox.sandbox_id if environment else "",
            worker_id=self._settings.worker_id,
            state=pooled.states.state.value,
            function_arn=pooled.kind,
            created_at_s=pooled.made_at_s,
            invocations=0,
            memory_mb=POOLED_MEMORY_MB,
            memory_used_bytes=environment.sandbox.memory_current_bytes() if environment else 0,
            last_used_at_s=pooled.made_at_s,
            layers=environment.layers() if environment else {},
        )

    def close(self) -> None:
        """Make none any more and end all; the worker's background work is when they are gone."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for kind in tuple(self._ready):
            for pooled in self._ready.pop(kind):
                self._end(pooled)
        if self._zygotes is not None:
            self._zygotes.close()
        # Whoever is in the making is ended when it is made; a runtime that is waited for need not answer.
        for pooled in self._making:
            pooled.ready.set()


def _guess_mb(kind: str) -> float:
    return next((guess for family, guess in _GUESS_MB.items() if kind.startswith(family)), _GUESS_OTHERS_MB)
