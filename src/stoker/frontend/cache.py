"""A bounded cache that loads what it lacks once, however many ask, and never keeps what was outdated
while it was being loaded."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class LoadingCache(Generic[K, V]):
    """Least recently used entries go first. A None from the loader (nothing there) is returned, not kept."""

    def __init__(
        self,
        loader: Callable[[K], Awaitable[V | None]],
        *,
        capacity: int,
        loaded: Callable[[K, V | None], None] | None = None,
    ) -> None:
        self._loader = loader
        self._capacity = capacity
        self._loaded = loaded
        self._entries: OrderedDict[K, V] = OrderedDict()
        self._loads: dict[K, asyncio.Task[V | None]] = {}

    def get(self, key: K) -> V | None:
        """What is kept, or None; never waits."""
        value = self._entries.get(key)
        if value is not None:
            self._entries.move_to_end(key)
        return value

    async def load(self, key: K) -> V | None:
        """The value from its source, joined to a load that is under way and still current.

        Raises whatever the loader raises, to everyone who waits for that load.
        """
        task = self._loads.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._run(key))
            self._loads[key] = task
        return await asyncio.shield(task)

    def invalidate(self, key: K) -> None:
        """Drop an entry. A load under way answers those who asked before, and nobody after."""
        self._entries.pop(key, None)
        self._loads.pop(key, None)

    def __len__(self) -> int:
        return len(self._entries)

    async def _run(self, key: K) -> V | None:
        task = asyncio.current_task()
        try:
            value = await self._loader(key)
        except BaseException:
            if self._loads.get(key) is task:
                del self._loads[key]
            raise
        if self._loads.get(key) is not task:
            return value
        del self._loads[key]
        if value is not None:
            self._entries[key] = value
            while len(self._entries) > self._capacity:
                self._entries.popitem(last=False)
        if self._loaded is not None:
            self._loaded(key, value)
        return value
