"""Every image mounter behaves alike: one suite over the jail's and the fake."""

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest

from stoker.sandbox.fake_mounter import FakeMounter
from stoker.services.volumes import ImageMounter, MountRefused
from tests.integration.sandbox.running_jail import RunningJail
from tests.integration.sandbox.running_jail import missing as no_jail
from tests.integration.volumes import small

FILES = {"hello.txt": b"hello", "big": small.content_of(3_000_000)}


class Mounting(NamedTuple):
    """A mounter, and an image that shows FILES."""

    mounter: ImageMounter
    image: Path


@pytest.fixture(params=["fake", "jail", "jail by loop device"])
async def mounting(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Mounting]:
    image = tmp_path / "image"
    image.write_bytes(small.image_of(FILES))
    if request.param == "fake":
        folder = tmp_path / "shown"
        folder.mkdir()
        for name, content in FILES.items():
            (folder / name).write_bytes(content)
        yield Mounting(FakeMounter(folder), image)
        return
    if why := no_jail() or small.missing():
        pytest.skip(why)
    jail = RunningJail("--no-egress", *(["--images-by-loop"] if "loop" in request.param else []))
    jail.start()
    driver = await jail.driver()
    yield Mounting(driver.mounter, image)
    await driver.close()
    jail.stop()


def read(folder: int, name: str) -> bytes:
    with open(name, "rb", opener=lambda path, flags: os.open(path, flags, dir_fd=folder)) as file:
        return file.read()


async def test_shows_the_image_of_a_file(mounting: Mounting) -> None:
    with mounting.image.open("rb") as image:
        tree = await mounting.mounter.mount_file(image.fileno())
    mounting.image.unlink()
    assert {name: read(tree.folder, name) for name in FILES} == FILES
    with pytest.raises(FileNotFoundError):
        os.stat("other", dir_fd=tree.folder)
    await mounting.mounter.unmount(tree.mount_id)


async def test_two_mounts_of_one_image_are_two(mounting: Mounting) -> None:
    with mounting.image.open("rb") as image:
        first, second = [await mounting.mounter.mount_file(image.fileno()) for _ in range(2)]
    assert first.mount_id != second.mount_id
    await mounting.mounter.unmount(first.mount_id)
    assert read(second.folder, "hello.txt") == b"hello"
    await mounting.mounter.unmount(second.mount_id)
    await mounting.mounter.unmount(second.mount_id)  # again: nothing happens


async def test_shows_the_image_of_a_volume(mounting: Mounting) -> None:
    volume = await mounting.mounter.open_volume()
    server = _serve(mounting, volume.device)
    tree = await mounting.mounter.mount_volume(volume.volume_id)
    assert tree.mount_id == volume.volume_id
    assert {name: read(tree.folder, name) for name in FILES} == FILES
    await mounting.mounter.unmount(tree.mount_id)
    server.close()


async def test_refuses_what_is_no_file(mounting: Mounting, tmp_path: Path) -> None:
    folder = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(MountRefused):
        await mounting.mounter.mount_file(folder)
    os.close(folder)


async def test_refuses_a_volume_that_is_mounted_or_gone(mounting: Mounting) -> None:
    volume = await mounting.mounter.open_volume()
    server = _serve(mounting, volume.device)
    await mounting.mounter.mount_volume(volume.volume_id)
    with pytest.raises(MountRefused):
        await mounting.mounter.mount_volume(volume.volume_id)
    await mounting.mounter.unmount(volume.volume_id)
    with pytest.raises(MountRefused):
        await mounting.mounter.mount_volume(volume.volume_id)
    await mounting.mounter.abort_volume(volume.volume_id)  # of one that is gone: nothing happens
    server.close()


def _serve(mounting: Mounting, device: int) -> small.SmallServer:
    if isinstance(mounting.mounter, FakeMounter):
        spare, _ = os.pipe()
        os.close(device)
        device = spare
    return small.SmallServer(device, mounting.image.read_bytes())
