"""A pace that many readers share: so many turns a second, in the order in which they were asked for."""

import asyncio

from stoker.core.clock import Clock


class ReadPace:
    """A token bucket. However many wait, the load on the sources and on this process stays the same."""

    def __init__(self, clock: Clock, *, per_s: float, burst: int) -> None:
        self._clock = clock
        self._between_s = 1.0 / per_s
        self._ahead_s = burst / per_s
        self._next_s = float("-inf")

    async def turn(self) -> None:
        """Wait for a turn. Cancelled, the turn is lost."""
        now_s = self._clock.monotonic_s()
        mine_s = max(self._next_s, now_s - self._ahead_s)
        self._next_s = mine_s + self._between_s
        if mine_s > now_s:
            await asyncio.sleep(mine_s - now_s)
