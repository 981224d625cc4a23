"""How many pre-warmed sandboxes of each kind there should be: decisions only, from what was taken and when.

Pure: time is an argument, and nothing here knows what a sandbox is.
"""

import math
from collections.abc import Mapping

import msgspec

RECENT_S = 5.0
"""Takes count as concurrent demand for about this long ..."""

PEAK_HALF_LIFE_S = 60.0
"""... and the largest demand seen is believed in half after this long."""

KEEP_S = 900.0
"""A kind that nobody took for this long is no longer kept."""

KINDS_MAX = 64
"""Kinds remembered at one time; the one unused for longest goes first."""


class PoolLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of all pools together and of each."""

    memory_mb: int
    floor: int = 2
    """Ready sandboxes of a kind that was used recently, whatever the demand."""
    ceiling: int = 64


class Step(msgspec.Struct, frozen=True):
    """What to do next: make one sandbox of a kind, or end one."""

    kind: str
    grow: bool


class _Kind:
    __slots__ = ("each_mb", "peak", "peak_at_s", "recent", "used_at_s")

    def __init__(self, each_mb: float, now_s: float) -> None:
        self.each_mb = each_mb
        self.recent = 0.0
        self.peak = 0.0
        self.peak_at_s = now_s
        self.used_at_s = now_s

    def recent_at(self, now_s: float) -> float:
        return self.recent * math.exp((self.used_at_s - now_s) / RECENT_S)

    def peak_at(self, now_s: float) -> float:
        return self.peak * math.pow(0.5, (now_s - self.peak_at_s) / PEAK_HALF_LIFE_S)


class PoolPlan:
    """Demand by kind, and what follows from it. ``stock`` everywhere is what is ready or in the making."""

    def __init__(self, limits: PoolLimits) -> None:
        self._limits = limits
        self._kinds: dict[str, _Kind] = {}

    def expect(self, kind: str, each_mb: float, now_s: float) -> None:
        """A kind may soon be wanted: keep the floor of it. ``each_mb`` is a guess until ``weigh``."""
        known = self._kinds.get(kind)
        if known is None:
            if len(self._kinds) >= KINDS_MAX:
                del self._kinds[min(self._kinds, key=lambda name: self._kinds[name].used_at_s)]
            self._kinds[kind] = _Kind(each_mb, now_s)
        elif known.recent == 0.0:
            known.used_at_s = now_s

    def took(self, kind: str, now_s: float) -> None:
        """Somebody wanted one of a known kind, whether it was there or not."""
        known = self._kinds[kind]
        known.recent = known.recent_at(now_s) + 1.0
        known.used_at_s = now_s
        if known.recent > known.peak_at(now_s):
            known.peak, known.peak_at_s = known.recent, now_s

    def weigh(self, kind: str, each_mb: float) -> None:
        """What one ready sandbox of a kind was seen to use."""
        if kind in self._kinds:
            self._kinds[kind].each_mb = max(each_mb, 0.25)

    def memory_mb(self, stock: Mapping[str, int]) -> float:
        """What a stock uses, by what was weighed."""
        return sum(count * self._kinds[kind].each_mb for kind, count in stock.items() if kind in self._kinds)

    def targets(self, now_s: float, room: int) -> dict[str, int]:
        """How many of each kind there should be, within the budget and ``room`` sandboxes.

        Shared out one by one in a fixed order: a flood of one kind leaves the others theirs, and two kinds in
        turn do not take the last one from each other.
        """
        limits = self._limits
        names = list(self._kinds)
        wanted = {name: self._wanted(self._kinds[name], now_s) for name in names}
        given = dict.fromkeys(names, 0)
        left_mb = float(limits.memory_mb)
        open_names = [name for name in names if wanted[name]]
        while open_names and room > 0:
            for name in tuple(open_names):
                each_mb = self._kinds[name].each_mb
                if each_mb > left_mb or given[name] >= wanted[name] or room <= 0:
                    open_names.remove(name)
                    continue
                given[name] += 1
                left_mb -= each_mb
                room -= 1
        return given

    def _wanted(self, kind: _Kind, now_s: float) -> int:
        if now_s - kind.used_at_s >= KEEP_S:
            return 0
        demand = math.ceil(kind.peak_at(now_s) - 0.01)
        return min(self._limits.ceiling, max(self._limits.floor, demand))

    def next_step(self, now_s: float, stock: Mapping[str, int], room: int) -> Step | None:
        """The one thing to do now; None when all is as it should be."""
        targets = self.targets(now_s, room)
        over = [kind for kind, count in stock.items() if count > targets.get(kind, 0)]
        if over:
            return Step(max(over, key=lambda kind: stock[kind] - targets.get(kind, 0)), grow=False)
        short = [kind for kind, target in targets.items() if stock.get(kind, 0) < target]
        if not short:
            return None
        # The emptiest first; of equally empty ones the kind used last.
        return Step(
            min(short, key=lambda kind: (stock.get(kind, 0) / targets[kind], -self._kinds[kind].used_at_s)),
            grow=True,
        )

    def forget_unused(self, now_s: float) -> None:
        """Drop kinds that are no longer kept."""
        for name in [name for name, kind in self._kinds.items() if now_s - kind.used_at_s >= KEEP_S]:
            del self._kinds[name]
