"""The volume process below real mounts: what is read is what was sealed, whatever the store does."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from stoker.core.threads import CallThreads
from stoker.packaging.chunks.sealing import CHUNK_BYTES
from stoker.packaging.volumes.serving import VolumeContent, VolumeProcess
from stoker.sandbox.container import ContainerDriver
from stoker.services.volumes import MountedTree
from tests.integration.sandbox.running_jail import RunningJail, missing
from tests.integration.volumes import small
from tests.integration.volumes.sealed import SealedStore

pytestmark = pytest.mark.skipif(bool(missing() or small.missing()), reason=missing() or small.missing())

BIG = small.content_of(9_000_000) + bytes(3_000_000) + small.content_of(2_000_001, seed=21)
IMAGE = small.image_of({"big": BIG, "word": b"hello"})
OTHER = small.image_of({"big": BIG, "word": b"other"})


class World:
    """A jail, a volume process and a store."""

    def __init__(self, driver: ContainerDriver) -> None:
        self.driver = driver
        self.store = SealedStore()
        self.threads = CallThreads("test", threads_max=16)
        self.lost: list[int] = []
        self.alarms: list[str] = []
        self.touched: list[tuple[int, ...]] = []
        self.process = VolumeProcess(self.threads, 32 << 20, self._on_lost)

    def _on_lost(self, volumes: Sequence[int]) -> None:
        self.lost += volumes

    async def mount(self, image: bytes, profile: tuple[int, ...] = ()) -> MountedTree:
        volume = await self.driver.mounter.open_volume()
        manifest = self.store.add(image)
        content = VolumeContent(
            manifest, self.store.fetcher(manifest), profile, self.touched.append, self.alarms.append
        )
        await self.process.serve(volume.volume_id, volume.device, content)
        os.close(volume.device)
        return await self.driver.mounter.mount_volume(volume.volume_id)

    async def read(self, tree: MountedTree, name: str, offset: int = 0, size: int = 1 << 30) -> bytes:
        return await self.threads.call(lambda: _read(tree.folder, name, offset, size))


def _read(folder: int, name: str, offset: int, size: int) -> bytes:
    fd = os.open(name, os.O_RDONLY, dir_fd=folder)
    try:
        parts: list[bytes] = []
        while size and (part := os.pread(fd, min(size, 1 << 20), offset)):
            parts.append(part)
            offset, size = offset + len(part), size - len(part)
        return b"".join(parts)
    finally:
        os.close(fd)


@pytest.fixture(scope="module")
def jail() -> "AsyncIterator[RunningJail]":
    running = RunningJail()
    running.start()
    yield running
    running.stop()


@pytest.fixture
async def world(jail: RunningJail) -> AsyncIterator[World]:
    world = World(await jail.driver())
    yield world
    await world.driver.close()
    await world.process.close()


async def test_shows_what_was_sealed(world: World) -> None:
    tree = await world.mount(IMAGE)
    assert await world.read(tree, "big") == BIG
    assert await world.read(tree, "word") == b"hello"
    assert max(world.store.fetched.values()) == 1
    assert not world.process.missing or world.process.missing == ("landlock",)


async def test_reads_no_more_than_is_needed(world: World) -> None:
    tree = await world.mount(IMAGE)
    assert await world.read(tree, "big", 5_000_000, 100) == BIG[5_000_000:5_000_100]
    assert sum(world.store.fetched.values()) <= 4
    assert await world.read(tree, "big", 9_500_000, 1_000_000) == bytes(1_000_000)


async def test_one_chunk_of_two_images_is_fetched_once(world: World) -> None:
    world.store.delay_s = 0.1
    first, second = await world.mount(IMAGE), await world.mount(OTHER)
    seen = await asyncio.gather(*(world.read(tree, "big") for tree in (first, second, first, second)))
    assert all(each == BIG for each in seen)
    assert max(world.store.fetched.values()) == 1


@pytest.mark.parametrize("behaviour", ["lies", "truncates", "is empty", "pads", "fails", "loses"])
async def test_a_bad_store_means_an_error_and_never_wrong_bytes(world: World, behaviour: str) -> None:
    tree = await world.mount(IMAGE)
    world.store.behaviour = behaviour
    with pytest.raises(OSError, match="Input/output"):
        await world.read(tree, "big", 4_000_000, 4096)
    await _until(lambda: world.alarms != [])
    world.store.behaviour = "well"
    assert await world.read(tree, "big") == BIG


async def test_a_chunk_damaged_on_its_way_is_fetched_again(world: World) -> None:
    tree = await world.mount(IMAGE)
    world.store.behaviour = "lies once"
    assert await world.read(tree, "big", 4_000_000, 4096) == BIG[4_000_000:4_004_096]
    assert not world.alarms


async def test_a_store_that_stalls_delays_its_own_readers_alone(world: World) -> None:
    tree, other = await world.mount(IMAGE), await world.mount(OTHER)
    assert await world.read(other, "big", 0, 1_000_000) == BIG[:1_000_000]
    world.store.behaviour = "stalls"
    stalled = asyncio.create_task(world.read(tree, "big", 8_000_000, 4096))
    await asyncio.sleep(0.1)
    started = time.monotonic()
    os.posix_fadvise(fd := os.open("big", os.O_RDONLY, dir_fd=other.folder), 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)
    assert await world.read(other, "big", 0, 1_000_000) == BIG[:1_000_000]
    assert time.monotonic() - started < 1
    with pytest.raises(OSError, match="Input/output"):
        await asyncio.wait_for(stalled, 15)


async def test_a_killed_process_is_said_and_replaced(world: World) -> None:
    tree = await world.mount(IMAGE)
    assert await world.read(tree, "word") == b"hello"
    assert world.process.pid
    os.kill(world.process.pid, signal.SIGKILL)
    await _until(lambda: world.lost == [tree.mount_id])
    with pytest.raises(OSError, match=r"Input/output|not connected"):
        await world.read(tree, "big", 6_000_000, 4096)
    await world.driver.mounter.unmount(tree.mount_id)
    again = await world.mount(IMAGE)
    assert await world.read(again, "big") == BIG


async def test_what_a_start_read_is_told_and_fetched_ahead_the_next_time(world: World) -> None:
    tree = await world.mount(IMAGE)
    await world.read(tree, "big", 6_000_000, 4096)
    await world.driver.mounter.unmount(tree.mount_id)
    await _until(lambda: world.touched != [])
    (profile,) = world.touched
    assert 6_000_000 // CHUNK_BYTES in {index - 1 for index in profile} | set(profile)
    await world.process.close()
    world.store.fetched.clear()
    tree = await world.mount(IMAGE, profile)
    await _until(lambda: len(world.store.fetched) == len(profile))


async def test_memory_stays_bounded(world: World) -> None:
    image = small.image_of({"big": small.content_of(150_000_000)})
    tree = await world.mount(image)
    await world.read(tree, "big")
    status = Path(f"/proc/{world.process.pid}/status").read_text()
    resident_kb = int(status.split("VmRSS:")[1].split()[0])
    assert resident_kb < 32 * 1024 + 60 * 1024, resident_kb


async def _until(condition, within_s: float = 5.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
