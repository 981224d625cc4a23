"""Micro-VMs of this host: building and checking guests, and the driver that runs sandboxes in them."""

import asyncio
import os
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

from stoker.app.configuration import ConfigurationError
from stoker.app.launch import service_identity
from stoker.app.native import native_directory
from stoker.core.configuration import Settings
from stoker.packaging.guest.guests import Guest, Guests, GuestUnusable
from stoker.packaging.guest.image_cache import VmImages
from stoker.packaging.guest.kernel_package import fetch
from stoker.sandbox.container import ContainerDriver
from stoker.sandbox.qemu.driver import GuestFolder, QemuDriver

QEMU = "qemu"
ISOLATIONS = ("container", QEMU)


def build_guest(
    data: Path, *, kernel: str, sha256: str, root: Path | None, on_step: Callable[[str], None]
) -> Guest:
    """Build the guest that VMs boot from the next start on. Blocking, some seconds.

    Raises:
        StokerError, OSError: nothing changed.
    """
    native = native_directory()
    content, name = fetch(kernel, sha256)
    owner = _owner(data)
    guest = Guests(data).build(
        content,
        kernel_name=name,
        init=native / "stoker-guest",
        function_init=native / "stoker-init",
        root=root,
        on_step=on_step,
    )
    if owner is not None:
        for path in (data, *(data / "guests").rglob("*"), data / "guests"):
            os.chown(path, *owner, follow_symlinks=False)
    return guest


def _owner(data: Path) -> tuple[int, int] | None:
    """Root builds for the service's account: a data folder of root's is none that the service accepts."""
    if os.geteuid() != 0:
        return None
    status = os.stat(data) if data.exists() else None
    if status is not None and status.st_uid:
        return status.st_uid, status.st_gid
    return service_identity(Settings())


def built_guests(data: Path) -> tuple[str, list[Guest]]:
    """The version that VMs boot, and every guest.

    Raises:
        GuestUnusable: the lock file is damaged.
    """
    lock = Guests(data).lock()
    return lock.current, list(lock.guests.values())


def verified_guest(data: Path, version: str = "") -> Guest:
    """Raises GuestUnusable: there is none, or a byte of it changed."""
    return Guests(data).verified(version)


async def open_vms(settings: Settings, jailed: ContainerDriver, stack: AsyncExitStack) -> QemuDriver:
    """The qemu driver, its guest verified; ``stack`` removes what it caches.

    Raises:
        ConfigurationError: there is no guest to boot, or it is damaged.
    """
    data = Path(settings.data)
    guests = Guests(data)
    try:
        guest = await asyncio.to_thread(guests.verified)
    except GuestUnusable as problem:
        raise ConfigurationError(f"configuration: isolation qemu: {problem}") from problem
    images = VmImages(data / "vms" / "images")
    await images.start()
    stack.push_async_callback(images.close)
    jailed.mounter.on_lost(images.forget_mounts)
    folder = guests.folder(guest.version)
    return QemuDriver(
        jailed,
        GuestFolder(folder, guest.version),
        data / "vms" / "running",
        images.pack,
        images.scratch,
    )
