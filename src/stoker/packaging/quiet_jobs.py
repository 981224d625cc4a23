"""Work that nobody waits for, one piece at a time: at once when a cold start asked, else once it is quiet.

Knows nothing of what the work is. Belongs to one event loop.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Final, Generic, TypeVar

import msgspec

from stoker.core.errors import StokerError

JOBS_WAITING_MAX: Final = 256
"""What comes beyond is left for the next cold start."""

QUIET_S: Final = 0.25
"""Work waits until none has come for this long: deployments by the hundred are not slowed by it."""

K = TypeVar("K", bound=Hashable)


class JobStatistics(msgspec.Struct, frozen=True):
    """Pieces of work: waiting or under way now, the others since the start."""

    waiting: int
    done: int
    failed: int
    """The host could not: it is not tried again before the next start."""
    dropped: int
    """They found too many others waiting."""


class QuietJobs(Generic[K]):
    """``run`` does the work of a key; each is done once, also when it fails."""

    def __init__(self, run: Callable[[K], Awaitable[None]]) -> None:
        self._run = run
        self._now: dict[K, None] = {}
        self._later: dict[K, None] = {}
        self._settled: set[K] = set()
        """Bounded by what is stored: ``forget`` removes."""
        self._running: tuple[K, asyncio.Task[None]] | None = None
        self._quiet: asyncio.TimerHandle | None = None
        self._closed = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._done = self._failed = self._dropped = 0

    def statistics(self) -> JobStatistics:
        waiting = len(self._now) + len(self._later) + (self._running is not None)
        return JobStatistics(waiting, self._done, self._failed, self._dropped)

    def now(self, key: K) -> None:
        """Before all that waits for quiet; nothing happens when it was done."""
        self._later.pop(key, None)
        if self._is_taken_up(key) or key in self._now:
            return
        if self._admit(self._now, key):
            self._go_on()

    def when_quiet(self, key: K) -> None:
        """The same, once nothing more comes."""
        if self._is_taken_up(key) or key in self._now or not self._admit(self._later, key):
            return
        if self._quiet is not None:
            self._quiet.cancel()
        self._quiet = asyncio.get_running_loop().call_later(QUIET_S, self._is_quiet)

    def again(self, key: K) -> None:
        """It was done and has to be done once more."""
        self._settled.discard(key)

    def forget(self, is_meant: Callable[[K], bool]) -> None:
        """End these, and remember nothing of them."""
        self._settled = {key for key in self._settled if not is_meant(key)}
        for waiting in (self._now, self._later):
            for key in [key for key in waiting if is_meant(key)]:
                del waiting[key]
        if self._running is not None and is_meant(self._running[0]):
            self._running[1].cancel()

    async def idle(self) -> None:
        """Wait until nothing is under way or waits."""
        await self._idle.wait()

    async def close(self) -> None:
        """End what is under way; what has not begun is left."""
        self._closed = True
        self._idle.set()
        self.forget(lambda _: True)
        if self._quiet is not None:
            self._quiet.cancel()
        if self._running is not None:
            await asyncio.wait([self._running[1]])

    def _is_taken_up(self, key: K) -> bool:
        return self._closed or key in self._settled or (self._running is not None and key == self._running[0])

    def _admit(self, waiting: dict[K, None], key: K) -> bool:
        if len(waiting) >= JOBS_WAITING_MAX and key not in waiting:
            self._dropped += 1
            return False
        waiting[key] = None
        self._idle.clear()
        return True

    def _is_quiet(self) -> None:
        self._quiet = None
        self._go_on()

    def _go_on(self) -> None:
        if self._running is not None or self._closed:
            return
        waiting = self._now or (self._later if self._quiet is None else {})
        if waiting:
            key = next(iter(waiting))
            del waiting[key]
            task = asyncio.create_task(self._work(key))
            self._running = key, task
            task.add_done_callback(self._ended)
        elif not self._later:
            self._idle.set()

    async def _work(self, key: K) -> None:
        """Failures are counted: everything works without, only slower."""
        try:
            await self._run(key)
        except (StokerError, OSError, ValueError):
            self._failed += 1
        else:
            self._done += 1
        self._settled.add(key)

    def _ended(self, _: asyncio.Task[None]) -> None:
        self._running = None
        self._go_on()
