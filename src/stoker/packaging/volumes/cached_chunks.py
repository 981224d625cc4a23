"""Where a worker gets sealed chunks from: a bounded folder of its own, then the object store.

Content is kept as it is stored, sealed; whether it is what was asked for the volume process verifies.
"""

import asyncio
import contextlib
import os
import secrets
from pathlib import Path

import msgspec

from stoker.core.errors import StokerError
from stoker.core.threads import CallThreads
from stoker.packaging.chunks.layout import chunk_key
from stoker.packaging.chunks.sealing import CHUNK_BYTES, NAME_BYTES
from stoker.packaging.volumes.cache import LruTwo
from stoker.services.object_store import ObjectStore, ObjectStoreUnavailable

STORE_WAIT_S = 3.5
"""For one chunk; the volume process asks again a few times before a read fails."""


class SourceStatistics(msgspec.Struct, frozen=True):
    """Counts since the start; sizes now."""

    disk_hits: int = 0
    disk_misses: int = 0
    disk_evicted: int = 0
    disk_failures: int = 0
    """Chunks that the disk did not take, full most likely: they were served all the same."""
    store_reads: int = 0
    store_bytes: int = 0
    store_failures: int = 0
    disk_bytes: int = 0


class CachedChunks:
    """``folder`` is None where the store is this host's own: another copy would gain nothing."""

    def __init__(
        self, store: ObjectStore, threads: CallThreads, folder: Path | None = None, limit_bytes: int = 0
    ) -> None:
        self._store = store
        self._threads = threads
        self._folder = folder
        self._kept: LruTwo[bytes, None] = LruTwo(limit_bytes)
        self._counts = dict.fromkeys(SourceStatistics.__struct_fields__, 0)

    async def start(self) -> None:
        """Find what an earlier life kept, and remove what it left half written."""
        if self._folder is not None:
            for name, size_bytes in await self._threads.call(lambda: _found(self._folder)):
                await self._keep(name, size_bytes)

    async def fetch(self, root: str, name: bytes, *, again: bool) -> bytes:
        """A chunk's sealed content, from the store when what is kept here was damaged.

        Raises:
            ObjectMissing, ObjectStoreUnavailable
        """
        if self._folder is not None:
            if again:
                await self._drop([(name, None)])
            elif (content := await self._read(name)) is not None:
                self._counts["disk_hits"] += 1
                return content
            else:
                self._counts["disk_misses"] += 1
        content = await self._download(chunk_key(root, name))
        if self._folder is not None and 0 < len(content) <= CHUNK_BYTES:
            await self._write(name, content)
        return content

    def statistics(self) -> SourceStatistics:
        """Counts since the start."""
        now = {"disk_bytes": self._kept.size_bytes, "disk_evicted": self._kept.evicted}
        return SourceStatistics(**self._counts | now)

    async def _download(self, key: str) -> bytes:
        try:
            content = await asyncio.wait_for(self._store.get_range(key, 0, CHUNK_BYTES + 1), STORE_WAIT_S)
        except TimeoutError as problem:
            self._counts["store_failures"] += 1
            raise ObjectStoreUnavailable(f"{key} did not come within {STORE_WAIT_S} s") from problem
        except StokerError:
            self._counts["store_failures"] += 1
            raise
        self._counts["store_reads"] += 1
        self._counts["store_bytes"] += len(content)
        return content

    async def _read(self, name: bytes) -> bytes | None:
        if name not in self._kept:
            return None
        self._kept.get(name, asyncio.get_running_loop().time())
        try:
            return await self._threads.call(self._path(name).read_bytes)
        except OSError:
            self._kept.remove(name)
            return None

    async def _write(self, name: bytes, content: bytes) -> None:
        try:
            await self._threads.call(lambda: _replace(self._path(name), content))
        except OSError:
            self._counts["disk_failures"] += 1
            return
        await self._keep(name, len(content))

    async def _keep(self, name: bytes, size_bytes: int) -> None:
        await self._drop(self._kept.put(name, None, size_bytes, asyncio.get_running_loop().time()))

    async def _drop(self, chunks: list[tuple[bytes, None]]) -> None:
        for name, _ in chunks:
            self._kept.remove(name)
            with contextlib.suppress(OSError):
                await self._threads.call(self._path(name).unlink)

    def _path(self, name: bytes) -> Path:
        assert self._folder is not None
        written = name.hex()
        return self._folder / written[:2] / written


def _replace(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    new = path.with_name(f"{secrets.token_hex(8)}.new")
    try:
        new.write_bytes(content)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def _found(folder: Path | None) -> list[tuple[bytes, int]]:
    """Chunks by age, oldest first."""
    assert folder is not None
    chunks: list[tuple[float, bytes, int]] = []
    for path in folder.glob("??/*"):
        status = os.lstat(path)
        try:
            name = bytes.fromhex(path.name)
        except ValueError:
            name = b""
        if len(name) == NAME_BYTES:
            chunks.append((status.st_mtime, name, status.st_size))
        else:
            path.unlink(missing_ok=True)
    return [(name, size_bytes) for _, name, size_bytes in sorted(chunks)]
