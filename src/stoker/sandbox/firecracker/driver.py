"""The firecracker driver: a VM for each sandbox, booted from the guest's files or restored from a snapshot.

Asks the container driver's jail; never knows functions, and never needs a privilege of its own.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from stoker.core.errors import SandboxCreateError, SandboxError
from stoker.sandbox.container import ContainerDriver
from stoker.sandbox.container_protocol import Feature, Handle
from stoker.sandbox.driver import DriverInfo, SandboxSpec
from stoker.sandbox.firecracker import machine as machines
from stoker.sandbox.firecracker import records as fc
from stoker.sandbox.firecracker.faults import VmmError
from stoker.sandbox.firecracker.files import GuestFiles, PackImage, ScratchImage, VmFiles, close_all
from stoker.sandbox.firecracker.machine import Machine, machine_of
from stoker.sandbox.firecracker.metrics import MetricsPipe, VmmCounters, VmmStatistics
from stoker.sandbox.firecracker.sandbox import FirecrackerSandbox
from stoker.sandbox.firecracker.snapshots import SnapshotFiles
from stoker.sandbox.firecracker.vmm import JailedVmm
from stoker.sandbox.guest.contract import PLACE_OF, Place

BOOT_S = 10.0
"""Until a guest has booted and said hello."""
NETWORK_PREFIX_BITS = 18
"""All of the range is on the guest's cable, where the namespace between answers for it."""


class FirecrackerDriver:
    """Sandboxes that are VMs. ``start`` refuses where the jail may not start any."""

    def __init__(
        self,
        jail: ContainerDriver,
        guest: GuestFiles,
        folder: Path,
        *,
        pack: PackImage,
        scratch: ScratchImage,
        version: fc.Version = fc.OLDEST,
        name_servers: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        """``folder`` is the driver's own; ``name_servers`` the host's, as far as sandboxes may ask them."""
        self._jail = jail
        self._guest = guest
        self._files = VmFiles(folder, pack, scratch)
        self._version = version
        self._name_servers = name_servers
        self.sandboxes: set[FirecrackerSandbox] = set()
        """Those not destroyed yet."""
        self._past = VmmCounters()
        self._hung = 0

    async def start(self) -> DriverInfo:
        """Connect, and say what can be enforced.

        Raises:
            SandboxCreateError: this host's jail starts no VMs; its log says why.
        """
        info = await self._jail.start()
        if not self._jail.features & Feature.VMS:
            raise SandboxCreateError(
                "micro-VMs need root, /dev/kvm, firecracker and jailer: see stoker doctor"
            )
        if not self.sandboxes:
            self._files.open()
        return DriverInfo("firecracker", info.degraded, pools=False)

    async def create(self, spec: SandboxSpec) -> FirecrackerSandbox:
        """Boot a VM with its mounts.

        Raises:
            SandboxCreateError: the host refused, or the guest did not come up; nothing is left.
        """
        return await self._make(spec, None)

    async def restore(self, spec: SandboxSpec, snapshot: SnapshotFiles) -> FirecrackerSandbox:
        """A VM that goes on where a snapshot was taken, with randomness, time and address of its own.

        Raises:
            SandboxCreateError: as for ``create``.
        """
        return await self._make(spec, snapshot)

    async def close(self) -> None:
        """Destroy every VM, then close the container driver, whose jail started them."""
        await asyncio.gather(*(sandbox.destroy() for sandbox in tuple(self.sandboxes)))
        self._files.close()
        await self._jail.close()

    async def _make(self, spec: SandboxSpec, snapshot: SnapshotFiles | None) -> FirecrackerSandbox:
        if spec.is_zygote or spec.zygote:
            raise SandboxCreateError("a VM holds no zygote: its pools are restored from snapshots")
        making = asyncio.create_task(self._bring_up(spec, snapshot))
        try:
            return await asyncio.shield(making)
        except asyncio.CancelledError:
            making.add_done_callback(_discard)
            raise

    async def _bring_up(self, spec: SandboxSpec, snapshot: SnapshotFiles | None) -> FirecrackerSandbox:
        machine = machine_of(spec.limits)
        sandbox = await self._start_vmm(spec, machine, snapshot)
        self.sandboxes.add(sandbox)
        try:
            await (self._configure(sandbox) if snapshot is None else _load(sandbox.vmm))
            await sandbox.meet(BOOT_S)
            await self._introduce(sandbox, spec, restored=snapshot is not None)
        except SandboxError as problem:
            await sandbox.destroy()
            raise SandboxCreateError(str(problem)) from problem
        except BaseException:
            await sandbox.destroy()
            raise
        return sandbox

    async def _start_vmm(
        self, spec: SandboxSpec, machine: Machine, snapshot: SnapshotFiles | None
    ) -> FirecrackerSandbox:
        jail = await self._jail.jail()
        scratch = await self._files.scratch(spec.limits.tmp_mb)
        with ExitStack() as stack:
            stack.callback(scratch.unlink)  # bound into the VM's root by then, or of no use
            files = await self._files.open_all(self._guest, spec.mounts, scratch)
            stack.callback(close_all, tuple(files))
            if snapshot is not None:
                files = [*files, snapshot.state, snapshot.memory]
            vmm = await JailedVmm.start(
                jail, machine.vmm_limits, files, egress=spec.egress, version=self._version
            )
        if Handle.FREEZE not in vmm.handles:
            await vmm.destroy()
            raise SandboxCreateError("micro-VMs need a control group that can be frozen")
        try:
            metrics = MetricsPipe(vmm.open_metrics())
        except OSError as problem:
            await vmm.destroy()
            raise SandboxCreateError(f"the metrics pipe: {problem.strerror}") from problem
        return FirecrackerSandbox(spec, machine, vmm, metrics, self._files.open_source, self._forget)

    def _forget(self, sandbox: FirecrackerSandbox) -> None:
        self.sandboxes.discard(sandbox)
        self._past = self._past.with_all_of(sandbox.metrics.counters)
        self._hung += bool(sandbox.why_killed)

    def statistics(self) -> VmmStatistics:
        """What every VM so far counted."""
        total = self._past
        for sandbox in self.sandboxes:
            total = total.with_all_of(sandbox.metrics.counters)
        counted = {
            name: getattr(total, name)
            for name in VmmStatistics.__struct_fields__
            if name not in ("running", "hung")
        }
        return VmmStatistics(running=len(self.sandboxes), hung=self._hung, **counted)

    async def _configure(self, sandbox: FirecrackerSandbox) -> None:
        """Everything the VMM has to know, then the start. The order of drives is the guest's."""
        api = sandbox.vmm.api
        await api.put_metrics(fc.Metrics(metrics_path=machines.METRICS_PATH))
        await api.put_machine_config(machines.machine_config(sandbox.machine))
        await api.put_boot_source(machines.boot_source())
        for place in Place:
            await api.put_drive(machines.drive_of(place))
        if sandbox.vmm.address:
            await api.put_network_interface(machines.network_interface())
        await api.put_vsock(machines.vsock())
        await api.put_entropy(machines.entropy())
        await api.put_balloon(machines.balloon(api.version))
        await api.start()

    async def _introduce(self, sandbox: FirecrackerSandbox, spec: SandboxSpec, *, restored: bool) -> None:
        """What a guest must know before anything of a function runs in it."""
        control = sandbox.streams.control
        await control.prepare(spec.limits, spec.user)
        if sandbox.vmm.address:
            here = (sandbox.vmm.gateway,) if self._jail.forwards_dns else self._name_servers()
            await control.network(
                sandbox.vmm.address, NETWORK_PREFIX_BITS, sandbox.vmm.gateway, tuple(here)[:3]
            )
        if not restored:
            await control.mount([Place.ROOT, Place.SCRATCH, *(PLACE_OF[point] for point in spec.mounts)])
        else:
            await control.hold(hold=False)


async def _load(vmm: JailedVmm) -> None:
    try:
        await vmm.api.put_metrics(fc.Metrics(metrics_path=machines.METRICS_PATH))
        await vmm.api.load_snapshot(machines.snapshot_load(resume=True))
    except VmmError as problem:
        raise SandboxCreateError(f"the snapshot was not loaded: {problem}") from problem


def _discard(making: asyncio.Task[FirecrackerSandbox]) -> None:
    """Nobody waits for this sandbox any more."""
    if not making.cancelled() and making.exception() is None:
        making.result().discard()
