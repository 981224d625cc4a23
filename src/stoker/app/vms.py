"""The driver that runs sandboxes in micro-VMs, put together."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

from stoker.app.configuration import ConfigurationError
from stoker.core.configuration import Settings
from stoker.packaging.guest.guests import Guests, GuestUnusable
from stoker.packaging.guest.image_cache import VmImages
from stoker.sandbox.container import ContainerDriver
from stoker.sandbox.qemu.driver import GuestFolder, QemuDriver

QEMU = "qemu"


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
