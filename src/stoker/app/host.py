"""Looks at the host, read-only: what sandboxes need, what is there, and what is lost without it."""

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from stoker.app.findings import Finding
from stoker.app.guests import built_guests
from stoker.app.microvm_host import microvm_findings
from stoker.app.native import NativeMissing, native_directory, zygote_module
from stoker.packaging import landlock, seccomp
from stoker.packaging.guest.guests import GuestUnusable
from stoker.sandbox.qemu.command import PROGRAM

ADMIN_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
MINIMUM_KERNEL = (5, 15)
KERNEL_OF_IMAGES = (6, 4)
"""Mounts images of code, whose blocks are smaller than a page."""
SIMPLE_QUOTA_KERNEL = (6, 7)


def examine(data: Path) -> list[Finding]:
    """Every check in reading order; none of them changes anything."""
    checks: tuple[Callable[[], Finding], ...] = (
        _kernel,
        _native,
        _confinement,
        _privilege,
        _user_namespaces,
        _uid_ranges,
        _limits,
        _freezer,
        _tmp,
        _code,
        _egress,
        _python,
        _zygotes,
        _node,
        _qemu,
        lambda: _guest(data),
        lambda: _data(data),
    )
    return [*(check() for check in checks), *microvm_findings()]


def kernel_version() -> tuple[int, int]:
    """(major, minor) of the running kernel."""
    match = re.match(r"(\d+)\.(\d+)", platform.release())
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _kernel() -> Finding:
    if kernel_version() >= MINIMUM_KERNEL:
        return Finding("ok", "kernel", platform.release())
    return Finding(
        "missing", "kernel", platform.release(), "sandboxes need 5.15 or newer (mount API, cgroup.kill)"
    )


def _native() -> Finding:
    try:
        return Finding("ok", "native programs", str(native_directory()))
    except NativeMissing as problem:
        return Finding("missing", "native programs", "not built", str(problem))


def _confinement() -> Finding:
    missing = [
        name
        for name, here in (("Landlock", landlock.version() > 0), ("seccomp", seccomp.available()))
        if not here
    ]
    if not missing:
        return Finding("ok", "confined processes", "Landlock and seccomp")
    return Finding(
        "degraded",
        "confined processes",
        f"no {' and no '.join(missing)}",
        "what reads uploaded code and images is held by fewer walls; byte code is not compiled ahead",
    )


def _privilege() -> Finding:
    if os.geteuid() == 0:
        return Finding("ok", "privilege", "root (the service itself gives it up)")
    return Finding(
        "degraded", "privilege", "ordinary user", "no egress; limits only where cgroups are delegated"
    )


def _user_namespaces() -> Finding:
    most = _read("/proc/sys/user/max_user_namespaces")
    if most in ("", "0"):
        return Finding("missing", "user namespaces", most or "none", "set user.max_user_namespaces above 0")
    refused = _read("/proc/sys/kernel/unprivileged_userns_clone") == "0"
    restricted = _read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1"
    if os.geteuid() != 0 and (refused or restricted):
        return Finding(
            "missing", "user namespaces", "closed to ordinary users", "open them, or start as root"
        )
    return Finding("ok", "user namespaces", f"up to {most}")


def _uid_ranges() -> Finding:
    if os.geteuid() == 0:
        return Finding("ok", "uid ranges", "one of 65,536 ids for each sandbox")
    name = os.environ.get("USER", "")
    granted = any(
        line.startswith((f"{name}:", f"{os.getuid()}:")) for line in _read("/etc/subuid").splitlines()
    )
    if granted and shutil.which("newuidmap"):
        return Finding("ok", "uid ranges", "/etc/subuid")
    return Finding(
        "degraded", "uid ranges", "none", "sandboxes share your uid; install uidmap and fill /etc/subuid"
    )


def _limits() -> Finding:
    mounts = _read("/proc/self/mountinfo")
    v1 = [name for name in ("memory", "cpu", "pids") if re.search(rf" - cgroup \S+ \S*\b{name}\b", mounts)]
    v2 = " - cgroup2 " in mounts
    if len(v1) == 3:
        return Finding("ok", "cgroup limits", "cgroup v1 controllers" + (", v2 beside them" if v2 else ""))
    available = _read("/sys/fs/cgroup/cgroup.controllers").split()
    if v2 and {"memory", "cpu", "pids"} <= set(available):
        return Finding("ok", "cgroup limits", "cgroup v2")
    return Finding("degraded", "cgroup limits", "incomplete", "memory, CPU or pids limits are not enforced")


def _freezer() -> Finding:
    if " - cgroup2 " in _read("/proc/self/mountinfo"):
        return Finding("ok", "freeze and kill", "cgroup v2")
    return Finding(
        "degraded", "freeze and kill", "no cgroup v2 mounted", "slower: the v1 freezer, signal by signal"
    )


def _tmp() -> Finding:
    if os.geteuid() != 0:
        return Finding("degraded", "/tmp", "tmpfs", "counts as the sandbox's memory")
    if not Path("/dev/loop-control").exists():
        return Finding("degraded", "/tmp", "no loop devices", "tmpfs: counts as the sandbox's memory")
    quotas = kernel_version() >= SIMPLE_QUOTA_KERNEL and "btrfs" in _read("/proc/filesystems")
    if quotas and shutil.which("mkfs.btrfs", path=ADMIN_PATH):
        return Finding("ok", "/tmp", "btrfs simple quotas")
    if shutil.which("mkfs.ext4", path=ADMIN_PATH):
        return Finding(
            "ok", "/tmp", "ext4 volumes prepared ahead (btrfs-progs and kernel 6.7 make it quicker)"
        )
    return Finding("degraded", "/tmp", "no mkfs", "tmpfs; install btrfs-progs or e2fsprogs")


def _code() -> Finding:
    missing = [
        what
        for what, here in (
            ("root", os.geteuid() == 0),
            ("Linux 6.4", kernel_version() >= KERNEL_OF_IMAGES),
            ("EROFS (the kernel's module erofs)", "erofs" in _read("/proc/filesystems")),
        )
        if not here
    ]
    if not missing:
        return Finding("ok", "code", "mounted packed (EROFS)")
    return Finding(
        "degraded",
        "code",
        f"unpacked: no {', no '.join(missing)}",
        "a zip is unpacked again at its first use after a start; container images are refused",
    )


def _egress() -> Finding:
    if os.geteuid() != 0:
        return Finding("degraded", "egress", "needs root", "functions reach their loopback only")
    nft = shutil.which("nft", path=ADMIN_PATH)
    if nft and _forwarding_is_refused(nft):
        return Finding(
            "degraded",
            "egress",
            "another firewall drops forwarded packets",
            "allow stk+ there (docs/isolation.md), or functions reach their loopback only",
        )
    if nft:
        return Finding("ok", "egress", "nftables")
    return Finding("degraded", "egress", "no nft", "functions reach their loopback only; install nftables")


def _forwarding_is_refused(nft: str) -> bool:
    """Docker's and ufw's way: a FORWARD chain whose policy is drop and that does not know our links."""
    shown = subprocess.run(
        [nft, "list", "chain", "ip", "filter", "FORWARD"], capture_output=True, text=True, check=False
    )
    return "policy drop" in shown.stdout and "stk" not in shown.stdout


def _python() -> Finding:
    found = sorted({path.name for folder in ("/usr/bin", "/usr/local/bin") for path in _versions(folder)})
    if found:
        return Finding("ok", "Python runtimes", ", ".join(found))
    return Finding("degraded", "Python runtimes", "none below /usr", "install python3")


def _zygotes() -> Finding:
    lost = "pre-warmed Python sandboxes are launched one by one and share no memory"
    if os.geteuid() != 0:
        return Finding("degraded", "zygotes", "need root", lost)
    try:
        module = zygote_module()
    except NativeMissing:
        module = None
    if module is None:
        return Finding("degraded", "zygotes", "their module is not built", lost)
    return Finding("ok", "zygotes", "pre-warmed Python sandboxes can share memory")


def _versions(folder: str) -> list[Path]:
    return [path for path in Path(folder).glob("python3.*") if re.fullmatch(r"python3\.\d+", path.name)]


def _node() -> Finding:
    node = next((path for path in ("/usr/bin/node", "/usr/local/bin/node") if Path(path).exists()), None)
    if node:
        return Finding("ok", "Node runtime", node)
    return Finding(
        "degraded", "Node runtime", "none below /usr", "install nodejs, or npm's node package in lang_dir"
    )


def _qemu() -> Finding:
    if Path(PROGRAM).exists():
        return Finding("ok", "qemu", PROGRAM)
    return Finding("ok", "qemu", "none", "isolation qemu needs it: apt install qemu-system-x86")


def _guest(data: Path) -> Finding:
    try:
        current, found = built_guests(data)
    except GuestUnusable as problem:
        return Finding("degraded", "guest", "damaged", str(problem))
    kernel = next((guest.kernel for guest in found if guest.version == current), "")
    if kernel:
        return Finding("ok", "guest", f"{current}, kernel of {kernel}")
    return Finding("ok", "guest", "none", "micro-VMs need one: stoker guest build")


def _data(data: Path) -> Finding:
    existing = next((folder for folder in (data, *data.parents) if folder.exists()), Path("/"))
    free_gb = shutil.disk_usage(existing).free / 2**30
    verdict = "ok" if free_gb > 2 else "degraded"
    return Finding(
        verdict, "data folder", f"{data} ({free_gb:.0f} GB free)", "" if verdict == "ok" else "nearly full"
    )


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
