"""The driver that runs sandboxes in micro-VMs, put together."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

from stoker.app.configuration import ConfigurationError
from stoker.core.configuration import Settings
from stoker.packaging.guest.guests import Guests, GuestUnusable
from stoker.packaging.guest.image_cache import VmImages
from stoker.sandbox.container import ContainerDriver
from stoker.sandbox.dns_resolvers import Resolvers
from stoker.sandbox.firecracker.driver import FirecrackerDriver
from stoker.sandbox.firecracker.files import GuestFiles
from stoker.sandbox.qemu.driver import GuestFolder, QemuDriver

QEMU, FIRECRACKER = "qemu", "firecracker"
VM_ISOLATIONS = (QEMU, FIRECRACKER)


async def open_vms(
    settings: Settings, jailed: ContainerDriver, stack: AsyncExitStack
) -> QemuDriver | FirecrackerDriver:
    """The driver that ``isolation`` names, its guest verified; ``stack`` removes what it caches.

    Raises:
        ConfigurationError: there is no guest to boot, it is damaged, or no VMM is configured.
    """
    data = Path(settings.data)
    guests = Guests(data)
    try:
        guest = await asyncio.to_thread(guests.verified)
    except GuestUnusable as problem:
        raise ConfigurationError(f"configuration: isolation {settings.isolation}: {problem}") from problem
    images = VmImages(data / "vms" / "images")
    await images.start()
    stack.push_async_callback(images.close)
    jailed.mounter.on_lost(images.forget_mounts)
    folder, running = guests.folder(guest.version), data / "vms" / "running"
    if settings.isolation == QEMU:
        return QemuDriver(jailed, GuestFolder(folder, guest.version), running, images.pack, images.scratch)
    return FirecrackerDriver(
        jailed,
        GuestFiles(folder / "kernel", folder / "initramfs", folder / "root.erofs", guest.version),
        running,
        pack=images.pack,
        scratch=images.scratch,
        name_servers=Resolvers().current,
    )
