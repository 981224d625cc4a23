"""One VM: its VMM's sandbox, the guest inside, and the streams between. All that comes from it is bounded."""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from stoker.core.errors import LaunchRefused, SandboxDied, SandboxError
from stoker.sandbox.container_launch import Report, ReportKind
from stoker.sandbox.driver import (
    Exit,
    Launch,
    Layered,
    MountPoint,
    MountSource,
    Sandbox,
    SandboxLimits,
    SandboxSpec,
)
from stoker.sandbox.guest.channels import Channels
from stoker.sandbox.guest.contract import (
    PLACE_OF,
    PORT_CONTROL,
    PORT_OUTPUT,
    PORT_RUNTIME,
    PORT_SERVICE,
    PORT_TELEMETRY,
    Place,
)
from stoker.sandbox.guest.control import GuestControl
from stoker.sandbox.layers import around, child_of
from stoker.sandbox.qemu.box import Box
from stoker.sandbox.qemu.command import outer_limits

TELEMETRY_FD_INSIDE = 62
POWER_OFF_S = 2.0
"""How long a guest may take to end its VM after its function has ended; then the VMM is killed."""
WATCHDOG_S = 15.0
"""How often a guest that is not frozen is asked for a sign of life."""
SIGKILL = 9
NETWORK = ("10.0.2.15", 24, "10.0.2.2", ("10.0.2.3",))
"""The addresses of QEMU's own NAT."""

_PATHS = {PORT_RUNTIME: "runtime", PORT_SERVICE: "service"}


class QemuSandbox:
    """The VM's sandbox. ``boot`` comes first; then it is as every other."""

    def __init__(
        self,
        spec: SandboxSpec,
        jailed: Sandbox,
        box: Box,
        pack: Callable[[MountSource, bool], Awaitable[Path]],
        on_gone: Callable[["QemuSandbox"], None],
    ) -> None:
        self.sandbox_id = spec.sandbox_id
        self._spec = spec
        self._jailed = jailed
        self._box = box
        self._pack = pack
        self._on_gone = on_gone
        self._loop = asyncio.get_running_loop()
        self.runtime_api = box.listen("runtime")
        self.runtime_socket = box.listen("runtime-local")
        self.service_api = box.listen("service")
        self.output, self._output_in = _stream()
        self.telemetry, self._telemetry_in = _stream()
        self._channels: Channels | None = None
        self._control: GuestControl | None = None
        self._controlled = asyncio.Event()
        self._started: asyncio.Future[Report] | None = None
        self._report: Report | None = None
        self._ended: asyncio.Future[Exit] = self._loop.create_future()
        self._watching: list[asyncio.Task[None]] = []
        self._kernel = ""
        self._frozen = False
        self._removal: asyncio.Task[None] | None = None

    telemetry_fd_inside = TELEMETRY_FD_INSIDE

    # --- booting

    async def boot(self, command: Launch) -> None:
        """Start QEMU, wait for the guest, tell it what it is, mount what is there.

        Raises:
            SandboxError
        """
        await self._jailed.launch(command)
        self._watching.append(asyncio.create_task(self._watch_vmm()))
        link = asyncio.create_task(self._accept_link())
        await self._unless_ended(link)
        await self._unless_ended(asyncio.create_task(self._controlled.wait()))
        control = self._guest()
        self._kernel = (await control.hello()).release
        await control.prepare(self._spec.limits, self._spec.user)
        if self._spec.egress:
            await control.network(*NETWORK)
        await control.mount([Place.ROOT, *(self._box.filled - {Place.SCRATCH})])
        self._watching.append(asyncio.create_task(self._watchdog()))

    async def _accept_link(self) -> None:
        connection, _ = await self._loop.sock_accept(self._jailed.runtime_socket)
        # Nobody else is to connect: with egress the guest can reach addresses of the VMM's sandbox.
        for listening in (self._jailed.runtime_socket, self._jailed.runtime_api, self._jailed.service_api):
            with suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)
        self._channels = Channels(self._connect, self._link_ended)
        channels = self._channels
        await self._loop.create_unix_connection(lambda: channels, sock=connection)

    async def _unless_ended(self, task: "asyncio.Task[object]") -> None:
        await asyncio.wait((task, self._ended), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()
            raise SandboxDied("the VMM ended")
        await task

    def _connect(self, port: int) -> socket.socket:
        """Each of the guest's own streams once; its function's connections as often as they come."""
        if port in _PATHS:
            return self._box.connect(_PATHS[port])
        if port == PORT_OUTPUT and self._output_in is not None:
            stream, self._output_in = self._output_in, None
            return stream
        if port == PORT_TELEMETRY and self._telemetry_in is not None:
            stream, self._telemetry_in = self._telemetry_in, None
            return stream
        if port == PORT_CONTROL and self._control is None:
            here, there = socket.socketpair()
            there.setblocking(False)
            self._control = GuestControl(here, on_report=self._on_report)
            self._control.ended.add_done_callback(lambda _: self.kill())
            self._controlled.set()
            return there
        raise ConnectionRefusedError

    def _link_ended(self, why: str | None) -> None:
        """The VMM is gone, or the guest broke a rule: nothing good comes of it any more."""
        if self._control is not None:
            self._control.close()
        self.kill()

    def _guest(self) -> GuestControl:
        self._check_alive()
        if self._control is None:
            raise SandboxDied(f"sandbox {self.sandbox_id} has not booted")
        return self._control

    # --- changing

    async def mount(self, mounts: Mapping[MountPoint, MountSource]) -> None:
        """Pack folders and put them in. Each place can be filled once."""
        control = self._guest()
        places = {PLACE_OF[point]: source for point, source in mounts.items()}
        if Place.ROOT in places or self._box.filled & set(places):
            raise SandboxError("a place can be filled once, and the root from the start alone")
        try:
            for place, source in places.items():
                image = await self._pack(source, False)
                await asyncio.to_thread(self._box.fill, place, image)
        except OSError as problem:
            raise SandboxError(f"the VM's files: {problem}") from problem
        await control.mount(list(places))

    async def set_limits(self, limits: SandboxLimits) -> None:
        """CPU by the VMM's control group; memory and processes by the function's, inside. The VM keeps the
        memory it was made with, and /tmp its size."""
        control = self._guest()
        within = min(limits.memory_mb, self._spec.limits.memory_mb)
        kept = msgspec.structs.replace(
            limits, memory_mb=self._spec.limits.memory_mb, tmp_mb=self._spec.limits.tmp_mb
        )
        await self._jailed.set_limits(outer_limits(kept))
        await control.limit(msgspec.structs.replace(limits, memory_mb=within), self._spec.user)

    async def launch(self, launch: Launch) -> None:
        """Start the process; returns when it executes.

        Raises:
            LaunchRefused, SandboxError, SandboxDied
        """
        control = self._guest()
        if self._started is not None:
            raise SandboxError("a sandbox launches one process only")
        self._started = self._loop.create_future()
        await control.launch(launch)
        report = await self._started
        if report.kind is not ReportKind.STARTED:
            misplaced = report.kind is ReportKind.MISPLACED
            what = launch.working_directory if misplaced else launch.argv[0]
            raise LaunchRefused(f"{what}: {os.strerror(report.value)}", report.value, misplaced=misplaced)

    async def forked(self) -> None:
        """There are no zygotes for VMs."""
        raise SandboxError("no zygote was asked to fork into this sandbox")

    def freeze(self) -> None:
        """Freeze the VMM."""
        if not self._ended.done():
            self._frozen = True
            self._jailed.freeze()

    def thaw(self) -> None:
        """Let it run again; its clock is right at once, it counts the host's."""
        if not self._ended.done():
            self._frozen = False
            self._jailed.thaw()

    def kill(self) -> None:
        """SIGKILL to the VMM."""
        if not self._ended.done():
            self._jailed.kill()

    # --- watching

    async def wait(self) -> Exit:
        """Wait until the function has ended and its VM is gone."""
        return await asyncio.shield(self._ended)

    async def _watch_vmm(self) -> None:
        with suppress(SandboxError):  # gone is gone
            await self._jailed.wait()
        self._finish()

    async def _watchdog(self) -> None:
        """A guest that gives no sign of life hangs, and its VMM is killed."""
        while not self._ended.done():
            await asyncio.sleep(WATCHDOG_S)
            if self._frozen or self._control is None:
                continue
            try:
                await self._control.ping()
            except SandboxError:
                if not self._frozen:
                    self.kill()

    def _on_report(self, report: Report) -> None:
        if report.kind not in (ReportKind.EXITED, ReportKind.SIGNALED):
            if self._started is not None and not self._started.done():
                self._started.set_result(report)
        elif self._report is None:
            self._report = report
            self._watching.append(asyncio.create_task(self._power_off()))

    async def _power_off(self) -> None:
        control = self._control
        if control is not None:
            with suppress(SandboxError):
                await control.power_off()
        await asyncio.wait((self._ended,), timeout=POWER_OFF_S)
        self.kill()

    def _exit(self) -> Exit:
        oom_killed = self.oom_kills() > 0
        if self._report is None:
            return Exit(status=None, signal=SIGKILL, oom_killed=oom_killed)
        if self._report.kind is ReportKind.SIGNALED:
            return Exit(status=None, signal=self._report.value, oom_killed=oom_killed)
        return Exit(status=self._report.value, signal=None, oom_killed=oom_killed)

    def _finish(self) -> None:
        if self._ended.done():
            return
        self._ended.set_result(self._exit())
        if self._channels is not None:
            self._channels.close()
        if self._control is not None:
            self._control.close()
        for stream in (self._output_in, self._telemetry_in):
            if stream is not None:
                stream.close()
        if self._started is not None and not self._started.done():
            self._started.set_exception(SandboxDied("the sandbox ended during its launch"))
            self._started.exception()

    def memory_peak_bytes(self) -> int:
        """Of the function's control group inside; it came with the guest's last figures."""
        return self._control.memory.peak_bytes if self._control is not None else 0

    def memory_current_bytes(self) -> int:
        """Likewise; 0 when all has ended."""
        return 0 if self._control is None or self._ended.done() else self._control.memory.current_bytes

    def oom_kills(self) -> int:
        """Processes of the function that were killed for want of memory."""
        return self._control.memory.oom_kills if self._control is not None else 0

    def last_words(self) -> str:
        """What the VMM said, for an error's message; 300 characters at most."""
        try:
            return os.read(self._jailed.output, 300).decode("ascii", "replace").strip()
        except OSError:
            return ""

    def layers(self) -> dict[str, str]:
        """The guest's own kernel, and what stands around the VMM."""
        if self._ended.done() or not isinstance(self._jailed, Layered):
            return {}
        vmm = child_of(int(self._jailed.layers().get("pid", "0")))
        root = "the image's" if MountPoint.ROOT in self._spec.mounts else "the guest's runtime root"
        return {"guest_os": root, "kernel": self._kernel, "vmm_pid": str(vmm), **around(vmm)} if vmm else {}

    # --- ending

    async def destroy(self) -> None:
        """Kill and remove everything. Idempotent."""
        if self._removal is None:
            self._removal = asyncio.create_task(self._remove())
        await asyncio.shield(self._removal)

    async def _remove(self) -> None:
        self.kill()
        await self._jailed.destroy()
        self._finish()
        for task in self._watching:
            task.cancel()
        for listening in (self.runtime_api, self.runtime_socket, self.service_api):
            listening.close()
        for fd in (self.output, self.telemetry):
            os.close(fd)
        await asyncio.to_thread(self._box.remove)
        self._on_gone(self)

    def _check_alive(self) -> None:
        if self._ended.done() or self._removal is not None:
            raise SandboxDied(f"sandbox {self.sandbox_id} is gone")


def _stream() -> tuple[int, socket.socket]:
    """A descriptor to read from, and the socket that a guest's channel writes to."""
    reading, writing = socket.socketpair()
    reading.setblocking(False)
    writing.setblocking(False)
    return reading.detach(), writing
