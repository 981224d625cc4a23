"""Stored images on a worker: one mount an image, warm for a while, replaced when a process below it dies."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from stoker.core.threads import CallThreads
from stoker.packaging import image_mounts
from stoker.packaging.chunks.sealing import CHUNK_BYTES
from stoker.packaging.image_mounts import ImageMounts
from stoker.packaging.volumes import serving
from stoker.packaging.volumes.cached_chunks import CachedChunks
from stoker.packaging.volumes.serving import VolumeProcess
from stoker.sandbox.container import ContainerDriver
from stoker.sandbox.driver import MountPoint, SandboxSpec
from stoker.services.images import ImageMissing
from stoker.services.volumes import MountedTree, MountRefused
from stoker.store.memory_object_store import Fault
from tests.integration.sandbox.running_jail import LIMITS, RunningJail, missing, read_all, shell
from tests.integration.volumes import small
from tests.unit.packaging.chunks.chunked import ACCOUNT, Chunked

pytestmark = pytest.mark.skipif(bool(missing() or small.missing()), reason=missing() or small.missing())

BIG = small.content_of(6_000_000)
IMAGE = small.image_of({"word": b"hello", "big": BIG})
PIECES = [IMAGE[start : start + CHUNK_BYTES] for start in range(0, len(IMAGE), CHUNK_BYTES)]
PIECES[-1] += bytes(CHUNK_BYTES - len(PIECES[-1]))


class World:
    """A jail, a store with one image, and the mounts of a worker."""

    def __init__(self, driver: ContainerDriver, cache: Path | None) -> None:
        self.driver = driver
        self.chunked = Chunked()
        self.digest = ""
        self.lost: list[int] = []
        self.alarms: list[str] = []
        threads = CallThreads("test", threads_max=16)
        self.source = CachedChunks(self.chunked.store, threads, cache, 64 << 20)
        self.mounts = ImageMounts(
            self.chunked.images,
            self.source,
            driver.mounter,
            self.chunked.clock,
            process=lambda lost: VolumeProcess(threads, 32 << 20, lost),
            on_lost=self._on_lost,
            on_alarm=self.alarms.append,
        )

    def _on_lost(self, mount_id: int) -> None:
        self.lost.append(mount_id)
        self.driver.kill_users(mount_id)

    async def mounted(self) -> MountedTree:
        return await self.mounts.mounted(ACCOUNT, self.digest)

    def leave(self) -> None:
        self.mounts.leave(ACCOUNT, self.digest)

    @property
    def chunk_reads(self) -> int:
        return sum(op == "get_range" and "/chunks/" in key for op, key in self.chunked.memory.calls)


@pytest.fixture(scope="module")
def jail() -> "AsyncIterator[RunningJail]":
    running = RunningJail()
    running.start()
    yield running
    running.stop()


@pytest.fixture
async def world(jail: RunningJail, tmp_path: Path) -> AsyncIterator[World]:
    world = World(await jail.driver(), tmp_path / "cache")
    await world.source.start()
    world.digest = await world.chunked.admit(ACCOUNT, PIECES)
    yield world
    await world.mounts.close()
    await world.driver.close()


def read(tree: MountedTree, name: str) -> bytes:
    with open(name, "rb", opener=lambda path, flags: os.open(path, flags, dir_fd=tree.folder)) as file:
        return file.read()


async def _until(condition: Callable[[], bool]) -> None:
    for _ in range(250):
        if condition():
            return
        await asyncio.sleep(0.02)
    assert condition()


async def test_sandboxes_of_an_image_share_its_mount(world: World) -> None:
    first, second = await asyncio.gather(world.mounted(), world.mounted())
    assert first == second
    assert await asyncio.to_thread(read, first, "big") == BIG
    world.leave()
    world.leave()
    assert await world.mounted() == first  # still warm
    world.leave()


async def test_a_mount_goes_some_time_after_its_last_sandbox(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_mounts, "UNUSED_FOR_S", 0.05)
    first = await world.mounted()
    await asyncio.sleep(0.2)
    assert (await world.mounted()).mount_id == first.mount_id  # in use: it stays
    world.leave()
    world.leave()
    await _until(lambda: not world.mounts.process.serves(first.mount_id))
    assert (await world.mounted()).mount_id != first.mount_id


async def test_an_unknown_image_is_missing(world: World) -> None:
    with pytest.raises(ImageMissing):
        await world.mounts.mounted("111111111111", world.digest)


@pytest.mark.parametrize("kind", ["fail", "lie", "truncate"])
async def test_an_image_that_cannot_be_read_is_refused_and_leaves_nothing(world: World, kind: str) -> None:
    world.chunked.memory.inject(Fault(kind=kind, operation="get_range", key="roots/", times=1000))
    with pytest.raises(MountRefused):
        await world.mounted()
    world.chunked.memory.heal()
    assert await asyncio.to_thread(read, await world.mounted(), "word") == b"hello"
    assert world.alarms


async def test_a_killed_process_ends_the_sandboxes_of_its_images(world: World) -> None:
    tree = await world.mounted()
    sandbox = await world.driver.create(
        SandboxSpec(sandbox_id="one", limits=LIMITS, mounts={MountPoint.OPT: tree})
    )
    await sandbox.launch(shell("cat /opt/word; cat /opt/big >/dev/null; exec sleep 60 >&- 2>&-"))
    assert await read_all(sandbox.output) == b"hello"
    assert world.mounts.process.pid
    os.kill(world.mounts.process.pid, signal.SIGKILL)
    await _until(lambda: world.lost == [tree.mount_id])
    again = await world.mounted()
    assert again.mount_id != tree.mount_id
    await asyncio.wait_for(sandbox.wait(), 5)
    assert await asyncio.to_thread(read, again, "big") == BIG
    await sandbox.destroy()
    world.leave()
    world.leave()


async def test_the_next_start_finds_chunks_on_disk_and_its_profile(world: World) -> None:
    await asyncio.to_thread(read, await world.mounted(), "big")
    world.leave()
    first = world.chunk_reads
    assert first == len(PIECES)
    await world.mounts.close()
    await asyncio.sleep(0.1)
    assert any("/profiles/" in key for key in world.chunked.memory.objects)
    assert await asyncio.to_thread(read, await world.mounted(), "big") == BIG
    assert world.chunk_reads == first
    assert world.source.statistics().disk_hits >= len(PIECES)
    assert world.source.statistics().disk_misses >= len(PIECES)


async def test_damage_on_this_disk_is_fetched_anew(world: World, tmp_path: Path) -> None:
    await asyncio.to_thread(read, await world.mounted(), "big")
    await world.mounts.close()
    for path in (tmp_path / "cache").glob("??/*"):
        path.write_bytes(bytes(100))
    assert await asyncio.to_thread(read, await world.mounted(), "big") == BIG
    assert not world.alarms


async def test_a_server_that_hangs_is_told_of_and_its_sandboxes_die_with_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "PING_EVERY_S", 0.1)
    tree = await world.mounted()
    sandbox = await world.driver.create(
        SandboxSpec(sandbox_id="one", limits=LIMITS, mounts={MountPoint.OPT: tree})
    )
    assert world.mounts.process.pid
    os.kill(world.mounts.process.pid, signal.SIGSTOP)
    await sandbox.launch(shell("cat /opt/big"))
    await asyncio.sleep(0.2)
    sandbox.freeze()
    await asyncio.wait_for(sandbox.wait(), 10)
    await sandbox.destroy()
    await _until(lambda: world.lost == [tree.mount_id])


async def test_all_sandboxes_of_a_lost_image_are_killed_and_no_others(world: World) -> None:
    tree = await world.mounted()
    mine = await world.driver.create(
        SandboxSpec(sandbox_id="mine", limits=LIMITS, mounts={MountPoint.OPT: tree})
    )
    other = await world.driver.create(SandboxSpec(sandbox_id="other", limits=LIMITS))
    await mine.launch(shell("exec sleep 60"))
    await other.launch(shell("exec sleep 60"))
    assert world.driver.kill_users(tree.mount_id) == 1
    await asyncio.wait_for(mine.wait(), 5)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(other.wait(), 0.2)
