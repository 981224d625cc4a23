"""An object store whose operations wait for a test to say in which order they happen, and whether they do."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from stoker.services.object_store import ObjectStoreUnavailable, Progress, StoredObject
from stoker.store.memory_object_store import MemoryObjectStore

T = TypeVar("T")


class Crashed(BaseException):
    """The process is gone."""


class Waiting:
    """An operation that has not happened yet."""

    def __init__(self, store: "GatedStore") -> None:
        self.store = store
        self.go: asyncio.Future[str] = asyncio.get_running_loop().create_future()


class GatedStore:
    """The ObjectStore port of one process; ``waiting`` is shared by all."""

    def __init__(self, memory: MemoryObjectStore, waiting: list[Waiting]) -> None:
        self._memory = memory
        self._waiting = waiting
        self.is_dead = False

    async def _gated(self, act: Callable[[], Awaitable[T]]) -> T:
        if self.is_dead:
            raise Crashed
        waiting = Waiting(self)
        self._waiting.append(waiting)
        verdict = await waiting.go
        if verdict in ("act", "act and fail", "act and crash"):
            result = await act()
            if verdict == "act":
                return result
        if verdict.endswith("crash"):
            raise Crashed
        raise ObjectStoreUnavailable(verdict)

    async def put_new(self, key: str, content: bytes) -> bool:
        return await self._gated(lambda: self._memory.put_new(key, content))

    async def put(self, key: str, content: bytes) -> None:
        await self._gated(lambda: self._memory.put(key, content))

    async def get(self, key: str) -> bytes:
        return await self._gated(lambda: self._memory.get(key))

    async def size_bytes(self, key: str) -> int | None:
        return await self._gated(lambda: self._memory.size_bytes(key))

    async def delete(self, key: str) -> None:
        await self._gated(lambda: self._memory.delete(key))

    async def list_objects(self, prefix: str) -> AsyncIterator[StoredObject]:
        async def listed() -> list[StoredObject]:
            return [entry async for entry in self._memory.list_objects(prefix)]

        for entry in await self._gated(listed):
            yield entry

    async def put_file(self, key: str, file: Path, progress: Progress | None = None) -> None:
        raise NotImplementedError

    async def get_range(self, key: str, offset: int, size_bytes: int) -> bytes:
        raise NotImplementedError

    async def fetch(self, key: str, into: Path, progress: Progress | None = None) -> None:
        raise NotImplementedError


class InlineExecutor(ThreadPoolExecutor):
    """Work for threads is done at once, so that a run can be repeated exactly."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as problem:
            future.set_exception(problem)
        return future


async def settle() -> None:
    """Until everything waits."""
    loop: Any = asyncio.get_running_loop()
    await asyncio.sleep(0)
    while loop._ready:
        await asyncio.sleep(0)
