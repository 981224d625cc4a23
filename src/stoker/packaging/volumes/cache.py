"""Which chunks to keep: LRU-2, bounded in bytes. Pure; time is an argument.

What was used twice, apart, outlives what was used once: one big image read from end to end pushes out nothing
that others come back to ("The LRU-K Page Replacement Algorithm", O'Neil, 1993).
"""

from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

TOGETHER_S = 2.0
"""Uses closer than this are one: a program that reads a chunk in pieces."""

_NEVER = float("-inf")


class _Entry(Generic[V]):
    __slots__ = ("before", "last", "size_bytes", "value")

    def __init__(self, value: V, size_bytes: int, now_s: float) -> None:
        self.value = value
        self.size_bytes = size_bytes
        self.last = now_s
        self.before = _NEVER


class LruTwo(Generic[K, V]):
    """Values by key, of ``limit_bytes`` together."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._entries: dict[K, _Entry[V]] = {}
        self.size_bytes = 0
        self.evicted = 0

    def __contains__(self, key: K) -> bool:
        return key in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K, now_s: float) -> V | None:
        """The value, used now; None when it is not here."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if now_s - entry.last >= TOGETHER_S:
            entry.before = entry.last
        entry.last = now_s
        return entry.value

    def put(self, key: K, value: V, size_bytes: int, now_s: float) -> list[tuple[K, V]]:
        """Keep a value, used now; returns what had to go for it, the value itself when it is too big."""
        self.remove(key)
        if size_bytes > self._limit_bytes:
            return [(key, value)]
        gone = list(self._make_room(size_bytes))
        self._entries[key] = _Entry(value, size_bytes, now_s)
        self.size_bytes += size_bytes
        return gone

    def remove(self, key: K) -> V | None:
        """Forget a value; None when it is not here."""
        entry = self._entries.pop(key, None)
        if entry is None:
            return None
        self.size_bytes -= entry.size_bytes
        return entry.value

    def _make_room(self, size_bytes: int) -> Iterator[tuple[K, V]]:
        while self.size_bytes + size_bytes > self._limit_bytes:
            entries = self._entries
            key = min(entries, key=lambda each: (entries[each].before, entries[each].last))
            value = entries[key].value
            self.remove(key)
            self.evicted += 1
            yield key, value
