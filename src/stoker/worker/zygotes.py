"""Zygotes: one runtime process a kind that has started once and forks itself into pooled sandboxes.

It holds runtime code only. Whoever cannot have one launches instead, so nothing here is ever needed.
"""

import asyncio
import os
import secrets
from contextlib import suppress

from stoker.core.clock import Clock
from stoker.core.errors import SandboxDied, SandboxError
from stoker.runtimes.catalog import RuntimePlan
from stoker.runtimes.environment import zygote_environment
from stoker.sandbox.driver import Launch, MountPoint, Sandbox, SandboxDriver, SandboxLimits, SandboxSpec
from stoker.worker.statistics import WorkerStatistics
from stoker.worker.tasks import Background

FORKS_MAX = 64
"""Siblings of one zygote: they share an address layout, and what the kernel counts for their owner."""

AGE_MAX_S = 4 * 3600.0
IDLE_MAX_S = 900.0
"""One that nobody wanted for this long goes."""

RETRY_FIRST_S = 1.0
RETRY_LONGEST_S = 300.0

ZYGOTE_MEMORY_MB = 256
LAST_WORDS_BYTES_MAX = 16_384


class Zygote:
    """One of them. It ends when it is retired and no sandbox is left that it forked into."""

    def __init__(self, plan: RuntimePlan, sandbox: Sandbox, now_s: float) -> None:
        self.plan = plan
        self.sandbox = sandbox
        self.made_at_s = now_s
        self.used_at_s = now_s
        self.forks = 0
        self.children = 0
        self.retired = False

    @property
    def name(self) -> str:
        return self.sandbox.sandbox_id

    def serves(self, plan: RuntimePlan, now_s: float) -> bool:
        """Whether it may fork once more, for this very interpreter and bootstrap."""
        return self.plan == plan and self.forks < FORKS_MAX and now_s - self.made_at_s < AGE_MAX_S


class Zygotes:
    """Those of one worker, by kind. Starts, replaces and ends them; waits longer after each failure."""

    def __init__(
        self,
        *,
        cpu_policy: str,
        driver: SandboxDriver,
        clock: Clock,
        statistics: WorkerStatistics,
        background: Background,
    ) -> None:
        self._cpu_policy = cpu_policy
        self._driver = driver
        self._clock = clock
        self._statistics = statistics
        self._background = background
        self._current: dict[str, Zygote] = {}
        self._alive: set[Zygote] = set()
        self._starting = asyncio.Lock()
        self._not_before_s: dict[str, float] = {}
        self._wait_s: dict[str, float] = {}
        self._closed = False
        self.troubles: dict[str, str] = {}
        """By kind: why its last zygote failed, until one forks again."""

    async def take(self, plan: RuntimePlan) -> Zygote | None:
        """A zygote that will fork into a sandbox to be made now; ``gave`` back when that is gone.

        None where the runtime has none, or a failure is too recent.
        """
        if not plan.forks:
            return None
        async with self._starting:
            zygote = self._usable(plan) or await self._start(plan)
        if zygote is not None:
            zygote.forks += 1
            zygote.children += 1
            zygote.used_at_s = self._clock.monotonic_s()
        return zygote

    def _usable(self, plan: RuntimePlan) -> Zygote | None:
        zygote = self._current.get(plan.runtime)
        if zygote is None:
            return None
        if zygote.serves(plan, self._clock.monotonic_s()):
            return zygote
        self._retire(zygote)
        return None

    async def _start(self, plan: RuntimePlan) -> Zygote | None:
        now_s = self._clock.monotonic_s()
        if self._closed or now_s < self._not_before_s.get(plan.runtime, now_s):
            return None
        try:
            zygote = await self._started(plan)
        except SandboxError as error:
            self._failed(plan.runtime, str(error))
            return None
        self._alive.add(zygote)
        if self._closed:
            self._retire(zygote)
            return None
        self._current[plan.runtime] = zygote
        self._count()
        self._background.spawn(self._watch(zygote))
        return zygote

    async def _started(self, plan: RuntimePlan) -> Zygote:
        name = f"zygote-{secrets.token_hex(8)}"
        limits = SandboxLimits(ZYGOTE_MEMORY_MB, 0.0, self._cpu_policy)
        mounts = {MountPoint(at): path for at, path in plan.mounts.items()}
        sandbox = await self._driver.create(SandboxSpec(name, limits, mounts, is_zygote=True))
        try:
            await sandbox.launch(Launch(plan.argv, zygote_environment(plan.environment), "/"))
        except BaseException:
            await sandbox.destroy()
            raise
        return Zygote(plan, sandbox, self._clock.monotonic_s())

    async def _watch(self, zygote: Zygote) -> None:
        """Wait for its end, whoever caused it, and clean up."""
        with suppress(SandboxDied):
            await zygote.sandbox.wait()
        if not zygote.retired:
            self._failed(zygote.plan.runtime, _last_words(zygote.sandbox) or "it ended")
            self._drop(zygote)
        await zygote.sandbox.destroy()
        self._alive.discard(zygote)
        self._count()

    def succeeded(self, zygote: Zygote) -> None:
        """A child of it runs."""
        self._statistics.zygote_forks += 1
        self._wait_s.pop(zygote.plan.runtime, None)
        self.troubles.pop(zygote.plan.runtime, None)

    def gave_up(self, zygote: Zygote) -> None:
        """It did not fork, or its child did not come to life: another one is to be tried, later."""
        if not zygote.retired:
            self._failed(zygote.plan.runtime, _last_words(zygote.sandbox) or "its child did not come to life")
            self._retire(zygote)

    def child_gone(self, zygote: Zygote) -> None:
        """A sandbox that ``take`` was called for is no more."""
        zygote.children -= 1
        if zygote.retired and zygote.children <= 0:
            zygote.sandbox.kill()

    def sweep(self) -> bool:
        """Retire those that nobody wants. True while there are any to look at again."""
        now_s = self._clock.monotonic_s()
        for zygote in tuple(self._current.values()):
            if now_s - zygote.used_at_s >= IDLE_MAX_S:
                self._retire(zygote)
        return bool(self._current)

    def memory_bytes(self) -> int:
        """What they use together."""
        return sum(zygote.sandbox.memory_current_bytes() for zygote in self._alive)

    def close(self) -> None:
        """End all; the worker's background work is when they are gone."""
        self._closed = True
        for zygote in tuple(self._alive):
            zygote.children = 0
            self._retire(zygote)

    def _failed(self, kind: str, why: str) -> None:
        self.troubles[kind] = why
        self._statistics.zygote_failures += 1
        wait_s = self._wait_s.get(kind, RETRY_FIRST_S)
        self._wait_s[kind] = min(wait_s * 2, RETRY_LONGEST_S)
        self._not_before_s[kind] = self._clock.monotonic_s() + wait_s

    def _retire(self, zygote: Zygote) -> None:
        zygote.retired = True
        self._drop(zygote)
        if zygote.children <= 0:
            zygote.sandbox.kill()

    def _drop(self, zygote: Zygote) -> None:
        if self._current.get(zygote.plan.runtime) is zygote:
            del self._current[zygote.plan.runtime]

    def _count(self) -> None:
        self._statistics.zygotes = len(self._alive)


def _last_words(sandbox: Sandbox) -> str:
    """The last line it printed: what stopped it."""
    try:
        printed = os.read(sandbox.output, LAST_WORDS_BYTES_MAX)
    except OSError:
        return ""
    return printed.decode("utf-8", "replace").strip().rpartition("\n")[2]
