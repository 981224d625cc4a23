"""One micro-VM as a sandbox: orders go to the guest's init, limits to the jail, freezing to the kernel.

See ``stoker.sandbox.driver.Sandbox`` for what each method promises.
"""

import asyncio
import fcntl
import os
import socket
import struct
import termios
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress

from stoker.core.errors import LaunchRefused, SandboxDied, SandboxError
from stoker.sandbox.container_freezer import Freezer
from stoker.sandbox.container_launch import TELEMETRY_FD_INSIDE, Report, ReportKind
from stoker.sandbox.container_protocol import Handle
from stoker.sandbox.driver import Exit, Launch, MountPoint, MountSource, SandboxLimits, SandboxSpec
from stoker.sandbox.firecracker import records as fc
from stoker.sandbox.firecracker.machine import Machine, machine_of
from stoker.sandbox.firecracker.metrics import MetricsPipe
from stoker.sandbox.firecracker.reclaim import Reclaimer
from stoker.sandbox.firecracker.streams import GuestStreams
from stoker.sandbox.firecracker.vmm import JailedVmm
from stoker.sandbox.firecracker.watchdog import Watchdog
from stoker.sandbox.guest.contract import PLACE_OF, PORT_RUNTIME, PORT_SERVICE, Place
from stoker.sandbox.layers import around

SIGKILL = 9
MEBIBYTE = 1 << 20
LAST_WORDS_S = 2.0
"""How long what a process wrote may lie unread before its VM is ended all the same."""
POWER_OFF_S = 2.0
LOOK_S = 0.01

OpenSource = Callable[[MountSource, MountPoint | None], Awaitable[int]]
"""A descriptor of the image file behind a source; the caller closes it."""


class FirecrackerSandbox:
    """The descriptors ``output`` and ``telemetry`` and the listeners stay open until ``destroy``."""

    def __init__(
        self,
        spec: SandboxSpec,
        machine: Machine,
        vmm: JailedVmm,
        metrics: MetricsPipe,
        open_source: OpenSource,
        on_gone: Callable[["FirecrackerSandbox"], None],
    ) -> None:
        self.sandbox_id = spec.sandbox_id
        self.machine = machine
        self.vmm = vmm
        self.why_killed = ""
        self.runtime_api = vmm.listeners[PORT_RUNTIME]
        self.service_api = vmm.listeners[PORT_SERVICE]
        self.runtime_socket = _silent_listener()
        self.telemetry_fd_inside = TELEMETRY_FD_INSIDE
        self._spec = spec
        self._metrics = metrics
        self._open_source = open_source
        self._on_gone = on_gone
        self._loop = asyncio.get_running_loop()
        self._streams: GuestStreams | None = None
        self._freezer = Freezer(vmm.handles, self.runtime_socket, self.kill)
        self._frozen = False
        self._freezing: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._mounted = set(spec.mounts)
        self._started: asyncio.Future[Report] | None = None
        self._report: Report | None = None
        self._kernel = ""
        self._ended: asyncio.Future[Exit] = self._loop.create_future()
        self._removal: asyncio.Task[None] | None = None
        self._watchdog: Watchdog | None = None
        self._reclaimer = Reclaimer(vmm.api, machine.guest_memory_mib, self._used_mib)
        self._loop.add_reader(vmm.pidfd, self._on_end)
        self._loop.add_reader(metrics.fd, metrics.read)

    @property
    def streams(self) -> GuestStreams:
        """The guest's connections."""
        if self._streams is None:
            raise SandboxDied(f"the guest of {self.sandbox_id} has not come up")
        return self._streams

    @property
    def output(self) -> int:
        return self.streams.output.fileno()

    @property
    def telemetry(self) -> int:
        return self.streams.telemetry.fileno()

    @property
    def metrics(self) -> MetricsPipe:
        """What the VMM counted."""
        return self._metrics

    # --- making, for the driver --------------------------------------------------------------------

    async def meet(self, within_s: float) -> None:
        """Wait for the guest, and from then on watch it.

        Raises:
            SandboxError: it did not come, or its VMM ended.
        """
        coming = asyncio.create_task(GuestStreams.accept(self.vmm.listeners, self._on_report, within_s))
        await asyncio.wait((coming, self._ended), return_when=asyncio.FIRST_COMPLETED)
        if not coming.done():
            coming.cancel()
            await asyncio.wait((coming,))
            raise SandboxDied(f"the VMM ended while its guest booted: {self.vmm.words().strip()[-300:]}")
        self._streams = coming.result()
        hello = await self._streams.control.hello()
        self._kernel = hello.release
        if hello.launched:  # it was restored with its process
            self._started = self._loop.create_future()
            self._started.set_result(Report(ReportKind.STARTED, 0))
        self._streams.control.ended.add_done_callback(self._on_control_lost)
        questions = (self.vmm.api.describe, self._streams.control.ping)
        self._watchdog = Watchdog(questions, lambda: not self._frozen, self._on_hang)

    # --- changing ------------------------------------------------------------------------------------

    async def mount(self, mounts: Mapping[MountPoint, MountSource]) -> None:
        """Put images behind the block devices of these places, and have the guest mount them."""
        self._check_alive()
        places: list[Place] = []
        for point, source in mounts.items():
            if point is MountPoint.ROOT or point in self._mounted:
                raise SandboxError(f"mounting {point.value}: the place is taken")
            await self._swap(point, source)
            places.append(PLACE_OF[point])
            self._mounted.add(point)
        await self.streams.control.mount(places)

    async def _swap(self, point: MountPoint, source: MountSource) -> None:
        fd = await self._open_source(source, point)
        try:
            path = await self.vmm.add_file(fd)
        finally:
            os.close(fd)
        await self.vmm.api.patch_drive(
            fc.DriveUpdate(drive_id=PLACE_OF[point].name.lower(), path_on_host=path)
        )

    async def set_limits(self, limits: SandboxLimits) -> None:
        """The guest's control group takes memory, processes and files; the VMM's the CPU.

        Raises:
            SandboxError: more memory than the machine was made with.
        """
        self._check_alive()
        wanted = machine_of(limits)
        if wanted.guest_memory_mib > self.machine.guest_memory_mib:
            raise SandboxError(
                f"a VM made for {self._spec.limits.memory_mb} MB cannot have {limits.memory_mb} MB"
            )
        handles = await self.vmm.limit(wanted.vmm_limits)
        if handles:
            self._freezer.adopt(handles)
        await self.streams.control.limit(limits, self._spec.user)

    async def launch(self, launch: Launch) -> None:
        """Have the guest start the process; returns when it executes."""
        if self._started is not None:
            raise SandboxError("a sandbox launches one process only")
        self._check_alive()
        self._started = self._loop.create_future()
        await self.streams.control.launch(launch)
        report = await self._started
        if report.kind is not ReportKind.STARTED:
            misplaced = report.kind is ReportKind.MISPLACED
            what = launch.working_directory if misplaced else launch.argv[0]
            raise LaunchRefused(f"{what}: {os.strerror(report.value)}", report.value, misplaced=misplaced)

    async def forked(self) -> None:
        """No VM has a zygote."""
        raise SandboxError("no zygote was asked to fork into this sandbox")

    def freeze(self) -> None:
        """Take idle memory back, then stop the whole VMM, within ``reclaim.RECLAIM_WITHIN_S``."""
        if not self._ended.done() and not self._frozen:
            self._frozen = True
            self._freezing = asyncio.create_task(self._shrink_and_freeze())

    def thaw(self) -> None:
        """Let it run again."""
        if self._freezing is not None:
            self._freezing.cancel()
            self._freezing = None
        if not self._ended.done():
            self._freezer.thaw()
            self._frozen = False
            self._spawn(self._reclaimer.give_back())

    async def _shrink_and_freeze(self) -> None:
        await self._reclaimer.shrink()
        if not self._ended.done():
            self._freezer.freeze()

    def kill(self) -> None:
        """SIGKILL to the VMM, frozen or not; where the kernel has no cgroup.kill the jail does it."""
        if self._ended.done():
            return
        self._freezer.kill()
        if Handle.KILL not in self.vmm.handles:
            self.discard()

    # --- watching --------------------------------------------------------------------------------------

    async def wait(self) -> Exit:
        """Wait until the VMM has ended."""
        return await asyncio.shield(self._ended)

    def memory_peak_bytes(self) -> int:
        """The function's, as the guest's kernel counts it."""
        return self._streams.control.memory.peak_bytes if self._streams else 0

    def memory_current_bytes(self) -> int:
        """The function's, as the guest said last."""
        return self._streams.control.memory.current_bytes if self._streams and not self._ended.done() else 0

    def oom_kills(self) -> int:
        """In the function's control group inside the guest."""
        return self._streams.control.memory.oom_kills if self._streams else 0

    def layers(self) -> dict[str, str]:
        """The guest's own kernel, and what stands around the VMM."""
        pid = 0 if self._ended.done() else self.vmm.pid
        if not pid:
            return {}
        root = "the image's" if MountPoint.ROOT in self._mounted else "the guest's runtime root"
        return {"guest_os": root, "kernel": self._kernel, "vmm_pid": str(pid), **around(pid)}

    # --- ending ------------------------------------------------------------------------------------------

    async def destroy(self) -> None:
        """Kill and remove everything; returns when nothing is left. Idempotent."""
        self.discard()
        assert self._removal is not None
        await asyncio.shield(self._removal)

    def discard(self) -> None:
        """Begin ``destroy`` without waiting for it."""
        if self._removal is None:
            self._removal = asyncio.create_task(self._remove())

    async def _remove(self) -> None:
        if not self._ended.done():
            self._freezer.kill()
        self._quiet()
        self._loop.remove_reader(self.vmm.pidfd)
        self._loop.remove_reader(self._metrics.fd)
        await self.vmm.destroy()
        self._finish()
        if self._streams:
            self._streams.close()
        self._metrics.close()
        self.runtime_socket.close()
        self._freezer.close()
        for handle, fd in self.vmm.handles.items():
            if handle not in (Handle.FREEZE, Handle.KILL, Handle.EVENTS):
                os.close(fd)
        self.vmm.handles.clear()
        self._on_gone(self)

    def _quiet(self) -> None:
        if self._watchdog:
            self._watchdog.stop()
        for task in (self._freezing, *self._tasks):
            if task is not None:
                task.cancel()

    def _on_report(self, report: Report) -> None:
        if report.kind not in (ReportKind.EXITED, ReportKind.SIGNALED):
            if self._started is not None and not self._started.done():
                self._started.set_result(report)
        elif self._report is None:
            self._report = report
            self._spawn(self._power_off())

    async def _power_off(self) -> None:
        """The guest waits until what its process wrote has been read."""
        for _ in range(round(LAST_WORDS_S / LOOK_S)):
            if not any(_unread(each) for each in (self.streams.output, self.streams.telemetry)):
                break
            await asyncio.sleep(LOOK_S)
        with suppress(SandboxDied):
            await self.streams.control.power_off()
        await asyncio.sleep(POWER_OFF_S)
        self.kill()

    def _on_control_lost(self, _: object) -> None:
        """Without its init's word a guest is of no use, whatever it still does."""
        self.kill()

    def _on_hang(self, why: str) -> None:
        self.why_killed = why
        self.kill()

    def _on_end(self) -> None:
        self._loop.remove_reader(self.vmm.pidfd)
        self._quiet()
        self._finish()

    def _finish(self) -> None:
        if self._ended.done():
            return
        self._freezer.stop()
        self._ended.set_result(self._exit())
        if self._started is not None and not self._started.done():
            self._started.set_exception(SandboxDied("the sandbox ended during its launch"))
            self._started.exception()

    def _exit(self) -> Exit:
        oom_killed = self.oom_kills() > 0
        if self._report is None:
            return Exit(status=None, signal=SIGKILL, oom_killed=oom_killed)
        if self._report.kind is ReportKind.SIGNALED:
            return Exit(status=None, signal=self._report.value, oom_killed=oom_killed)
        return Exit(status=self._report.value, signal=None, oom_killed=oom_killed)

    def _used_mib(self) -> int:
        overhead_mib = self.machine.guest_memory_mib - self._spec.limits.memory_mb
        return overhead_mib + self.memory_current_bytes() // MEBIBYTE

    def _check_alive(self) -> None:
        if self._ended.done() or self._removal is not None:
            raise SandboxDied(f"sandbox {self.sandbox_id} is gone")

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _unread(connection: socket.socket) -> int:
    return struct.unpack("i", fcntl.ioctl(connection, termios.FIONREAD, bytes(4)))[0]


def _silent_listener() -> socket.socket:
    """The guest sends what comes to the abstract socket to port 9001: nobody ever comes here."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind("")
    listening.listen()
    listening.setblocking(False)
    return listening
