"""Guests on this host: built into a folder each, named by their content, with every digest in a lock file.

Blocking: for commands and threads.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from stoker.core.errors import StokerError
from stoker.packaging.guest.debian_package import files_of
from stoker.packaging.guest.folder_image import write_folder_image
from stoker.packaging.guest.host_root import write_host_root
from stoker.packaging.guest.initramfs import initramfs, named
from stoker.packaging.guest.vmlinux import KernelUnusable, vmlinux_of

LOCK: Final = "lock.json"
KERNEL: Final = "kernel"
INITRAMFS: Final = "initramfs"
ROOT: Final = "root.erofs"
FILES: Final = (KERNEL, INITRAMFS, ROOT)
VERSION_DIGITS: Final = 16
_READ_BYTES: Final = 1 << 20


class GuestUnusable(StokerError):
    """There is no guest, or it is not what was built; the message says what to do."""


class Guest(msgspec.Struct, frozen=True):
    """One built guest: its digests (SHA-256 in hexadecimal, by file) and where its kernel came from."""

    version: str
    digests: dict[str, str]
    sizes: dict[str, int]
    kernel: str


class Lock(msgspec.Struct, frozen=True):
    """Every guest of a host, and the one that VMs boot."""

    current: str = ""
    guests: dict[str, Guest] = {}


class Guests:
    """The folder ``guests`` of a data folder."""

    def __init__(self, data: Path) -> None:
        self._home = data / "guests"

    def lock(self) -> Lock:
        """What was built here.

        Raises:
            GuestUnusable: the lock file is damaged.
        """
        try:
            return msgspec.json.decode((self._home / LOCK).read_bytes(), type=Lock)
        except FileNotFoundError:
            return Lock()
        except (OSError, msgspec.DecodeError) as problem:
            raise GuestUnusable(f"{self._home / LOCK}: {problem}; build the guest again") from problem

    def folder(self, version: str) -> Path:
        """Where a guest's files are."""
        return self._home / version

    def verified(self, version: str = "") -> Guest:
        """The current guest, or the one named, after every byte was compared with the lock file.

        Raises:
            GuestUnusable: there is none, or a file is not what was built.
        """
        lock = self.lock()
        guest = lock.guests.get(version or lock.current)
        if guest is None:
            raise GuestUnusable(f"there is no guest {version}".rstrip() + ": run stoker guest build")
        for name in FILES:
            try:
                found = _digest(self.folder(guest.version) / name)
            except OSError as problem:
                raise GuestUnusable(f"guest {guest.version}: {problem}; run stoker guest build") from problem
            if found != guest.digests.get(name):
                raise GuestUnusable(
                    f"guest {guest.version}: {name} is not what was built; run stoker guest build"
                )
        return guest

    def build(
        self,
        package: bytes,
        *,
        kernel_name: str,
        init: Path,
        function_init: Path,
        root: Path | None = None,
        on_step: Callable[[str], None] = lambda _: None,
    ) -> Guest:
        """Build a guest and make it the current one. The same input gives the same files and version.

        ``package``: a Debian package with a kernel and its modules, or a kernel that has built in what it
        needs. ``root``: a folder with a root (mmdebstrap makes one); None: of this host's interpreters.

        Raises:
            GuestUnusable, StokerError, OSError: nothing of it is left.
        """
        self._home.mkdir(mode=0o755, parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=".building-", dir=self._home))
        try:
            on_step("kernel")
            kernel, modules = _kernel_of(package)
            _write(building / KERNEL, kernel)
            _write(building / INITRAMFS, initramfs(init.read_bytes(), function_init.read_bytes(), modules))
            on_step("root")
            _write_root(building / ROOT, root)
            return self._keep(building, kernel_name)
        finally:
            shutil.rmtree(building, ignore_errors=True)

    def _keep(self, building: Path, kernel_name: str) -> Guest:
        digests = {name: _digest(building / name) for name in FILES}
        sizes = {name: (building / name).stat().st_size for name in FILES}
        whole = "".join(f"{name} {digests[name]}\n" for name in FILES)
        version = hashlib.sha256(whole.encode()).hexdigest()[:VERSION_DIGITS]
        building.chmod(0o755)
        target = self.folder(version)
        if target.exists():  # it may be damaged
            target.rename(building.with_name(f"{building.name}-old"))
        building.rename(target)
        shutil.rmtree(building.with_name(f"{building.name}-old"), ignore_errors=True)
        guest = Guest(version, digests, sizes, kernel_name)
        lock = self.lock()
        new = Lock(version, {**lock.guests, version: guest})
        written = self._home / f".{LOCK}.new"
        _write(written, msgspec.json.format(msgspec.json.encode(new, order="deterministic")))
        written.rename(self._home / LOCK)
        return guest


def _kernel_of(package: bytes) -> tuple[bytes, dict[str, bytes]]:
    if not package.startswith(b"!<arch>\n"):
        return vmlinux_of(package), {}
    files = list(files_of(package, lambda path: path.startswith("boot/vmlinuz") or path.endswith(".ko")))
    kernels = [content for path, content in files if path.startswith("boot/vmlinuz")]
    if not kernels:
        raise KernelUnusable("the package holds no kernel (boot/vmlinuz-...)")
    return vmlinux_of(kernels[0]), named((path, code) for path, code in files if path.endswith(".ko"))


def _write_root(path: Path, root: Path | None) -> None:
    image = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        if root is None:
            write_host_root(image)
        else:
            write_folder_image(root, image, keep_owners=True)
        os.fchmod(image, 0o644)
    finally:
        os.close(image)


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0o644)


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_READ_BYTES):
            digest.update(piece)
    return digest.hexdigest()
