"""EROFS files made of folders and of mounted images, for VMs: each made once, the oldest removed first.

They are plain: the folder is emptied at the start and at the end. Whoever uses a file links it.
"""

import asyncio
import os
import shutil
import subprocess
from collections import OrderedDict
from pathlib import Path
from typing import Final

from stoker.packaging.guest.folder_image import write_folder_image
from stoker.services.volumes import MountedTree, MountSource

CACHE_BYTES_MAX: Final = 4 << 30
PACKING_MAX: Final = 2
"""Images written at one time, in threads."""
SCRATCH_SIZES_MAX: Final = 64
EXT4_OPTIONS: Final = (
    "-q", "-F", "-m", "0", "-O", "^has_journal", "-E", "lazy_itable_init=1,root_owner=0:0",
)  # fmt: skip

_Key = tuple[int, ...]


class VmImages:
    """Belongs to the event loop it is used on."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._images: OrderedDict[_Key, tuple[Path, int]] = OrderedDict()
        self._making: dict[_Key, asyncio.Future[Path]] = {}
        self._slots = asyncio.Semaphore(PACKING_MAX)
        self._scratch: dict[int, Path] = {}
        self._formatting = asyncio.Lock()
        self._mkfs = shutil.which("mkfs.ext4", path="/usr/sbin:/sbin:/usr/bin")
        self._count = 0

    async def start(self) -> None:
        """Empty the folder."""
        await asyncio.to_thread(_emptied, self._folder)

    async def close(self) -> None:
        """Remove the folder."""
        await asyncio.to_thread(shutil.rmtree, self._folder, True)

    def forget_mounts(self) -> None:
        """What was mounted is gone: its numbers may come again for something else."""
        for key in [key for key in self._images if key[0]]:
            path, _ = self._images.pop(key)
            path.unlink(missing_ok=True)

    async def pack(self, source: MountSource, keep_owners: bool) -> Path:
        """A file with what the source holds.

        Raises:
            OSError, StokerError: it cannot be read, or is no tree that an image can hold.
        """
        key = _key_of(source, keep_owners)
        if key in self._images:
            self._images.move_to_end(key)
            return self._images[key][0]
        if key not in self._making:
            self._making[key] = asyncio.ensure_future(self._make(key, source, keep_owners))
        try:
            return await asyncio.shield(self._making[key])
        finally:
            if key in self._making and self._making[key].done():
                del self._making[key]

    async def _make(self, key: _Key, source: MountSource, keep_owners: bool) -> Path:
        self._count += 1
        path = self._folder / f"{self._count}.erofs"
        async with self._slots:
            size = await asyncio.to_thread(_written, path, source, keep_owners)
        self._images[key] = (path, size)
        while sum(each for _, each in self._images.values()) > CACHE_BYTES_MAX and len(self._images) > 1:
            oldest, _ = self._images.popitem(last=False)[1]
            oldest.unlink(missing_ok=True)
        return path

    async def scratch(self, size_mb: int) -> Path | None:
        """A sparse file with an empty ext4; None where there is no mkfs.ext4."""
        if self._mkfs is None:
            return None
        async with self._formatting:
            if size_mb not in self._scratch:
                if len(self._scratch) >= SCRATCH_SIZES_MAX:
                    self._scratch.pop(next(iter(self._scratch))).unlink(missing_ok=True)
                path = self._folder / f"scratch-{size_mb}.ext4"
                await asyncio.to_thread(_formatted, self._mkfs, path, size_mb)
                self._scratch[size_mb] = path
            return self._scratch[size_mb]


def _key_of(source: MountSource, keep_owners: bool) -> _Key:
    if isinstance(source, MountedTree):
        status = os.fstat(source.folder)
        return (1 + source.mount_id, status.st_dev, status.st_ino, int(keep_owners))
    status = os.stat(source)
    return (0, status.st_dev, status.st_ino, status.st_ctime_ns, int(keep_owners))


def _written(path: Path, source: MountSource, keep_owners: bool) -> int:
    image = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        tree = source.folder if isinstance(source, MountedTree) else source
        size = write_folder_image(tree, image, keep_owners=keep_owners)
        os.fchmod(image, 0o644)
        return size
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(image)


def _formatted(mkfs: str, path: Path, size_mb: int) -> None:
    building = path.with_suffix(".new")
    with building.open("wb") as file:
        file.truncate(size_mb << 20)
    try:
        subprocess.run(
            [mkfs, *EXT4_OPTIONS, building],
            check=True,
            capture_output=True,
        )
    except subprocess.CalledProcessError as problem:
        building.unlink(missing_ok=True)
        raise OSError(f"mkfs.ext4: {problem.stderr.decode('utf-8', 'replace').strip()[:200]}") from problem
    building.chmod(0o644)
    building.rename(path)


def _emptied(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True)
