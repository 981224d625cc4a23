"""The port every sandbox driver implements, and its records.

A driver knows how to make an empty execution environment, put code into it, start a process in it and end
it. It never knows functions, versions, invocations or who pays for them.
"""

import enum
import socket
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import msgspec

from stoker.services.volumes import MountSource

RUNTIME_API_PORT = 9001
"""Where the runtime finds the Lambda Runtime API, on 127.0.0.1 inside its sandbox."""

SERVICE_API_PORT = 9797
"""Where a function finds Stoker's own API, on 127.0.0.1 inside its sandbox."""


class MountPoint(enum.Enum):
    """The places of a sandbox where a read-only folder of the host can appear."""

    TASK = "/var/task"
    OPT = "/opt"
    RUNTIME = "/var/runtime"
    LANG = "/var/lang"
    CODE_CACHE = "/var/codecache"
    ROOT = "/"
    """The whole root, with /dev, /proc, /tmp and the files that name host and resolver put over it; the
    host's programs are not there then. From the start alone, and no other place beside it."""


class SandboxLimits(msgspec.Struct, frozen=True):
    """What one sandbox may use; enforced by the kernel, not by the runtime inside."""

    memory_mb: int
    cpu_quota: float
    """Share of one CPU, 1.0 = one whole core (Lambda: memory_mb / 1769)."""
    cpu_policy: str = "quota"
    """``quota`` caps the CPU; ``weight`` shares by cpu_quota but lends what is idle."""
    tmp_mb: int = 512
    pids_max: int = 1024
    open_files_max: int = 1024
    cpu_group: int = 0
    """Sandboxes of one number (64 bits) share the CPU as if they were one; 0: alone, until a number comes."""


class SandboxUser(msgspec.Struct, frozen=True):
    """Who the process is inside, in the numbers of its own root; never uid 0."""

    uid: int
    gid: int


class SandboxSpec(msgspec.Struct, frozen=True):
    """An empty sandbox: its limits, the folders mounted from the start, and whether it may reach out.

    A zygote's sandbox is for a process that forks itself into others, and for nothing else. ``zygote`` is the
    sandbox_id of the one that is asked to fork into this one: ``forked`` then takes the place of ``launch``.
    """

    sandbox_id: str
    limits: SandboxLimits
    mounts: Mapping[MountPoint, MountSource] = {}
    egress: bool = False
    is_zygote: bool = False
    zygote: str = ""
    user: SandboxUser | None = None
    """None: 993 and 990, as on Lambda. Only with ``MountPoint.ROOT``."""


class Launch(msgspec.Struct, frozen=True):
    """The process to start inside: its whole environment, its folder, and argv.

    argv[0] without a slash is looked for in the environment's PATH, inside.
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    working_directory: str = "/var/task"


class Exit(msgspec.Struct, frozen=True):
    """How the launched process, or the whole sandbox, ended. Exactly one of status and signal is set."""

    status: int | None
    signal: int | None
    oom_killed: bool = False


class DriverInfo(msgspec.Struct, frozen=True):
    """What a driver can enforce on this host; ``degraded`` names each missing limit, and what brings it."""

    name: str
    degraded: tuple[str, ...] = ()
    zygotes: bool = False
    """Whether ``SandboxSpec.is_zygote`` can be had."""
    pools: bool = True
    """Whether a sandbox can be made before its function's memory is known."""


class Sandbox(Protocol):
    """One execution environment. Every method may raise SandboxDied once it is gone."""

    @property
    def sandbox_id(self) -> str: ...

    @property
    def runtime_api(self) -> socket.socket:
        """Listening on 127.0.0.1:9001 inside the sandbox's network namespace; the caller serves it."""
        ...

    @property
    def runtime_socket(self) -> socket.socket:
        """The same on the abstract Unix socket ``stoker-runtime`` of that namespace, for our bootstraps."""
        ...

    @property
    def service_api(self) -> socket.socket:
        """Listening on 127.0.0.1:9797 inside the sandbox's network namespace; the caller serves it."""
        ...

    @property
    def output(self) -> int:
        """Non-blocking read end of the pipe that carries standard output and standard error."""
        ...

    @property
    def telemetry(self) -> int:
        """Non-blocking read end of the framed log pipe (``_LAMBDA_TELEMETRY_LOG_FD``)."""
        ...

    @property
    def telemetry_fd_inside(self) -> int:
        """The number of the telemetry pipe's write end in the launched process."""
        ...

    async def mount(self, mounts: Mapping[MountPoint, MountSource]) -> None:
        """Put read-only folders into a sandbox that runs already."""
        ...

    async def set_limits(self, limits: SandboxLimits) -> None:
        """Change memory, CPU and /tmp of a running sandbox; ``cpu_quota`` <= 0 means unthrottled (Init)."""
        ...

    async def launch(self, launch: Launch) -> None:
        """Start the runtime process. Legal once.

        Raises:
            LaunchRefused: there is no such program or folder inside, or it may not be used.
        """
        ...

    async def forked(self) -> None:
        """Wait until the process that a zygote was asked for runs; for a spec with ``zygote`` only."""
        ...

    def freeze(self) -> None:
        """Ask the kernel to freeze everything inside. One write, no round trip; a deadline is kept."""
        ...

    def thaw(self) -> None:
        """Let everything inside run again. One write, no round trip."""
        ...

    def kill(self) -> None:
        """SIGKILL to all inside, frozen or not. Returns at once; ``wait`` tells when it is over."""
        ...

    async def wait(self) -> Exit:
        """Wait until the launched process has ended and nothing runs inside any more."""
        ...

    async def destroy(self) -> None:
        """Kill and remove everything the sandbox was made of: namespaces, cgroup, mounts, /tmp, sockets."""
        ...

    def memory_peak_bytes(self) -> int:
        """The largest memory use so far, in bytes; 0 where the host cannot tell."""
        ...

    def memory_current_bytes(self) -> int:
        """Memory in use now, in bytes; 0 where the host cannot tell."""
        ...

    def oom_kills(self) -> int:
        """Processes the kernel killed inside for want of memory; any makes the whole sandbox unusable."""
        ...


@runtime_checkable
class Layered(Protocol):
    """A sandbox that can say what stands around its function."""

    def layers(self) -> Mapping[str, str]:
        """For people: guest_os, kernel, vmm_pid, jail, cgroup, seccomp; what is not known is left out."""
        ...


class SandboxDriver(Protocol):
    """A way of making sandboxes on this host."""

    async def start(self) -> DriverInfo:
        """Connect, clean up what an earlier life left behind, and say what can be enforced."""
        ...

    async def create(self, spec: SandboxSpec) -> Sandbox:
        """Make an empty sandbox with its mounts.

        Raises:
            SandboxCreateError: the host refused; nothing of the sandbox is left.
        """
        ...

    async def close(self) -> None:
        """Destroy every sandbox of this driver and disconnect."""
        ...
