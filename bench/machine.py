"""What this machine is and how busy it is, and the processes under one: their CPU time and memory."""

import os
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path

KB = 1024
BUSY_LOAD_SHARE = 0.25
"""A one-minute load average above this share of the CPUs spoils absolute figures."""


def describe() -> dict[str, str]:
    """CPU model, cores, memory, kernel, Python."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.machine(),
        "cpus": str(os.cpu_count()),
        "memory_gib": f"{memory_bytes()['MemTotal'] / 2**30:.0f}",
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def load_average() -> float:
    """Of the last minute."""
    return os.getloadavg()[0]


def is_busy() -> bool:
    """Whether others use this machine so much that absolute figures mean little."""
    return load_average() > BUSY_LOAD_SHARE * (os.cpu_count() or 1)


def memory_bytes() -> dict[str, int]:
    """/proc/meminfo by field, in bytes."""
    fields = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    return {field[0].rstrip(":"): int(field[1]) * KB for field in fields}


def descendants(pid: int) -> list[int]:
    """Every process below this one; it is not among them."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(") ")[2].split()[1])
        except OSError:
            continue  # ended meanwhile
        children.setdefault(parent, []).append(int(folder.name))
    found: list[int] = []
    waiting = [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def named(pids: Iterable[int], name: str) -> list[int]:
    """Those whose command name begins so (the kernel keeps 15 letters of it)."""
    found: list[int] = []
    for pid in pids:
        try:
            if Path(f"/proc/{pid}/comm").read_text().strip() == name[:15]:
                found.append(pid)
        except OSError:
            continue
    return found


def cpu_s(pids: Iterable[int]) -> dict[int, float]:
    """User and system time that each of these processes, with its reaped children, has used so far."""
    used: dict[int, float] = {}
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        except OSError:
            continue  # ended meanwhile
        used[pid] = sum(int(field) for field in fields[11:15]) / os.sysconf("SC_CLK_TCK")
    return used


def cpu_spent_s(before: Mapping[int, float], after: Mapping[int, float]) -> float:
    """Between two looks, of what is alive at the second; what ended between them is not counted."""
    return sum(used - before.get(pid, 0.0) for pid, used in after.items())


def pss_bytes(pids: Iterable[int]) -> int:
    """Proportional set size of all together: shared pages count once."""
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue  # ended, or a zombie
        total += sum(int(line.split()[1]) * KB for line in lines if line.startswith("Pss:"))
    return total
