"""Bounds how fast background work goes."""

import asyncio
from collections.abc import Awaitable, Callable

from stoker.core.clock import Clock


class Pace:
    """At most ``per_s`` units a second on average, in the order in which they were asked for."""

    def __init__(
        self, per_s: float, clock: Clock, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self._per_s = per_s
        self._clock = clock
        self._sleep = sleep
        self._free_at_s = clock.monotonic_s()

    async def spend(self, units: float) -> None:
        """Wait until what was spent before is paid for; unused time is not saved up."""
        now_s = self._clock.monotonic_s()
        wait_s = self._free_at_s - now_s
        self._free_at_s = max(now_s, self._free_at_s) + units / self._per_s
        if wait_s > 0:
            await self._sleep(wait_s)
