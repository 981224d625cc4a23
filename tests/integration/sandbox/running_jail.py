"""A stoker-jail of its own for a test, and what is run inside its sandboxes."""

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from stoker.sandbox.container import ContainerDriver
from stoker.sandbox.container_connection import JailUnavailable
from stoker.sandbox.container_sandbox import ContainerSandbox
from stoker.sandbox.driver import Exit, Launch, MountPoint, SandboxLimits, SandboxSpec

BIN = Path(__file__).resolve().parents[3] / "native" / "bin"
JAIL, INIT = BIN / "stoker-jail", BIN / "stoker-init"
PYTHON = next(
    path
    for path in ("/usr/bin/python3", "/usr/local/bin/python3", sys.executable)
    if Path(path).resolve().is_relative_to("/usr")
)
LIMITS = SandboxLimits(memory_mb=256, cpu_quota=1.0)
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}


def missing() -> str:
    """What this host lacks for a jail with everything on; empty when nothing."""
    if os.geteuid() != 0:
        return "root is needed for sandboxes with limits"
    if not JAIL.exists():
        return "native programs are not built: make -C native"
    return ""


class RunningJail:
    """One jail with its own state folder; ``stop`` proves that it ends cleanly."""

    def __init__(self, *arguments: str, program: Path = JAIL, peer_uid: int | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="stoker-jail-"))
        self.folder.chmod(0o755)
        self.socket_path = self.folder / "jail.sock"
        self._arguments = arguments or ("--no-egress",)
        self._program = program
        self._peer_uid = os.getuid() if peer_uid is None else peer_uid
        self.prefix: list[str] = []
        """What the jail is started through."""
        self.process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[Path | str]:
        """How the jail is started; its state folder is there afterwards."""
        state = self.folder / "state"
        state.mkdir(mode=0o700, exist_ok=True)
        command = [self._program, "--state-dir", state, "--init", INIT, "--peer-uid", str(self._peer_uid)]
        return [*command, "--socket", self.socket_path, "--tmp-capacity-mb", "4096", *self._arguments]

    def start(self) -> None:
        command = self.command()
        with (self.folder / "jail.log").open("ab") as log:
            self.process = subprocess.Popen([*self.prefix, *(str(part) for part in command)], stderr=log)

    def log(self) -> str:
        return (self.folder / "jail.log").read_text()

    def kill(self) -> None:
        assert self.process
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        assert self.process
        self.process.terminate()
        assert self.process.wait(20) == 0, self.log()
        shutil.rmtree(self.folder)

    async def driver(self) -> ContainerDriver:
        """A driver that said hello."""
        driver = ContainerDriver(self.socket_path)
        for _ in range(500):
            assert self.process
            assert self.process.poll() is None, self.log()
            try:
                await asyncio.wait_for(driver.start(), 20)
                return driver
            except JailUnavailable:
                await asyncio.sleep(0.02)
        raise AssertionError(self.log())


class Outcome(NamedTuple):
    """How a program inside ended and what it printed."""

    exit: Exit
    output: str


async def create(
    driver: ContainerDriver,
    limits: SandboxLimits = LIMITS,
    mounts: Mapping[MountPoint, Path] | None = None,
    egress: bool = False,
) -> ContainerSandbox:
    return await driver.create(
        SandboxSpec(sandbox_id=uuid.uuid4().hex, limits=limits, mounts=mounts or {}, egress=egress)
    )


def python(code: str, *arguments: str) -> Launch:
    """A launch of this Python source."""
    return Launch((PYTHON, "-I", "-c", code, *arguments), ENVIRONMENT, "/tmp")


def shell(script: str) -> Launch:
    return Launch(("/bin/sh", "-c", script), ENVIRONMENT, "/tmp")


async def read_all(fd: int) -> bytes:
    """Everything until the pipe's writers are gone."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    whole = b""
    loop.add_reader(fd, ready.set)
    try:
        while True:
            await ready.wait()
            ready.clear()
            with contextlib.suppress(BlockingIOError):
                chunk = os.read(fd, 65536)
                if not chunk:
                    return whole
                whole += chunk
    finally:
        loop.remove_reader(fd)


async def read_line(fd: int) -> str:
    """What a program prints first, once it does."""
    ready = asyncio.Event()
    asyncio.get_running_loop().add_reader(fd, ready.set)
    try:
        await asyncio.wait_for(ready.wait(), 10)
        return os.read(fd, 4096).decode().splitlines()[0]
    finally:
        asyncio.get_running_loop().remove_reader(fd)


async def finish(sandbox: ContainerSandbox, timeout_s: float = 30) -> Outcome:
    """Wait for the launched program, then remove the sandbox."""
    try:
        output, ended = await asyncio.wait_for(
            asyncio.gather(read_all(sandbox.output), sandbox.wait()), timeout_s
        )
    finally:
        await sandbox.destroy()
    return Outcome(ended, output.decode(errors="replace"))


async def run(
    driver: ContainerDriver,
    launch: Launch,
    limits: SandboxLimits = LIMITS,
    mounts: Mapping[MountPoint, Path] | None = None,
    timeout_s: float = 30,
    egress: bool = False,
) -> Outcome:
    """Run a program in a sandbox of its own."""
    sandbox = await create(driver, limits, mounts, egress)
    await sandbox.launch(launch)
    return await finish(sandbox, timeout_s)


class World(NamedTuple):
    """What a jail could leave behind on this host."""

    mounts: frozenset[str]
    cgroups: frozenset[str]
    loops: frozenset[str]
    links: frozenset[str]
    foreign: frozenset[str]
    """Processes that run under a sandbox's uid."""


def look(folder: Path) -> World:
    """Everything on the host that belongs to the jail of this folder, or to any sandbox uid of it."""
    status = (folder / "state").stat()
    name = f"stoker.{status.st_dev:x}-{status.st_ino:x}"
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    return World(
        mounts=frozenset(line for line in mounts if str(folder) in line),
        cgroups=frozenset(_cgroups(name)),
        loops=frozenset(_loops(folder)),
        links=frozenset(link for link in os.listdir("/sys/class/net") if link.startswith("stk")),
        foreign=frozenset(_processes_in(name)),
    )


def _cgroups(name: str) -> list[str]:
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if " - cgroup" not in line:
            continue
        for root, folders, _ in os.walk(line.split()[4]):
            if Path(root).name == name:
                found.extend(f"{root}/{folder}" for folder in folders)
                folders.clear()
    return found


def _loops(folder: Path) -> list[str]:
    backing = []
    for device in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            backing.append(device.read_text().strip())
    return [path for path in backing if str(folder) in path]


def _processes_in(name: str) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            zombie = (process / "stat").read_text().rpartition(") ")[2].startswith("Z")
            if not zombie and name in (process / "cgroup").read_text():
                found.append(f"{process.name} {(process / 'comm').read_text().strip()}")
    return found
