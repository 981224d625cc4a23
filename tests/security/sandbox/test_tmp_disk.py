"""The disk behind every /tmp: one function that fills it, or a host that is full, does not take it from the others."""

import asyncio
import contextlib
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from stoker.core.errors import SandboxCreateError
from stoker.sandbox.container import ContainerDriver
from tests.integration.sandbox.running_jail import RunningJail, create, finish, missing, python, run, shell

DISK_MB = 700
FILL = (
    "import errno, os\nfd = os.open('/tmp/big', os.O_CREAT | os.O_WRONLY)\nwritten = 0\n"
    "try:\n  while True: written += os.write(fd, bytes(1 << 20)); os.fsync(fd)\n"
    "except OSError as e: print(errno.errorcode[e.errno], written >> 20)"
)
"""Prints with what error, after how many megabytes."""


class SmallDisk(RunningJail):
    """A jail whose state folder is on a disk of its own of DISK_MB."""

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def start(self) -> None:
        self.state.mkdir(mode=0o700)
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m,mode=0700", "small-disk", self.state], check=True
        )
        super().start()

    def restart(self) -> None:
        super().start()

    def end(self) -> None:
        assert self.process
        self.process.terminate()
        self.process.wait(20)
        subprocess.run(["umount", "--lazy", self.state], check=True)
        shutil.rmtree(self.folder)


@pytest.fixture
def jail() -> Iterator[SmallDisk]:
    if missing():
        pytest.skip(missing())
    small = SmallDisk()
    small.start()
    yield small
    small.end()


@pytest.fixture
async def driver(jail: SmallDisk) -> AsyncIterator[ContainerDriver]:
    connected = await jail.driver()
    if "btrfs" not in (await run(connected, shell("grep ' /tmp ' /proc/self/mounts"))).output:
        pytest.skip("/tmp is not on btrfs here: mkfs.btrfs and a kernel from 6.7 on are needed")
    yield connected
    await connected.close()


async def test_a_full_pool_refuses_new_sandboxes_and_recovers(driver: ContainerDriver) -> None:
    hogs = [await create(driver) for _ in range(3)]
    for hog in hogs:
        await hog.launch(python(FILL))
        await asyncio.wait_for(hog.wait(), 60)
        assert os.read(hog.output, 100).split()[0] in (b"EDQUOT", b"ENOSPC")
    with pytest.raises(SandboxCreateError, match="taking /tmp: No space left"):
        await create(driver)
    for hog in hogs:
        await hog.destroy()
    for _ in range(100):  # it comes back bit by bit
        with contextlib.suppress(SandboxCreateError):
            if "wrote" in (await run(driver, shell("head -c 100M /dev/zero > /tmp/x && echo wrote"))).output:
                return
        await asyncio.sleep(0.1)
    raise AssertionError("the space of destroyed sandboxes did not come back")


async def test_a_full_host_stops_the_writer_and_breaks_nothing(
    driver: ContainerDriver, jail: SmallDisk
) -> None:
    """The image is sparse: written to without room behind it, btrfs would turn read-only for everybody."""
    hog, neighbour = await create(driver), await create(driver)
    (jail.state / "others").write_bytes(bytes(400 << 20))
    await asyncio.sleep(1.6)  # the jail looks at least every second and a half
    await hog.launch(python(FILL))
    await asyncio.wait_for(hog.wait(), 60)
    error, written_mb = os.read(hog.output, 100).split()
    assert (error, 100 < int(written_mb) < 300) == (b"EDQUOT", True)
    await hog.destroy()
    await neighbour.launch(shell("until (echo fine > /tmp/x) 2>/dev/null; do sleep 0.1; done; cat /tmp/x"))
    assert (await finish(neighbour)).output == "fine\n"


async def test_a_pool_that_failed_ends_the_jail_to_be_made_anew(
    driver: ContainerDriver, jail: SmallDisk
) -> None:
    writer = await create(driver)
    await writer.launch(shell("while :; do head -c 60M /dev/zero > /tmp/x; rm /tmp/x; done"))
    await asyncio.sleep(0.5)
    with contextlib.suppress(OSError), (jail.state / "others").open("wb", buffering=0) as others:
        while True:  # faster than anybody could look
            others.write(bytes(1 << 20))
    assert jail.process
    for _ in range(300):
        if jail.process.poll() is not None:
            break
        await asyncio.sleep(0.1)
    assert jail.process.poll() == 1, "the pool withstood, or the jail went on with one that is read-only"
    assert "the disk behind /tmp failed" in jail.log()
    (jail.state / "others").unlink()
    jail.restart()
    for _ in range(100):
        with contextlib.suppress(SandboxCreateError):
            assert (await run(driver, shell("echo fine > /tmp/x && cat /tmp/x"))).output == "fine\n"
            return
        await asyncio.sleep(0.1)
    raise AssertionError("no sandbox after the jail started again")
