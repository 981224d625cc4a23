"""The qemu driver: a VM a sandbox, QEMU itself confined in a sandbox of the container driver.

So the VMM's uid, namespaces, control group, seccomp filter, freezing, killing, and what is left of an earlier
life, are the jail's business here too. It never knows functions, and packs no image itself.
"""

import asyncio
import itertools
import os
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from stoker.core.errors import SandboxCreateError, SandboxError
from stoker.sandbox.driver import (
    DriverInfo,
    MountPoint,
    MountSource,
    Sandbox,
    SandboxDriver,
    SandboxSpec,
)
from stoker.sandbox.guest.contract import PLACE_OF, Place
from stoker.sandbox.qemu.box import Box
from stoker.sandbox.qemu.command import (
    PROGRAM,
    outer_limits,
    vm_launch,
    vm_memory_mb,
)
from stoker.sandbox.qemu.machine import QemuSandbox

BOOT_S = 60.0
"""From QEMU's start to the guest's hello; two seconds of a CPU that nobody else wants."""

PackImage = Callable[[MountSource, bool], Awaitable[Path]]
"""An EROFS file with what the source holds, on the file system of the driver's folder; it may be removed once
it was linked. The second argument: whether owners are kept (they are an image's own)."""

ScratchImage = Callable[[int], Awaitable[Path | None]]
"""A file with an empty ext4 of that many MB; None: this host cannot make one."""


class GuestFolder(msgspec.Struct, frozen=True):
    """A verified guest: the folder with ``kernel``, ``initramfs`` and ``root.erofs``, open to others."""

    folder: Path
    version: str


class QemuDriver:
    """Sandboxes that are VMs. ``close`` and ``start`` go through to the driver that confines QEMU."""

    def __init__(
        self, jailed: SandboxDriver, guest: GuestFolder, folder: Path, pack: PackImage, scratch: ScratchImage
    ) -> None:
        self._jailed = jailed
        self._guest = guest
        self._folder = folder
        self._pack = pack
        self._scratch = scratch
        self._names = itertools.count(1)
        self._sandboxes: set[QemuSandbox] = set()
        self._host_khz = host_khz()
        self._boots = asyncio.Semaphore(os.cpu_count() or 1)
        """More at one time only take longer each."""
        self._started = False

    async def start(self) -> DriverInfo:
        """Start what confines the VMMs, and remove what an earlier life left of their files.

        Raises:
            SandboxError: QEMU is not here.
        """
        if not os.path.exists(PROGRAM):  # noqa: ASYNC240  (local, once)
            raise SandboxError(f"{PROGRAM} is not here: apt-get install qemu-system-x86")
        info = await self._jailed.start()
        if not self._started:
            self._started = True
            await asyncio.to_thread(_empty, self._folder)
        return DriverInfo("qemu", (*info.degraded, *DEGRADED), pools=False)

    async def create(self, spec: SandboxSpec) -> QemuSandbox:
        """Boot a VM and mount what it starts with.

        Raises:
            SandboxCreateError: nothing of the attempt is left.
        """
        if spec.is_zygote or spec.zygote:
            raise SandboxCreateError("a VM cannot be forked from a zygote")
        images = await self._images(spec)
        box = Box(self._folder / f"vm-{next(self._names)}")
        try:
            box.furnish(images)
            jailed = await self._jailed.create(_outer(spec, box, self._guest))
        except OSError as problem:
            box.remove()
            raise SandboxCreateError(f"the VM's files: {problem}") from problem
        except BaseException:
            box.remove()
            raise
        sandbox = QemuSandbox(spec, jailed, box, self._pack, self._sandboxes.discard)
        self._sandboxes.add(sandbox)
        await self._boot(sandbox, spec)
        return sandbox

    async def _boot(self, sandbox: QemuSandbox, spec: SandboxSpec) -> None:
        command = vm_launch(
            memory_mb=vm_memory_mb(spec.limits.memory_mb), host_khz=self._host_khz, network=spec.egress
        )
        try:
            async with self._boots, asyncio.timeout(BOOT_S):
                await sandbox.boot(command)
        except BaseException as problem:
            said = sandbox.last_words()
            await sandbox.destroy()
            if isinstance(problem, TimeoutError):
                raise SandboxCreateError(f"the VM did not boot within {BOOT_S:g} s {said}") from problem
            if isinstance(problem, SandboxError):
                raise SandboxCreateError(f"the VM did not boot: {problem} {said}".strip()) from problem
            raise

    async def _images(self, spec: SandboxSpec) -> dict[Place, Path]:
        images: dict[Place, Path] = {}
        if (scratch := await self._scratch(spec.limits.tmp_mb)) is not None:
            images[Place.SCRATCH] = scratch
        for point, source in spec.mounts.items():
            try:
                images[PLACE_OF[point]] = await self._pack(source, point is MountPoint.ROOT)
            except (OSError, SandboxError) as problem:
                raise SandboxCreateError(f"{point.value}: {problem}") from problem
        return images

    async def close(self) -> None:
        """Destroy every VM, then close what confined them."""
        await asyncio.gather(*(sandbox.destroy() for sandbox in tuple(self._sandboxes)))
        await self._jailed.close()

    @property
    def sandboxes(self) -> frozenset[Sandbox]:
        """Those that live."""
        return frozenset(self._sandboxes)


DEGRADED = (
    "software emulation: much slower than the CPU itself, and never held below one core",
    "pre-warmed pools: a VM's memory is fixed when it boots, so none are made",
    "memory: a VM cannot grow beyond what it was made with",
    "/tmp: its size is fixed when the VM boots",
)


def _outer(spec: SandboxSpec, box: Box, guest: GuestFolder) -> SandboxSpec:
    """The sandbox that QEMU runs in."""
    return SandboxSpec(
        spec.sandbox_id,
        outer_limits(spec.limits),
        {MountPoint.TASK: box.devices, MountPoint.RUNTIME: guest.folder},
        spec.egress,
    )


def host_khz(cpuinfo: Path = Path("/proc/cpuinfo")) -> int:
    """The rate of the CPU's clock counter, as far as the kernel shows it; 0 when it does not."""
    for line in cpuinfo.read_text().splitlines():
        if line.startswith("cpu MHz"):
            return int(float(line.partition(":")[2]) * 1000)
    return 0


def _empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o755, parents=True)


__all__ = ["GuestFolder", "PackImage", "QemuDriver", "ScratchImage", "host_khz"]
