"""The fake driver: sandboxes without isolation whose programs are coroutines, for tests of the rooms above.

It behaves as the port says, with real sockets and pipes, and can be told to fail. It starts no process.
"""

import asyncio
import os
import socket
import stat
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from stoker.core.errors import SandboxCreateError, SandboxDied, SandboxError
from stoker.sandbox.driver import (
    DriverInfo,
    Exit,
    Launch,
    MountPoint,
    MountSource,
    SandboxLimits,
    SandboxSpec,
)

SIGKILL = 9
TELEMETRY_FD_INSIDE = 62

Program = Callable[["FakeSandbox", Launch], Awaitable[Exit]]
"""What a launch runs instead of a process: it may speak to ``runtime_api`` and use ``print_output``."""


class FakeScript(msgspec.Struct):
    """What goes wrong, from now on; tests change it while the driver runs."""

    create_error: str = ""
    """Every create raises SandboxCreateError with these words."""
    launch_error: str = ""
    mount_error: str = ""
    limits_error: str = ""
    kill_after_s: float | None = None
    """Each launched program is killed after this long."""
    create_delay_s: float = 0.0
    memory_peak_bytes: int = 42 << 20
    memory_current_bytes: int = 40 << 20


class FakeDriver:
    """Sandboxes that run coroutines. ``programs`` maps argv[0] to what runs; others end at once, status 0."""

    def __init__(
        self, programs: Mapping[str, Program] | None = None, script: FakeScript | None = None
    ) -> None:
        self.programs: dict[str, Program] = dict(programs or {})
        self.script = script or FakeScript()
        self.sandboxes: dict[str, FakeSandbox] = {}
        """Those not destroyed yet, by sandbox_id."""

    async def start(self) -> DriverInfo:
        """Nothing to connect to."""
        return DriverInfo("fake", ("nothing is isolated: the fake driver is for tests",), zygotes=True)

    async def create(self, spec: SandboxSpec) -> "FakeSandbox":
        """Make a sandbox, or fail as scripted. Folders must exist, as for a real driver."""
        await asyncio.sleep(self.script.create_delay_s)
        if self.script.create_error:
            raise SandboxCreateError(self.script.create_error)
        for point, path in spec.mounts.items():
            if not _is_folder(path):
                raise SandboxCreateError(f"{path} for {point.value}: not a folder")
        sandbox = FakeSandbox(self, spec)
        self.sandboxes[spec.sandbox_id] = sandbox
        return sandbox

    async def close(self) -> None:
        """Destroy every sandbox."""
        for sandbox in tuple(self.sandboxes.values()):
            await sandbox.destroy()


class FakeSandbox:
    """One sandbox of the fake; what a test wants to know about it is in its public attributes."""

    def __init__(self, driver: FakeDriver, spec: SandboxSpec) -> None:
        self.sandbox_id = spec.sandbox_id
        self.spec = spec
        self.limits = spec.limits
        self.mounts: dict[MountPoint, MountSource] = dict(spec.mounts)
        self.launched: Launch | None = None
        self._fork = _forked_launch(driver, spec)
        self.frozen = False
        self.runtime_api = _listen()
        self.runtime_socket = _listen_by_name()
        self.service_api = _listen()
        self.output, self._output_inside = _pipe()
        self.telemetry, self._telemetry_inside = _pipe()
        self.telemetry_fd_inside = TELEMETRY_FD_INSIDE
        self._driver = driver
        self._running: asyncio.Task[None] | None = None
        self._thawed = asyncio.Event()
        self._thawed.set()
        self._ended: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self._destroyed = False
        self._oom_kills = 0

    # --- what programs use --------------------------------------------------------------------------------

    def print_output(self, data: bytes) -> None:
        """As if the process had written to standard output."""
        os.write(self._output_inside, data)

    def print_telemetry(self, data: bytes) -> None:
        """As if the process had written to the telemetry pipe."""
        os.write(self._telemetry_inside, data)

    async def breathe(self) -> None:
        """A frozen program stops here until it is thawed."""
        await self._thawed.wait()

    def run_out_of_memory(self) -> None:
        """The kernel ends the sandbox for want of memory."""
        self._oom_kills += 1
        self.kill()

    # --- the port -----------------------------------------------------------------------------------------

    async def mount(self, mounts: Mapping[MountPoint, MountSource]) -> None:
        """Remember the folders."""
        self._check(self._driver.script.mount_error)
        for point, path in mounts.items():
            if point in self.mounts or not _is_folder(path):
                raise SandboxError(f"mounting {point.value}: {path} is no folder, or the place is taken")
            self.mounts[point] = path

    async def set_limits(self, limits: SandboxLimits) -> None:
        """Remember the limits."""
        self._check(self._driver.script.limits_error)
        self.limits = limits

    async def launch(self, launch: Launch) -> None:
        """Run the program of argv[0]."""
        if self.launched is not None:
            raise SandboxError("a sandbox launches one process only")
        self._check(self._driver.script.launch_error)
        self.launched = launch
        self._running = asyncio.create_task(self._run(launch))
        if self._driver.script.kill_after_s is not None:
            asyncio.get_running_loop().call_later(self._driver.script.kill_after_s, self.kill)

    async def forked(self) -> None:
        """Run the program of the zygote that was named, if it lives."""
        if self._fork is None:
            raise SandboxError("no zygote was asked to fork into this sandbox")
        await self.launch(self._fork)

    def freeze(self) -> None:
        """Programs stop at their next ``breathe``."""
        self.frozen = True
        self._thawed.clear()

    def thaw(self) -> None:
        """Programs go on."""
        self.frozen = False
        self._thawed.set()

    def kill(self) -> None:
        """Cancel the program, frozen or not."""
        if self._running is not None:
            self._running.cancel()
        self._end(Exit(status=None, signal=SIGKILL, oom_killed=self._oom_kills > 0))

    async def wait(self) -> Exit:
        """Wait for the program's end."""
        return await asyncio.shield(self._ended)

    async def destroy(self) -> None:
        """Kill and close everything. Idempotent."""
        if self._destroyed:
            return
        self._destroyed = True
        self.kill()
        if self._running is not None:
            with suppress(asyncio.CancelledError):
                await self._running
        self.runtime_api.close()
        self.runtime_socket.close()
        self.service_api.close()
        os.close(self.output)
        os.close(self.telemetry)
        self._driver.sandboxes.pop(self.sandbox_id, None)

    def memory_peak_bytes(self) -> int:
        return self._driver.script.memory_peak_bytes

    def memory_current_bytes(self) -> int:
        return 0 if self._ended.done() else self._driver.script.memory_current_bytes

    def oom_kills(self) -> int:
        return self._oom_kills

    async def _run(self, launch: Launch) -> None:
        program = self._driver.programs.get(launch.argv[0])
        try:
            self._end(await program(self, launch) if program else Exit(status=0, signal=None))
        finally:  # a broken program ends its sandbox, and its error comes out of ``destroy``
            self._end(Exit(status=None, signal=SIGKILL))

    def _end(self, ended: Exit) -> None:
        if self._ended.done():
            return
        self._ended.set_result(ended)
        os.close(self._output_inside)
        os.close(self._telemetry_inside)

    def _check(self, scripted_error: str) -> None:
        if self._ended.done():
            raise SandboxDied(f"sandbox {self.sandbox_id} is gone")
        if scripted_error:
            raise SandboxError(scripted_error)


def _forked_launch(driver: FakeDriver, spec: SandboxSpec) -> Launch | None:
    """What the zygote of this sandbox was launched with; None without one."""
    if not spec.zygote:
        return None
    zygote = driver.sandboxes.get(spec.zygote)
    if zygote is None or zygote.launched is None or not zygote.spec.is_zygote:
        raise SandboxCreateError("the zygote is gone")
    return zygote.launched


def _listen_by_name() -> socket.socket:
    """On an abstract Unix socket whose name the kernel chooses: fakes share one network namespace."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind("")
    listening.listen()
    return listening


def _listen() -> socket.socket:
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setblocking(False)
    return listening


def _pipe() -> tuple[int, int]:
    """(read end, write end), both non-blocking: a program that floods gets BlockingIOError."""
    ends = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    return ends[0], ends[1]


def _is_folder(source: MountSource) -> bool:
    return source.is_dir() if isinstance(source, Path) else stat.S_ISDIR(os.fstat(source.folder).st_mode)
