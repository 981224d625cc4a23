"""Whether the host itself still has memory, whatever its sandboxes were promised. Knows no sandbox."""

from collections.abc import Callable

from stoker.core.clock import Clock

READING_MAX_AGE_S = 0.1
"""A burst makes a few dozen sandboxes meanwhile, of a few MB each at first: far less than any reserve."""


class Headroom:
    """A reading of the host's available memory, at most ``READING_MAX_AGE_S`` old."""

    __slots__ = ("_available_mb", "_clock", "_read_at_s", "_read_available_mb", "_reserve_mb")

    def __init__(self, clock: Clock, reserve_mb: int, read_available_mb: Callable[[], int]) -> None:
        self._clock = clock
        self._reserve_mb = reserve_mb
        self._read_available_mb = read_available_mb
        self._available_mb = 0
        self._read_at_s: float | None = None

    def missing_mb(self) -> int:
        """What is missing of the reserve; 0 while the host has it, and always without a reserve."""
        if self._reserve_mb <= 0:
            return 0
        now_s = self._clock.monotonic_s()
        if self._read_at_s is None or now_s - self._read_at_s >= READING_MAX_AGE_S:
            self._available_mb = self._read_available_mb()
            self._read_at_s = now_s
        return max(0, self._reserve_mb - self._available_mb)
