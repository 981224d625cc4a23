"""The files behind a VM's block devices: the guest's own, empty ones, and a scratch disk for each VM.

A file must have a name while the jail binds it into the VM's root; the scratch disk's goes right after.
"""

import asyncio
import os
import shutil
import stat
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from stoker.core.errors import SandboxCreateError
from stoker.sandbox.driver import MountPoint, MountSource
from stoker.sandbox.guest.contract import PLACE_OF, Place

BLOCK_BYTES = 4096
MKFS_S = 30.0
TEMPLATES_MAX = 64
"""Scratch disks of so many sizes are kept as templates."""


class GuestFiles(msgspec.Struct, frozen=True):
    """What ``stoker guest build`` made. ``version`` names all of it."""

    kernel: Path
    initrd: Path
    root: Path
    version: str


class VmFiles:
    """Owns a folder, mode 0700: VMs alone see what is in it, each its own, through the jail."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._empty = folder / "empty"
        self._templates: dict[int, Path] = {}
        self._making = asyncio.Lock()
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
        """A sparse ext4 of that size for one VM; without mkfs.ext4 an empty file, and /tmp is memory.

        Raises:
            SandboxCreateError: the disk is full, or mkfs failed.
        """
        self._number += 1
        path = self._folder / f"scratch-{self._number}"
        try:
            async with self._making:
                template = await self._template(tmp_mb)
            await asyncio.to_thread(_copy_sparse, template, path)
            path.chmod(0o666)
        except OSError as problem:
            path.unlink(missing_ok=True)
            raise SandboxCreateError(f"the scratch disk: {problem.strerror}") from problem
        return path

    async def _template(self, tmp_mb: int) -> Path:
        if tmp_mb in self._templates:
            return self._templates[tmp_mb]
        mkfs = shutil.which("mkfs.ext4", path="/usr/sbin:/sbin:/usr/bin:/bin")
        if mkfs is None:
            return self._empty
        if len(self._templates) >= TEMPLATES_MAX:
            self._templates.pop(next(iter(self._templates))).unlink()
        path = self._folder / f"template-{tmp_mb}"
        with path.open("wb") as made:
            made.truncate(tmp_mb << 20)
        options = ("-q", "-F", "-m", "0", "-O", "^has_journal", "-E", "lazy_itable_init=1,root_owner=0:0")
        process = await asyncio.create_subprocess_exec(
            mkfs, *options, str(path), stderr=asyncio.subprocess.PIPE
        )
        _, said = await asyncio.wait_for(process.communicate(), MKFS_S)
        if process.returncode:
            path.unlink()
            raise SandboxCreateError(f"mkfs.ext4: {said.decode(errors='replace')[:200]}")
        self._templates[tmp_mb] = path
        return path

    @contextmanager
    def opened(
        self, guest: GuestFiles, mounts: Mapping[MountPoint, MountSource], scratch: Path
    ) -> Generator[list[int]]:
        """Descriptors in the order of the VM's files: kernel, initrd, then the drives in theirs."""
        drives: dict[Place, MountSource] = dict.fromkeys(Place, self._empty)
        drives[Place.ROOT], drives[Place.SCRATCH] = guest.root, scratch
        drives.update({PLACE_OF[point]: source for point, source in mounts.items()})
        fds: list[int] = []
        try:
            fds.extend(open_image(source) for source in (guest.kernel, guest.initrd))
            fds.extend(open_image(drives[place], writable=place is Place.SCRATCH) for place in Place)
            yield fds
        finally:
            for fd in fds:
                os.close(fd)


def open_image(source: MountSource, *, writable: bool = False) -> int:
    """A descriptor of a file system image, or of a kernel; the caller closes it.

    Raises:
        SandboxCreateError: it is not there, or no file.
    """
    if not isinstance(source, Path):
        raise SandboxCreateError("a micro-VM takes file system images as files, not as the jail's mounts")
    try:
        fd = os.open(source, (os.O_RDWR if writable else os.O_RDONLY) | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as problem:
        raise SandboxCreateError(f"{source}: {problem.strerror}") from problem
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise SandboxCreateError(f"{source}: a micro-VM takes file system images, not folders")


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
