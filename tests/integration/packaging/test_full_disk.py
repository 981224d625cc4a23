"""A disk that is full, and a quota that is used up: said as what they are, and nothing half there."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stoker.core.disk import DiskFull
from stoker.packaging.packers import PACKER_COMMAND, PackerPool
from stoker.services.object_store import ObjectStoreFull
from stoker.services.outages import outage
from stoker.store.local_object_store import LocalObjectStore
from tests.security.archives.zips import archive

NOBODY = 65534
AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
FULL, QUOTA = "no space is left on the disk", "the disk quota is used up"
BTRFS_BYTES = 128 * 1024**2
"""The least that it makes a file system of."""

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root and setpriv to fill a disk"
)


def run(*command: str | Path) -> None:
    """Or skip, saying what is missing."""
    if shutil.which(str(command[0])) is None:
        pytest.skip(f"missing on this host: {command[0]}")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"{command[0]} cannot: {done.stderr.strip()}")


@contextmanager
def full_tmpfs(folder: Path) -> Iterator[Path]:
    run("mount", "-t", "tmpfs", "-o", "size=1m", "none", folder)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@contextmanager
def limited_btrfs(folder: Path) -> Iterator[Path]:
    image, below = folder.with_name("image"), folder / "limited"
    with image.open("wb") as file:
        file.truncate(BTRFS_BYTES)
    run("mkfs.btrfs", "-q", image)
    run("mount", "-o", "loop", image, folder)
    try:
        run("btrfs", "quota", "enable", folder)
        run("btrfs", "subvolume", "create", below)
        run("btrfs", "qgroup", "limit", "1M", below)
        yield below
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(params=[FULL, QUOTA])
def full(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder of nobody's with room for 1 MB, and what is said when that is gone."""
    folder = tmp_path / "small"
    folder.mkdir()
    for above in folder.parents[: len(folder.parents) - 2]:
        above.chmod(0o755)
    with (full_tmpfs if request.param == FULL else limited_btrfs)(folder) as mounted:
        os.chown(mounted, NOBODY, NOBODY)
        yield mounted, request.param


async def test_unpacking(full: tuple[Path, str], tmp_path: Path) -> None:
    folder, words = full
    packed = tmp_path / "a.zip"
    packed.write_bytes(archive(*((str(number), os.urandom(200_000)) for number in range(10))))
    pool = PackerPool(command=[*AS_NOBODY, *PACKER_COMMAND, str(folder)])
    below = folder / "tree"
    below.mkdir()
    os.chown(below, NOBODY, NOBODY)
    directory, file = os.open(below, os.O_RDONLY), os.open(packed, os.O_RDONLY)
    try:
        with pytest.raises(DiskFull, match=words) as refused:
            await pool.unpack(file, directory, 4_000_000)
    finally:
        os.close(directory)
        os.close(file)
        await pool.close()
    assert outage(refused.value) == words


async def test_storing(full: tuple[Path, str]) -> None:
    folder, words = full
    store = LocalObjectStore(folder / "objects")
    await store.start()
    with pytest.raises(ObjectStoreFull, match=words) as refused:
        await store.put("a/b", bytes(2_000_000))
    assert outage(refused.value) == words
    assert await store.size_bytes("a/b") is None
