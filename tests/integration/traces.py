"""What a Stoker leaves on a host, counted: processes, mounts, cgroups, links, loop devices."""

import os
import re
import subprocess
from pathlib import Path

import msgspec


class Traces(msgspec.Struct, frozen=True):
    """Names of what one Stoker has on the host."""

    processes: frozenset[str]
    mounts: frozenset[str]
    cgroups: frozenset[str]
    links: frozenset[str]
    loops: frozenset[str]

    def left(self) -> dict[str, list[str]]:
        """All of it by kind; empty when nothing is there."""
        found = {kind: sorted(getattr(self, kind)) for kind in self.__struct_fields__}
        return {kind: names for kind, names in found.items() if names}


def traces(data: Path) -> Traces:
    """What is on the host of the Stoker with this data folder; others may run beside it."""
    mark = _instance(data)
    return Traces(
        processes=frozenset(_processes(data, mark)),
        mounts=frozenset(name for name in _mounts() if str(data) in name),
        cgroups=frozenset(name for name in _cgroups() if mark in name),
        links=frozenset(_links(data)),
        loops=frozenset(name for name in _loops() if str(data) in name),
    )


def _instance(data: Path) -> str:
    """How the jail names its control groups: after its state folder's device and inode."""
    status = (data / "jail").stat()
    return f"stoker.{status.st_dev:x}-{status.st_ino:x}"


def _links(data: Path) -> list[str]:
    """Host ends of this jail's egress links, ``stk<instance>-<number>``; the instance is that of its lock."""
    names = os.listdir("/sys/class/net")
    instances: set[str] = set()
    for pid in stoker_processes(data)["jail"]:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            lock = re.fullmatch(r"/run/stoker-egress-\d+-(\d+)\.lock", os.readlink(entry))
            if lock:
                instances.add(lock[1])
    return [name for name in names if any(name.startswith(f"stk{number}-") for number in instances)]


def stoker_processes(data: Path) -> dict[str, list[int]]:
    """Pids of one Stoker by role: supervisor, jail, service, and every process of a sandbox uid."""
    roles: dict[str, list[int]] = {"supervisor": [], "jail": [], "service": [], "sandbox": []}
    for pid, command, uid in _table():
        if uid >= 0x20000000:
            roles["sandbox"].append(pid)
        elif "stoker-supervisor" in command and str(data) in command:
            roles["supervisor"].append(pid)
    for pid, command, _ in _table():
        if _parent(pid) in roles["supervisor"]:
            roles["jail" if "stoker-jail" in command else "service"].append(pid)
    return roles


def _table() -> list[tuple[int, str, int]]:
    rows: list[tuple[int, str, int]] = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            rows.append((int(entry.name), command, entry.stat().st_uid))
        except OSError:
            continue
    return rows


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError):
        return 0


def _processes(data: Path, mark: str) -> list[str]:
    """By what they were started with, and the sandboxes' by their control group."""
    found: list[str] = []
    for pid, command, _ in _table():
        try:
            groups = Path(f"/proc/{pid}/cgroup").read_text()
        except OSError:
            continue
        if mark in groups or (str(data) in command and "stoker" in command and "pytest" not in command):
            found.append(f"{pid} {command[:80]}")
    return found


def _mounts() -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line.split()[4] for line in lines]


def _cgroups() -> list[str]:
    done = subprocess.run(
        ["find", "/sys/fs/cgroup", "-type", "d", "-name", "*stoker*"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.split()


def _loops() -> list[str]:
    found: list[str] = []
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            found.append(f"{backing.parts[3]} {backing.read_text().strip()}")
        except OSError:
            continue
    return found
