"""Objects in memory, for tests: a store that can be told to fail, stall, truncate, lie or be full."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from stoker.services.object_store import ObjectMissing, ObjectStoreUnavailable, Progress, StoredObject
from stoker.store.object_files import new_file, write_all
from stoker.store.object_keys import checked_key, prefix_folder

T = TypeVar("T")

Operation = Literal["put_new", "put", "put_file", "get", "get_range", "fetch", "size_bytes", "list", "delete"]
Kind = Literal["fail", "late", "stall", "truncate", "lie"]


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """What goes wrong with the next ``times`` calls of an operation on keys that start with ``key``.

    ``fail``: nothing happens; ``late``: it happens and the answer is lost; ``stall``: no answer before
    ``release_stalled``; ``truncate``: half of the content comes; ``lie``: a bit of it is flipped.
    """

    kind: Kind
    operation: Operation
    key: str = ""
    times: int = 1


class MemoryObjectStore:
    """The ObjectStore port on a dictionary. Every call gives others a turn, before and after it acts."""

    def __init__(self, *, clock: Callable[[], float] = time.time, capacity_bytes: int | None = None) -> None:
        self.objects: dict[str, bytes] = {}
        self.calls: list[tuple[Operation, str]] = []
        self.before: Callable[[Operation, str], None] | None = None
        """Called before an operation acts; what it raises is what the caller gets, and nothing happens."""
        self.capacity_bytes = capacity_bytes
        self._clock = clock
        self._modified_at_s: dict[str, float] = {}
        self._faults: list[Fault] = []
        self._released = asyncio.Event()

    def inject(self, fault: Fault) -> None:
        """Let something go wrong, after what was injected before."""
        self._faults.append(fault)

    def heal(self) -> None:
        """Nothing goes wrong any more; calls that stall go on."""
        self._faults.clear()
        self.release_stalled()

    def release_stalled(self) -> None:
        """Let the calls that stall go on."""
        self._released.set()
        self._released = asyncio.Event()

    async def put_new(self, key: str, content: bytes) -> bool:
        return await self._call("put_new", key, lambda: self._store(key, content, replacing=False))

    async def put(self, key: str, content: bytes) -> None:
        await self._call("put", key, lambda: self._store(key, content, replacing=True))

    async def put_file(self, key: str, file: Path, progress: Progress | None = None) -> None:
        content = await asyncio.to_thread(file.read_bytes)
        await self._call("put_file", key, lambda: self._store(key, content, replacing=True))
        if progress is not None:
            progress(len(content))

    async def get(self, key: str) -> bytes:
        return await self._read("get", key)

    async def get_range(self, key: str, offset: int, size_bytes: int) -> bytes:
        if offset < 0 or size_bytes < 0:
            raise ValueError(f"not a range: {offset}, {size_bytes}")
        return await self._read("get_range", key, offset, offset + size_bytes)

    async def fetch(self, key: str, into: Path, progress: Progress | None = None) -> None:
        content = await self._read("fetch", key)
        with new_file(into) as target:
            write_all(target, content)
        if progress is not None:
            progress(len(content))

    async def size_bytes(self, key: str) -> int | None:
        content = await self._call("size_bytes", key, lambda: self.objects.get(key))
        return None if content is None else len(content)

    async def list_objects(self, prefix: str) -> AsyncIterator[StoredObject]:
        prefix_folder(prefix)
        for entry in await self._act("list", prefix, lambda: self._listed(prefix)):
            yield entry

    async def delete(self, key: str) -> None:
        await self._call("delete", key, lambda: self.objects.pop(key, None))

    async def _read(self, operation: Operation, key: str, start: int = 0, end: int | None = None) -> bytes:
        fault = self._fault(operation, key, ("truncate", "lie"))
        content = await self._call(operation, key, lambda: self._content(key)[start:end])
        if fault is None:
            return content
        if fault.kind == "truncate":
            return content[: len(content) // 2]
        return content[:-1] + bytes([content[-1] ^ 1]) if content else b"\1"

    def _call(self, operation: Operation, key: str, act: Callable[[], T]) -> Coroutine[Any, Any, T]:
        return self._act(operation, checked_key(key), act)

    async def _act(self, operation: Operation, key: str, act: Callable[[], T]) -> T:
        await asyncio.sleep(0)
        self.calls.append((operation, key))
        if self.before is not None:
            self.before(operation, key)
        fault = self._fault(operation, key, ("fail", "late", "stall"))
        if fault is not None and fault.kind == "stall":
            await self._released.wait()
        if fault is not None and fault.kind == "fail":
            raise ObjectStoreUnavailable(f"{operation} {key}: told to fail")
        result = act()
        if fault is not None and fault.kind == "late":
            raise ObjectStoreUnavailable(f"{operation} {key}: told to lose the answer")
        await asyncio.sleep(0)
        return result

    def _fault(self, operation: Operation, key: str, kinds: tuple[Kind, ...]) -> Fault | None:
        for place, fault in enumerate(self._faults):
            if fault.kind in kinds and fault.operation == operation and key.startswith(fault.key):
                if fault.times > 1:
                    self._faults[place] = msgspec.structs.replace(fault, times=fault.times - 1)
                else:
                    del self._faults[place]
                return fault
        return None

    def _store(self, key: str, content: bytes, *, replacing: bool) -> bool:
        if key in self.objects and not replacing:
            return False
        kept = sum(len(other) for name, other in self.objects.items() if name != key)
        if self.capacity_bytes is not None and kept + len(content) > self.capacity_bytes:
            raise ObjectStoreUnavailable("no space left for objects in memory")
        self.objects[key] = bytes(content)
        self._modified_at_s[key] = self._clock()
        return True

    def _content(self, key: str) -> bytes:
        if key not in self.objects:
            raise ObjectMissing(key)
        return self.objects[key]

    def _listed(self, prefix: str) -> list[StoredObject]:
        return [
            StoredObject(key, len(content), self._modified_at_s.get(key, 0.0))
            for key, content in self.objects.items()
            if key.startswith(prefix)
        ]
