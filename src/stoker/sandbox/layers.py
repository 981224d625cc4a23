"""What stands around a process, as the host's /proc tells: for people, read when they ask."""

import platform
from contextlib import suppress
from pathlib import Path

SECCOMP_MODES = ("none", "strict", "filter")


def pid_of(pidfd: int) -> int:
    """The process that a pidfd names; 0 when it has ended."""
    for line in _lines(f"/proc/self/fdinfo/{pidfd}"):
        if line.startswith("Pid:"):
            return max(0, int(line.split()[1]))
    return 0


def child_of(pid: int) -> int:
    """The oldest child of a process's main thread; 0 without one."""
    children = " ".join(_lines(f"/proc/{pid}/task/{pid}/children")).split()
    return int(children[0]) if children else 0


def around(pid: int) -> dict[str, str]:
    """Its user, control groups and seccomp mode; empty when it has ended."""
    fields = (line.partition(":") for line in _lines(f"/proc/{pid}/status"))
    status = {name: value.split() for name, _, value in fields}
    if not status.get("Uid"):
        return {}
    mode = int(status.get("Seccomp", ["0"])[0])
    filters = status.get("Seccomp_filters", ["0"])[0]
    privileges = "no new privileges" if status.get("NoNewPrivs") == ["1"] else "may gain privileges"
    groups = {line.split(":", 2)[2] for line in _lines(f"/proc/{pid}/cgroup")}
    return {
        "jail": f"host uid {status['Uid'][1]}, capabilities {status.get('CapEff', ['?'])[0]}, {privileges}",
        "cgroup": ", ".join(sorted(groups - {"/"})),
        "seccomp": f"seccomp {SECCOMP_MODES[mode] if mode < 3 else mode}, {filters} deep",
    }


def host_layers() -> dict[str, str]:
    """Operating system and kernel of this host, which a container shares."""
    name = ""
    with suppress(OSError):
        name = platform.freedesktop_os_release().get("PRETTY_NAME", "")
    return {"guest_os": f"{name} (the host's)".strip(), "kernel": f"{platform.release()} (the host's)"}


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
