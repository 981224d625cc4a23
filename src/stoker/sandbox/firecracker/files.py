"""The files behind a VM's block devices: the guest's own, empty ones, packed folders, a scratch disk.

A file must have a name while the jail binds it into the VM's root; the scratch disk's goes right after.
"""

import asyncio
import os
import shutil
import stat
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from stoker.core.errors import SandboxCreateError, SandboxError, StokerError
from stoker.sandbox.driver import MountPoint, MountSource
from stoker.sandbox.guest.contract import PLACE_OF, Place

BLOCK_BYTES = 4096

PackImage = Callable[[MountSource, bool], Awaitable[Path]]
"""An EROFS file with what a folder or a mounted tree holds; it may be removed once it was opened. The second
argument: whether owners are kept (they are an image's own)."""

ScratchImage = Callable[[int], Awaitable[Path | None]]
"""A file with an empty ext4 of that many MB, to be copied; None: this host cannot make one."""


class GuestFiles(msgspec.Struct, frozen=True):
    """What ``stoker guest build`` made. ``version`` names all of it."""

    kernel: Path
    initrd: Path
    root: Path
    version: str


class VmFiles:
    """Owns a folder, mode 0700: VMs alone see what is in it, each its own, through the jail."""

    def __init__(self, folder: Path, pack: PackImage, scratch: ScratchImage) -> None:
        self._folder = folder
        self._empty = folder / "empty"
        self._pack = pack
        self._scratch_image = scratch
        self._number = 0

    def open(self) -> None:
        """Start with nothing: what an earlier life left is removed."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(mode=0o700, parents=True)
        self._empty.write_bytes(bytes(BLOCK_BYTES))
        self._empty.chmod(0o444)

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self._folder, ignore_errors=True)

    async def scratch(self, tmp_mb: int) -> Path:
        """A sparse ext4 of that size for one VM; where none can be made an empty file, and /tmp is memory.

        Raises:
            SandboxCreateError: the disk is full, or mkfs failed.
        """
        self._number += 1
        path = self._folder / f"scratch-{self._number}"
        try:
            template = await self._scratch_image(tmp_mb) or self._empty
            await asyncio.to_thread(_copy_sparse, template, path)
            path.chmod(0o666)
        except OSError as problem:
            path.unlink(missing_ok=True)
            raise SandboxCreateError(f"the scratch disk: {problem}") from problem
        return path

    async def open_all(
        self, guest: GuestFiles, mounts: Mapping[MountPoint, MountSource], scratch: Path
    ) -> list[int]:
        """Descriptors in the order of the VM's files: kernel, initrd, then the drives in theirs.

        Raises:
            SandboxCreateError: one of them cannot be had.
        """
        drives: dict[Place, tuple[MountSource, MountPoint | None]] = dict.fromkeys(Place, (self._empty, None))
        drives[Place.ROOT], drives[Place.SCRATCH] = (guest.root, None), (scratch, None)
        drives.update({PLACE_OF[point]: (source, point) for point, source in mounts.items()})
        fds: list[int] = []
        try:
            fds.extend(_open_file(path) for path in (guest.kernel, guest.initrd))
            for place in Place:
                source, point = drives[place]
                if place is Place.SCRATCH:
                    fds.append(_open_file(scratch, writable=True))
                else:
                    fds.append(await self.open_source(source, point))
        except BaseException as problem:
            close_all(fds)
            if isinstance(problem, SandboxError) and not isinstance(problem, SandboxCreateError):
                raise SandboxCreateError(str(problem)) from problem
            raise
        return fds

    async def open_source(self, source: MountSource, point: MountPoint | None) -> int:
        """A descriptor of an image file, or of one made of a folder; the caller closes it.

        Raises:
            SandboxError: it is not there, or cannot be packed.
        """
        if isinstance(source, Path) and source.is_file():
            return _open_file(source)
        try:
            return _open_file(await self._pack(source, point is MountPoint.ROOT))
        except (OSError, StokerError) as problem:
            raise SandboxError(f"{source}: {problem}") from problem


def close_all(fds: Iterable[int]) -> None:
    """Give the descriptors back."""
    for fd in fds:
        os.close(fd)


def _open_file(path: Path, *, writable: bool = False) -> int:
    """The VMM's user is another: what we own becomes readable, in folders that nobody else enters."""
    try:
        fd = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as problem:
        raise SandboxCreateError(f"{path}: {problem.strerror}") from problem
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        os.close(fd)
        raise SandboxCreateError(f"{path}: not a file")
    if not status.st_mode & stat.S_IROTH and status.st_uid == os.geteuid():
        os.fchmod(fd, stat.S_IMODE(status.st_mode) | stat.S_IROTH)
    return fd


def _copy_sparse(source: Path, target: Path) -> None:
    """Only what holds data is copied."""
    with source.open("rb") as old, target.open("xb") as new:
        size = os.fstat(old.fileno()).st_size
        new.truncate(size)
        at = 0
        with suppress(OSError):  # ENXIO: nothing but holes from here on
            while at < size:
                at = os.lseek(old.fileno(), at, os.SEEK_DATA)
                end = os.lseek(old.fileno(), at, os.SEEK_HOLE)
                while at < end:
                    data = os.pread(old.fileno(), min(1 << 20, end - at), at)
                    at += os.pwrite(new.fileno(), data, at)
