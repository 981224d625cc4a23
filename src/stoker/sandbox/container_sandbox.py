"""One sandbox of the container driver: what the service can do to it through the descriptors the jail gave.

Freezing, thawing, killing and reading memory need no jail; mounting, limits and removal do.
"""

import asyncio
import os
import socket
from collections.abc import Callable, Mapping

from stoker.core.errors import LaunchRefused, SandboxDied, SandboxError
from stoker.sandbox import layers
from stoker.sandbox.container_connection import JailConnection, JailUnavailable
from stoker.sandbox.container_folders import open_folder
from stoker.sandbox.container_freezer import Freezer
from stoker.sandbox.container_launch import (
    REPORT_BYTES,
    TELEMETRY_FD_INSIDE,
    Report,
    ReportKind,
    decode_report,
    encode_launch,
)
from stoker.sandbox.container_memory import MemoryMeter
from stoker.sandbox.container_protocol import MEBIBYTE, Answer, Handle, Operation
from stoker.sandbox.driver import Exit, Launch, MountPoint, MountSource, SandboxLimits, SandboxSpec
from stoker.services.volumes import MountedTree

SIGKILL = 9
DESTROY_WAIT_S = 12.0
"""How long removal may take before the sandbox is given up to the jail, which goes on trying. A killed
process may have to wait for its read of an image, or until it is seen that the image's server hangs."""


class ContainerSandbox:
    """A sandbox of stoker-jail; see ``stoker.sandbox.driver.Sandbox`` for what each method promises.

    The descriptors ``output`` and ``telemetry`` and both sockets stay open until ``destroy``: whoever
    watches them stops doing so before.
    """

    def __init__(
        self,
        spec: SandboxSpec,
        answer: Answer,
        jail: JailConnection,
        on_gone: Callable[["ContainerSandbox"], None],
        zygote: "ContainerSandbox | None" = None,
    ) -> None:
        handles = answer.handles
        self.sandbox_id = spec.sandbox_id
        self.runtime_api = _listener(handles[Handle.RUNTIME_API])
        self.runtime_socket = _listener(handles[Handle.RUNTIME_SOCKET])
        self.service_api = _listener(handles[Handle.SERVICE_API])
        self.output = handles[Handle.OUTPUT]
        self.telemetry = handles[Handle.TELEMETRY]
        self.telemetry_fd_inside = TELEMETRY_FD_INSIDE
        self._pidfd = handles[Handle.PIDFD]
        self.handle = answer.sandbox
        self.is_zygote = spec.is_zygote
        self._zygote = zygote
        self._jail: JailConnection | None = jail
        self._on_gone = on_gone
        self._loop = asyncio.get_running_loop()
        self._control = socket.socket(fileno=handles[Handle.CONTROL])
        self._freezer = Freezer(handles, self._control, self.kill)
        self._memory = MemoryMeter(handles, self._on_out_of_memory)
        self._memory.limit_bytes = spec.limits.memory_mb * MEBIBYTE
        self._report: Report | None = None
        # What a zygote forks into it takes the launched process's place.
        self._started: asyncio.Future[Report] | None = self._loop.create_future() if zygote else None
        self._ended: asyncio.Future[Exit] = self._loop.create_future()
        self._removal: asyncio.Task[None] | None = None
        self.images = {source.mount_id for source in spec.mounts.values() if isinstance(source, MountedTree)}
        """The mounts that it can read."""
        self._loop.add_reader(self._pidfd, self._on_end)
        self._loop.add_reader(self._control.fileno(), self._on_report)

    # --- changing --------------------------------------------------------------------------------

    async def mount(self, mounts: Mapping[MountPoint, MountSource]) -> None:
        """Put read-only folders into the sandbox. Each place can be filled once."""
        folders: dict[MountPoint, int] = {}
        try:
            for point, source in mounts.items():
                folders[point] = open_folder(source)
            self.images |= {source.mount_id for source in mounts.values() if isinstance(source, MountedTree)}
            await self._ask(Operation.MOUNT, folders=folders)
        except OSError as problem:
            raise SandboxError(f"{problem.filename}: {problem.strerror}") from problem
        finally:
            for fd in folders.values():
                os.close(fd)

    async def set_limits(self, limits: SandboxLimits) -> None:
        """Change memory, CPU, processes, open files and /tmp."""
        handles = await self._ask(Operation.LIMITS, limits=limits)
        if handles:
            self._freezer.adopt(handles)
            self._memory.adopt(handles)
        self._memory.limit_bytes = limits.memory_mb * MEBIBYTE

    async def launch(self, launch: Launch) -> None:
        """Start the process; returns when it executes.

        Raises:
            LaunchRefused: it could not be executed; the message says why.
            SandboxError: nothing can be made of such a launch.
            SandboxDied: the sandbox is gone.
        """
        record = encode_launch(launch)
        if self._started is not None:
            raise SandboxError("a sandbox launches one process only")
        self._check_alive()
        self._started = self._loop.create_future()
        try:
            self._control.send(record)
        except OSError as problem:
            raise SandboxDied(f"the sandbox ended before its launch ({problem.strerror})") from problem
        report = await self._started
        if report.kind is not ReportKind.STARTED:
            misplaced = report.kind is ReportKind.MISPLACED
            what = launch.working_directory if misplaced else launch.argv[0]
            words = f"{what}: {os.strerror(report.value)}"
            raise LaunchRefused(words, report.value, misplaced=misplaced)

    async def forked(self) -> None:
        """Wait until the zygote's child runs inside.

        Raises:
            SandboxError: it could not be forked, or nobody was asked to.
            SandboxDied: the sandbox, or the zygote, is gone.
        """
        if self._zygote is None or self._started is None:
            raise SandboxError("no zygote was asked to fork into this sandbox")
        await asyncio.wait((self._started, self._zygote._ended), return_when=asyncio.FIRST_COMPLETED)
        if not self._started.done():
            raise SandboxDied("the zygote ended before it forked")
        report = await self._started
        if report.kind is not ReportKind.STARTED:
            raise SandboxError(f"forking: {os.strerror(report.value)}")
        self._memory.share(self._zygote.memory_current_bytes())
        self._zygote = None

    def freeze(self) -> None:
        """Ask the kernel to freeze everything inside; what does not freeze within the deadline is killed."""
        if not self._ended.done():
            self._freezer.freeze()

    def thaw(self) -> None:
        """Let everything inside run again."""
        if not self._ended.done():
            self._freezer.thaw()

    def kill(self) -> None:
        """SIGKILL to all inside, frozen or not."""
        if not self._ended.done():
            self._freezer.kill()

    # --- watching --------------------------------------------------------------------------------

    async def wait(self) -> Exit:
        """Wait until nothing runs inside any more."""
        return await asyncio.shield(self._ended)

    def memory_peak_bytes(self) -> int:
        """The largest memory use so far; 0 where the host cannot tell."""
        return self._memory.peak_bytes()

    def memory_current_bytes(self) -> int:
        """Memory in use now; 0 where the host cannot tell, and when all has ended."""
        return 0 if self._ended.done() else self._memory.current_bytes()

    def oom_kills(self) -> int:
        """Processes killed inside for want of memory."""
        return self._memory.oom_kills()

    def layers(self) -> dict[str, str]:
        """What stands around its processes; ``pid`` is its init's on the host."""
        pid = 0 if self._ended.done() else layers.pid_of(self._pidfd)
        return {**layers.host_layers(), "pid": str(pid), **layers.around(pid)} if pid else {}

    # --- ending --------------------------------------------------------------------------------

    async def destroy(self) -> None:
        """Kill and remove everything; returns when nothing is left. Idempotent."""
        if self._removal is None:
            self._removal = asyncio.create_task(self._remove())
        await asyncio.shield(self._removal)

    def discard(self) -> None:
        """Begin ``destroy`` without waiting for it."""
        if self._removal is None:
            self._removal = asyncio.create_task(self._remove())

    def jail_lost(self) -> None:
        """The jail is gone: end the sandbox through the descriptors; the next jail removes what is left."""
        self._jail = None
        self.kill()

    async def _remove(self) -> None:
        self.kill()
        if self._jail is not None:
            try:
                await asyncio.wait_for(
                    self._jail.request(Operation.DESTROY, sandbox=self.handle), DESTROY_WAIT_S
                )
            except (JailUnavailable, TimeoutError):
                self._jail = None
        await asyncio.wait([self._ended], timeout=DESTROY_WAIT_S)
        self._finish(Exit(status=None, signal=SIGKILL))
        self._close()
        self._on_gone(self)

    async def _ask(
        self,
        operation: Operation,
        *,
        limits: SandboxLimits | None = None,
        folders: dict[MountPoint, int] | None = None,
    ) -> dict[Handle, int]:
        self._check_alive()
        if self._jail is None:
            raise SandboxDied("the jail that made this sandbox is gone")
        try:
            answer = await self._jail.request(operation, sandbox=self.handle, limits=limits, folders=folders)
        except JailUnavailable as problem:
            raise SandboxDied(str(problem)) from problem
        if answer.status:
            self._check_alive()
            raise SandboxError(f"{answer.stage or operation.name.lower()}: {os.strerror(-answer.status)}")
        return answer.handles

    def _check_alive(self) -> None:
        if self._ended.done() or self._removal is not None:
            raise SandboxDied(f"sandbox {self.sandbox_id} is gone")

    def _on_report(self) -> None:
        self._read_report()

    def _read_report(self) -> bool:
        """Take one record of the init. False when there is none."""
        try:
            data = self._control.recv(REPORT_BYTES + 1)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._loop.remove_reader(self._control.fileno())
            return False
        report = decode_report(data)
        if report is None:
            return True
        if report.kind not in (ReportKind.EXITED, ReportKind.SIGNALED):
            if self._started is not None and not self._started.done():
                self._started.set_result(report)
        elif self._report is None:
            self._report = report
        return True

    def _on_out_of_memory(self) -> None:
        """One process was killed for want of memory: the others would go on crippled, so all end."""
        self.kill()

    def _on_end(self) -> None:
        self._loop.remove_reader(self._pidfd)
        while self._read_report():  # its last words; nobody inside can add to them any more
            pass
        self._finish(self._exit())

    def _exit(self) -> Exit:
        oom_killed = self._memory.settle() > 0
        if self._report is None:
            return Exit(status=None, signal=SIGKILL, oom_killed=oom_killed)
        if self._report.kind is ReportKind.SIGNALED:
            return Exit(status=None, signal=self._report.value, oom_killed=oom_killed)
        return Exit(status=self._report.value, signal=None, oom_killed=oom_killed)

    def _finish(self, ended: Exit) -> None:
        if self._ended.done():
            return
        self._freezer.stop()
        self._memory.settle()
        self._ended.set_result(ended)
        if self._started is not None and not self._started.done():
            self._started.set_exception(SandboxDied("the sandbox ended during its launch"))
            self._started.exception()

    def _close(self) -> None:
        self._loop.remove_reader(self._pidfd)
        self._loop.remove_reader(self._control.fileno())
        self._control.close()
        self.runtime_api.close()
        self.runtime_socket.close()
        self.service_api.close()
        self._freezer.close()
        self._memory.close()
        for fd in (self._pidfd, self.output, self.telemetry):
            os.close(fd)


def _listener(fd: int) -> socket.socket:
    listening = socket.socket(fileno=fd)
    listening.setblocking(False)
    return listening
