"""Snapshots of VMs on disk: named by everything they depend on, written once, sealed, verified before use.

A memory file is mapped by every VM that was restored from it: it never changes once it is sealed.
"""

import asyncio
import hashlib
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from stoker.core.errors import SandboxError
from stoker.sandbox.firecracker import records as fc
from stoker.sandbox.firecracker.sandbox import FirecrackerSandbox

SNAPSHOTS_MAX = 64
"""On one worker; the longest unused goes first."""
HELD_S = 20.0
"""Until a launched runtime asks for its first work."""
_FILES = ("state", "memory")


class SnapshotBroken(SandboxError):
    """What is on disk is not what was sealed; it has been removed."""


class SnapshotKey(msgspec.Struct, frozen=True):
    """A snapshot fits where all of this is the same, and nowhere else.

    ``content`` is empty for a pool's runtime without any function; for SnapStart it is the version's digest.
    """

    runtime: str
    memory_mb: int
    tmp_mb: int
    guest_version: str
    firecracker_version: str
    host_kernel: str
    cpu_model: str
    egress: bool = False
    content: str = ""

    def name(self) -> str:
        """A folder's name."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()[:40]


class Seal(msgspec.Struct, frozen=True):
    """What a sealed snapshot consists of."""

    key: SnapshotKey
    digests: dict[str, str]
    sizes: dict[str, int]


class SnapshotFiles(msgspec.Struct, frozen=True):
    """Read-only descriptors of one snapshot's files; they belong to ``SnapshotStore.opened``."""

    state: int
    memory: int


class SnapshotStore:
    """Owns a folder, mode 0700. Each snapshot is verified in full when it is first used in a process's life,
    and by its files' identity afterwards."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._verified: dict[str, tuple[tuple[int, ...], ...]] = {}

    def open(self) -> None:
        """Make the folder, and remove what was never sealed."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left in self._folder.glob(".new-*"):
            shutil.rmtree(left)

    def has(self, key: SnapshotKey) -> bool:
        """Whether one was sealed under this key."""
        return (self._folder / key.name() / "seal.json").exists()

    async def take(self, sandbox: FirecrackerSandbox, key: SnapshotKey) -> None:
        """Write a launched sandbox down once its runtime waits for work, and end it.

        Raises:
            SandboxError: it could not be; nothing is left of it.
        """
        control = sandbox.streams.control
        await control.hold(hold=True)
        try:
            await asyncio.wait_for(control.held.wait(), HELD_S)
        except TimeoutError as problem:
            raise SandboxError("the runtime did not ask for work: no snapshot of it") from problem
        await self.write(sandbox, key)

    async def write(self, sandbox: FirecrackerSandbox, key: SnapshotKey) -> None:
        """Pause, write, seal, end.

        Raises:
            SandboxError: the VMM refused, or the disk did.
        """
        new = self._folder / f".new-{key.name()}"
        try:
            new.mkdir(mode=0o700)
            await sandbox.vmm.api.pause()
            paths = [await self._hand_over(sandbox, new / name) for name in _FILES]
            await sandbox.vmm.api.create_snapshot(
                fc.SnapshotCreate(snapshot_path=paths[0], mem_file_path=paths[1])
            )
            await sandbox.destroy()  # nobody can write to the files any more
            await asyncio.to_thread(self._seal, new, key)
        except OSError as problem:
            raise SandboxError(f"the snapshot: {problem.strerror}") from problem
        finally:
            shutil.rmtree(new, ignore_errors=True)

    async def _hand_over(self, sandbox: FirecrackerSandbox, path: Path) -> str:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(fd, 0o666)  # the VMM's user is another; the folder keeps others out
            return await sandbox.vmm.add_file(fd)
        finally:
            os.close(fd)

    def _seal(self, new: Path, key: SnapshotKey) -> None:
        digests = {name: _digest(new / name) for name in _FILES}
        sizes = {name: (new / name).stat().st_size for name in _FILES}
        for name in _FILES:
            (new / name).chmod(0o444)
            _sync(new / name)
        (new / "seal.json").write_bytes(msgspec.json.encode(Seal(key, digests, sizes)))
        _sync(new / "seal.json")
        self._make_room()
        target = self._folder / key.name()
        shutil.rmtree(target, ignore_errors=True)
        new.rename(target)
        _sync(self._folder)

    def _make_room(self) -> None:
        there = sorted(self._folder.glob("[0-9a-f]*"), key=lambda path: path.stat().st_mtime_ns)
        for oldest in there[: max(0, len(there) - SNAPSHOTS_MAX + 1)]:
            shutil.rmtree(oldest)

    @contextmanager
    def _descriptors(self, name: str) -> Generator[SnapshotFiles]:
        fds: list[int] = []
        try:
            fds.extend(
                os.open(self._folder / name / file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
                for file in _FILES
            )
            yield SnapshotFiles(*fds)
        finally:
            for fd in fds:
                os.close(fd)

    @contextmanager
    def opened(self, key: SnapshotKey) -> Generator[SnapshotFiles]:
        """The verified files of a snapshot. Reads all of it the first time: call it off the loop's thread.

        Raises:
            SnapshotBroken: it is not what was sealed.
            SandboxError: there is none.
        """
        name = key.name()
        if not self.has(key):
            raise SandboxError("there is no such snapshot")
        with self._descriptors(name) as files:
            identity = tuple(_identity(fd) for fd in (files.state, files.memory))
            if self._verified.get(name) != identity:
                self._verify(name, key, files)
                self._verified[name] = identity
            os.utime(self._folder / name)
            yield files

    def _verify(self, name: str, key: SnapshotKey, files: SnapshotFiles) -> None:
        try:
            seal = msgspec.json.decode((self._folder / name / "seal.json").read_bytes(), type=Seal)
            found = {"state": _digest_of(files.state), "memory": _digest_of(files.memory)}
            if seal.key == key and seal.digests == found:
                return
        except (msgspec.DecodeError, OSError) as problem:
            shutil.rmtree(self._folder / name, ignore_errors=True)
            raise SnapshotBroken(f"a snapshot cannot be read: {problem}") from problem
        shutil.rmtree(self._folder / name, ignore_errors=True)
        raise SnapshotBroken("a snapshot is not what was sealed")


def host_key() -> tuple[str, str]:
    """(kernel release, CPU model with its microcode's revision) of this host."""
    lines = (line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines())
    said: dict[str, str] = {}
    for name, _, value in lines:
        said.setdefault(name.strip(), value.strip())
    model = "/".join(said.get(name, "") for name in ("vendor_id", "model name", "stepping", "microcode"))
    return os.uname().release, model


def _identity(fd: int) -> tuple[int, ...]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest_of(fd: int) -> str:
    with open(fd, "rb", closefd=False) as file:
        file.seek(0)
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
