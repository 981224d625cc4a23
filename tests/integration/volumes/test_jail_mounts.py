"""What the jail mounts: servers that hang or die, jails that die, sandboxes that hold a mount; nothing is left."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from stoker.sandbox.container import ContainerDriver
from stoker.sandbox.driver import MountPoint, SandboxSpec
from stoker.services.volumes import MountRefused
from tests.integration.sandbox.running_jail import LIMITS, RunningJail, create, missing, read_all, shell
from tests.integration.volumes import small

pytestmark = pytest.mark.skipif(bool(missing() or small.missing()), reason=missing() or small.missing())

BIG = small.content_of(4_000_000)
IMAGE = small.image_of({"word": b"hello", "big": BIG})


@pytest.fixture
async def jail() -> AsyncIterator[RunningJail]:
    running = RunningJail()
    running.start()
    yield running
    running.stop()


@pytest.fixture
async def driver(jail: RunningJail) -> AsyncIterator[ContainerDriver]:
    driver = await jail.driver()
    yield driver
    await driver.close()


def loop_devices(image: Path) -> list[str]:
    """Those over one file."""
    backing = Path("/sys/block").glob("loop*/loop/backing_file")
    files: list[str] = []
    for path in backing:
        with contextlib.suppress(OSError):  # gone meanwhile
            files.append(path.read_text().strip())
    return [file for file in files if file == str(image)]


async def ended(server: small.SmallServer, within_s: float = 5.0) -> bool:
    """Whether the kernel told a server that its file system is gone."""
    deadline = time.monotonic() + within_s
    while server.running and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
    return not server.running


async def test_a_server_that_hangs_stops_neither_the_jail_nor_an_abort(driver: ContainerDriver) -> None:
    volume = await driver.mounter.open_volume()
    server = small.SmallServer(volume.device, IMAGE, stalled=True)
    mounting = asyncio.create_task(driver.mounter.mount_volume(volume.volume_id))
    started = time.monotonic()
    sandbox = await create(driver)
    await sandbox.destroy()
    assert time.monotonic() - started < 2
    assert not mounting.done()
    await driver.mounter.abort_volume(volume.volume_id)
    with pytest.raises(MountRefused):
        await asyncio.wait_for(mounting, 5)
    server.stalled.clear()
    assert await ended(server)


async def test_a_server_that_dies_fails_reads_at_once(driver: ContainerDriver) -> None:
    volume = await driver.mounter.open_volume()
    server = small.SmallServer(volume.device, IMAGE)
    tree = await driver.mounter.mount_volume(volume.volume_id)
    server.close()
    fd = os.open("big", os.O_RDONLY, dir_fd=tree.folder)
    with pytest.raises(OSError, match="Input/output"):
        os.read(fd, 4096)
    os.close(fd)
    await driver.mounter.unmount(tree.mount_id)


async def test_damage_is_refused_and_leaves_nothing(driver: ContainerDriver) -> None:
    volume = await driver.mounter.open_volume()
    server = small.SmallServer(volume.device, bytes(1 << 20))
    with pytest.raises(MountRefused, match="mounting the image"):
        await driver.mounter.mount_volume(volume.volume_id)
    assert await ended(server)


async def test_a_sandbox_keeps_what_was_unmounted(driver: ContainerDriver) -> None:
    volume = await driver.mounter.open_volume()
    server = small.SmallServer(volume.device, IMAGE)
    tree = await driver.mounter.mount_volume(volume.volume_id)
    early = await driver.create(SandboxSpec(sandbox_id="early", limits=LIMITS, mounts={MountPoint.OPT: tree}))
    late = await create(driver)
    await late.mount({MountPoint.TASK: tree})
    await driver.mounter.unmount(tree.mount_id)
    await early.launch(shell("cat /opt/word; wc -c < /opt/big; touch /opt/new 2>&1"))
    said = (await read_all(early.output)).decode()
    assert said.startswith("hello4000000")
    assert "Read-only" in said
    await late.launch(shell("cat /var/task/word; exec sleep 60 >&- 2>&-"))
    assert await read_all(late.output) == b"hello"
    await early.destroy()
    assert not await ended(server, 0.2)
    await late.destroy()
    assert await ended(server)


@pytest.mark.parametrize("state", ["opened", "mounting", "mounted", "in use"])
async def test_a_killed_jail_leaves_nothing(
    jail: RunningJail, driver: ContainerDriver, tmp_path: Path, state: str
) -> None:
    lost = asyncio.Event()
    driver.mounter.on_lost(lost.set)
    image = tmp_path / "image"
    image.write_bytes(IMAGE)
    volume = await driver.mounter.open_volume()
    server = small.SmallServer(volume.device, IMAGE, stalled=state == "mounting")
    if state == "mounting":
        mounting = asyncio.create_task(driver.mounter.mount_volume(volume.volume_id))
        await asyncio.sleep(0.1)
    elif state != "opened":
        with image.open("rb") as file:
            await driver.mounter.mount_file(file.fileno())
        tree = await driver.mounter.mount_volume(volume.volume_id)
    if state == "in use":
        sandbox = await driver.create(
            SandboxSpec(sandbox_id="one", limits=LIMITS, mounts={MountPoint.OPT: tree})
        )
        await sandbox.launch(shell("cat /opt/word; sleep 60"))
    jail.kill()
    await asyncio.wait_for(lost.wait(), 5)
    server.stalled.clear()  # a hung server's owner kills it when the jail is gone; here it answers again
    jail.start()
    while not driver.connected:
        await asyncio.sleep(0.02)
    assert await ended(server)
    if state == "mounting":
        with pytest.raises(MountRefused):
            await mounting
    fresh = await driver.mounter.open_volume()
    small.SmallServer(fresh.device, IMAGE)
    assert (await driver.mounter.mount_volume(fresh.volume_id)).mount_id != volume.volume_id


async def test_a_killed_jail_leaves_no_loop_device(tmp_path: Path) -> None:
    jail = RunningJail("--no-egress", "--images-by-loop")
    jail.start()
    driver = await jail.driver()
    image = tmp_path / "image"
    image.write_bytes(IMAGE)
    with image.open("rb") as file:
        await driver.mounter.mount_file(file.fileno())
    assert len(loop_devices(image)) == 1
    jail.kill()
    for _ in range(250):
        await asyncio.sleep(0.02)
        if not loop_devices(image):
            break
    assert not loop_devices(image)
    jail.start()
    while not driver.connected:
        await asyncio.sleep(0.02)
    await driver.close()
    jail.stop()


async def test_another_service_finds_nothing_of_the_first(jail: RunningJail, driver: ContainerDriver) -> None:
    volume = await driver.mounter.open_volume()
    server = small.SmallServer(volume.device, IMAGE)
    await driver.mounter.mount_volume(volume.volume_id)
    second = await jail.driver()  # takes over: whatever the first made is destroyed
    assert await ended(server)
    await second.close()
