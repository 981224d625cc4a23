"""A bounded cache of what was made from sealed code, shared by all who use the same; the rest goes by age.

What is in use is never given up, also when it was forgotten: it goes when the last user has left it. Knows
nothing of what it holds. Belongs to one event loop.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Generic, Protocol, TypeVar

import msgspec

UNUSED_MAX: Final = 512
"""Entries that nobody uses, however small: each may hold a mount and a descriptor."""


class Held(Protocol):
    """Something that takes room on the disk until it is discarded."""

    @property
    def size_bytes(self) -> int: ...

    async def discard(self) -> None:
        """Give up everything it is made of; nobody uses it and nobody will."""
        ...


H = TypeVar("H", bound=Held)


class CacheStatistics(msgspec.Struct, frozen=True):
    """Sizes now, counts since the start."""

    size_bytes: int
    entries: int
    hits: int
    misses: int
    evicted: int


def together(one: CacheStatistics, other: CacheStatistics) -> CacheStatistics:
    """Of two caches."""
    return CacheStatistics(
        one.size_bytes + other.size_bytes,
        one.entries + other.entries,
        one.hits + other.hits,
        one.misses + other.misses,
        one.evicted + other.evicted,
    )


class Entry(Generic[H]):
    """Something held, as its users have it; ``HeldCache.leave`` takes it back."""

    def __init__(self, key: str, held: H) -> None:
        self.key = key
        self.held = held
        self.users = 0
        self.is_forgotten = False


class _Making(Generic[H]):
    """Under way, and how many wait for it: they are its users once it is made."""

    def __init__(self) -> None:
        self.task: asyncio.Task[Entry[H]] | None = None
        self.entry: Entry[H] | None = None
        self.waiting = 0
        self.is_forgotten = False


class HeldCache(Generic[H]):
    """``limit_bytes`` bounds what is held together; above it nothing stays that nobody uses."""

    def __init__(self, limit_bytes: int, *, unused_max: int = UNUSED_MAX) -> None:
        self._limit_bytes = limit_bytes
        self._unused_max = unused_max
        self._entries: dict[str, Entry[H]] = {}
        """In the order of their last use."""
        self._making: dict[str, _Making[H]] = {}
        self._discarding: set[asyncio.Task[None]] = set()
        self._unused = 0
        """Of the entries, those that nobody uses: counted, since thousands are looked through otherwise."""
        self._size_bytes = self._hits = self._misses = self._evicted = 0

    def statistics(self) -> CacheStatistics:
        return CacheStatistics(self._size_bytes, len(self._entries), self._hits, self._misses, self._evicted)

    async def enter(self, key: str, make: Callable[[], Awaitable[H]]) -> Entry[H]:
        """What is held under ``key``, made once for all who ask; used until it is left.

        Raises:
            whatever ``make`` raises, to all who waited for it; nothing has to be left.
        """
        entry = self.enter_nowait(key)
        if entry is not None:
            self._hits += 1
            return entry
        making = self._making.get(key)
        if making is None:
            self._misses += 1
            making = self._making[key] = _Making()
            making.task = asyncio.create_task(self._make(key, make, making))
            making.task.add_done_callback(_seen)
        assert making.task is not None
        making.waiting += 1
        try:
            return await asyncio.shield(making.task)
        except BaseException:
            making.waiting -= 1
            if making.entry is not None:
                self.leave(making.entry)
            raise

    def enter_nowait(self, key: str) -> Entry[H] | None:
        """The same if it is there, without making it."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._unused -= not entry.users
            entry.users += 1
            self._entries[key] = entry
        return entry

    def leave(self, entry: Entry[H]) -> None:
        """One user less."""
        entry.users -= 1
        if entry.users:
            return
        if entry.is_forgotten:
            self._discard(entry)
        else:
            self._unused += 1
            self._make_room()

    def offer(self, key: str, held: H) -> None:
        """Hold what was made elsewhere, unless the same is held already."""
        if key in self._entries or key in self._making:
            self._watch(held.discard())
        else:
            entry = Entry(key, held)
            self._size_bytes += held.size_bytes
            self._keep(entry)
            self._make_room()

    def has(self, key: str) -> bool:
        return key in self._entries

    def forget(self, is_meant: Callable[[str], bool]) -> None:
        """Nobody finds these again; what is used goes when it is left."""
        for key in [key for key in self._entries if is_meant(key)]:
            self._give_up(self._entries[key])
        for key in [key for key in self._making if is_meant(key)]:
            # Those who wait for it get it, and nobody after them.
            self._making.pop(key).is_forgotten = True

    async def close(self) -> None:
        """Discard everything; all users have left or never will."""
        tasks = [making.task for making in self._making.values() if making.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for entry in list(self._entries.values()):
            self._unused += bool(entry.users)
            entry.users = 0
            self._give_up(entry)
        await self.discarded()

    async def discarded(self) -> None:
        """Wait until what was given up is gone."""
        while self._discarding:
            await asyncio.wait(self._discarding)

    async def _make(self, key: str, make: Callable[[], Awaitable[H]], making: _Making[H]) -> Entry[H]:
        try:
            held = await make()
        finally:
            if self._making.get(key) is making:
                del self._making[key]
        entry = making.entry = Entry(key, held)
        entry.users = making.waiting
        self._size_bytes += held.size_bytes
        if making.is_forgotten:
            self._give_up(entry)
        else:
            self._keep(entry)
        self._make_room(but=entry)
        return entry

    def _keep(self, entry: Entry[H]) -> None:
        """It is found from now on."""
        self._entries[entry.key] = entry
        self._unused += not entry.users

    def _make_room(self, but: Entry[H] | None = None) -> None:
        spared = but is not None and not but.users and not but.is_forgotten
        while self._size_bytes > self._limit_bytes or self._unused - spared > self._unused_max:
            unused = (entry for entry in self._entries.values() if not entry.users and entry is not but)
            entry = next(unused, None)
            if entry is None:
                return
            self._evicted += 1
            self._give_up(entry)

    def _give_up(self, entry: Entry[H]) -> None:
        entry.is_forgotten = True
        if self._entries.get(entry.key) is entry:
            del self._entries[entry.key]
            self._unused -= not entry.users
        if not entry.users:
            self._discard(entry)

    def _discard(self, entry: Entry[H]) -> None:
        self._size_bytes -= entry.held.size_bytes
        self._watch(entry.held.discard())

    def _watch(self, discarding: Awaitable[None]) -> None:
        task = asyncio.ensure_future(discarding)
        self._discarding.add(task)
        task.add_done_callback(self._discarding.discard)


def _seen(making: asyncio.Task[Entry[H]]) -> None:
    """A failure that nobody waits for any more is nobody's."""
    if not making.cancelled():
        making.exception()
