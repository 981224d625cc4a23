"""What a Stoker leaves on a host, counted: processes, mounts, cgroups, links, loop devices."""

import os
import subprocess
from pathlib import Path

import msgspec


class Traces(msgspec.Struct, frozen=True):
    """Names of what is there now."""

    processes: frozenset[str]
    mounts: frozenset[str]
    cgroups: frozenset[str]
    links: frozenset[str]
    loops: frozenset[str]

    def beyond(self, earlier: "Traces") -> dict[str, list[str]]:
        """What is there now and was not before, by kind; empty when nothing leaked."""
        found = {
            kind: sorted(getattr(self, kind) - getattr(earlier, kind)) for kind in self.__struct_fields__
        }
        return {kind: names for kind, names in found.items() if names}


def traces() -> Traces:
    """Look at the whole host."""
    return Traces(
        processes=frozenset(_processes()),
        mounts=frozenset(_mounts()),
        cgroups=frozenset(_cgroups()),
        links=frozenset(name for name in os.listdir("/sys/class/net") if name.startswith("stk")),
        loops=frozenset(_loops()),
    )


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


def _processes() -> list[str]:
    marks = ("stoker-supervisor", "stoker-jail", "stoker-init", "-m stoker.app", "stoker.packaging")
    return [
        f"{pid} {command[:80]}"
        for pid, command, uid in _table()
        if uid >= 0x20000000 or any(mark in command for mark in marks)
    ]


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
