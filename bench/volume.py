"""Lazy volumes: reads through EROFS on a file of the volume process, beside the same image in a local file.

Chunks come from memory, so that what is measured is the volume and no store.
"""

import asyncio
import os
import random
import tempfile
import time
from pathlib import Path

from bench.figures import Figure, Missing, Options
from bench.percentiles import percentile
from stoker.core.threads import CallThreads
from stoker.packaging.chunks.sealing import CHUNK_BYTES
from stoker.packaging.volumes.serving import VolumeContent, VolumeProcess
from stoker.sandbox.container import ContainerDriver
from stoker.services.volumes import MountedTree
from tests.integration.sandbox.running_jail import RunningJail, missing
from tests.integration.volumes import small
from tests.integration.volumes.sealed import SealedStore

FILE_BYTES = 96 * 1024 * 1024
CACHE_BYTES = 256 * 1024 * 1024
RANDOM_READS = 3000
STORE_READS = 100
PAGE = 4096
PIECE = 1024 * 1024


def measure(options: Options) -> list[Figure]:
    """Cold reads of one page, from the cache of chunks and from the store; a file from end to end."""
    del options
    if why := missing() or small.missing():
        raise Missing(why)
    jail = RunningJail()
    jail.start()
    try:
        return asyncio.run(_measure(jail))
    finally:
        jail.stop()


class _Worker:
    """A jail's mounter, a volume process, a store in memory with one image."""

    def __init__(self, driver: ContainerDriver) -> None:
        self.mounter = driver.mounter
        self.store = SealedStore()
        self.threads = CallThreads("bench", threads_max=16)
        self.process = VolumeProcess(self.threads, CACHE_BYTES, lambda _: None)
        self.image = small.image_of({"big": small.content_of(FILE_BYTES)})
        self.manifest = self.store.add(self.image)

    async def mount(self) -> MountedTree:
        volume = await self.mounter.open_volume()
        content = VolumeContent(self.manifest, self.store.fetcher(self.manifest))
        await self.process.serve(volume.volume_id, volume.device, content)
        os.close(volume.device)
        return await self.mounter.mount_volume(volume.volume_id)

    async def mount_file(self) -> MountedTree:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "image"
            path.write_bytes(self.image)
            with path.open("rb") as file:
                return await self.mounter.mount_file(file.fileno())


async def _measure(jail: RunningJail) -> list[Figure]:
    driver = await jail.driver()
    worker = _Worker(driver)
    try:
        await worker.process.start()
        return await _figures(worker)
    finally:
        await driver.close()
        await worker.process.close()


async def _figures(worker: _Worker) -> list[Figure]:
    started_s = time.perf_counter()
    tree = await worker.mount()
    mounted_ms = (time.perf_counter() - started_s) * 1000
    chunk_starts = [offset + PAGE for offset in range(0, FILE_BYTES, CHUNK_BYTES)][:STORE_READS]
    from_store = await worker.threads.call(lambda: _random(tree, chunk_starts))
    whole_store = await _sequential(worker, await worker.mount())  # what those reads left is fetched now
    pages = random.Random(20).sample(range(FILE_BYTES // PAGE), RANDOM_READS)
    offsets = [page * PAGE for page in pages]
    again, local = await worker.mount(), await worker.mount_file()
    cached = await worker.threads.call(lambda: _random(again, offsets))
    beside = await worker.threads.call(lambda: _random(local, offsets))
    whole = await _sequential(worker, await worker.mount())
    whole_local = await _sequential(worker, await worker.mount_file())
    share = 100 * worker.process.statistics().fetched_bytes / len(worker.image)
    return [
        Figure(name="volume: from nothing to mounted", value=mounted_ms, unit="ms", n=1, tolerance=None),
        Figure(
            name="volume: cold 4 KiB read, chunk in the cache, p50", value=percentile(cached, 50), unit="µs",
            n=len(cached), yardstick=percentile(beside, 50), yardstick_name="image in a local file",
        ),
        Figure(
            name="volume: cold 4 KiB read, chunk from the store, p50", value=percentile(from_store, 50),
            unit="µs", n=len(from_store), yardstick=percentile(beside, 50), yardstick_name="image in a local file",
            tolerance=None,
        ),
        Figure(
            name="volume: a file from end to end, chunks in the cache", value=whole, unit="MB/s", n=1,
            yardstick=whole_local, yardstick_name="image in a local file", higher_is_better=True,
        ),
        Figure(
            name="volume: a file from end to end, partly from the store", value=whole_store, unit="MB/s", n=1,
            tolerance=None, higher_is_better=True,
        ),
        Figure(
            name="volume: fetched, as share of the image", value=share, unit="%", n=1, tolerance=None,
            goal="100: nothing twice",
        ),
    ]  # fmt: skip


def _random(tree: MountedTree, offsets: list[int]) -> list[float]:
    """Microseconds of each read of a page."""
    fd = os.open("big", os.O_RDONLY, dir_fd=tree.folder)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    took: list[float] = []
    for offset in offsets:
        started_s = time.perf_counter()
        os.pread(fd, PAGE, offset)
        took.append((time.perf_counter() - started_s) * 1e6)
    os.close(fd)
    return took


async def _sequential(worker: _Worker, tree: MountedTree) -> float:
    """MB/s of reading the file once."""

    def read() -> float:
        fd = os.open("big", os.O_RDONLY, dir_fd=tree.folder)
        buffer = bytearray(PIECE)
        started_s = time.perf_counter()
        while os.readv(fd, [buffer]):
            pass
        took_s = time.perf_counter() - started_s
        os.close(fd)
        return FILE_BYTES / took_s / 1e6

    return await worker.threads.call(read)
