"""Looks at the host as Firecracker's production advice does (its docs/prod-host-setup.md). Read-only.

Nothing here is needed for containers: what is missing degrades micro-VMs alone.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from stoker.app.findings import Finding
from stoker.app.microvm_programs import differs, version_of

OLDEST = "1.12"
ROOT = Path("/")


def microvm_findings(environment: Mapping[str, str] = os.environ, root: Path = ROOT) -> list[Finding]:
    """Every check; most of them only where there is /dev/kvm. ``root`` is for tests."""
    kvm = _kvm(root)
    if kvm.found == "none":
        return [kvm]
    checks: tuple[Callable[[Path], Finding], ...] = (_smt, _ksm, _swap, _huge_pages, _cgroups, _mitigations)
    return [kvm, _programs(environment), *(check(root) for check in checks), _metadata(environment)]


def _read(root: Path, path: str) -> str:
    try:
        return (root / path).read_text().strip()
    except OSError:
        return ""


def _kvm(root: Path) -> Finding:
    device = root / "dev/kvm"
    if not device.exists():
        return Finding("ok", "/dev/kvm", "none", "no micro-VMs here; containers need none")
    if not os.access(device, os.R_OK | os.W_OK):
        return Finding("degraded", "/dev/kvm", "not ours to open", "micro-VMs are started by root alone")
    if "hypervisor" in _read(root, "proc/cpuinfo").split():
        consequence = "this host is a VM itself: whether a guest runs, bench/microvm tells"
        return Finding("ok", "/dev/kvm", "there, nested", consequence)
    return Finding("ok", "/dev/kvm", "there")


def _programs(environment: Mapping[str, str]) -> Finding:
    path = environment.get("STOKER_FIRECRACKER", "")
    digest = environment.get("STOKER_FIRECRACKER_SHA256", "")
    if not path:
        return Finding(
            "ok", "firecracker", "not configured", "settings firecracker and jailer name an official release"
        )
    if wrong := differs(Path(path), digest):
        return Finding("degraded", "firecracker", wrong, "stoker up refuses a program of another digest")
    version = version_of(Path(path))
    numbers = [int(part) for part in version.split("-")[0].split(".") if part.isdigit()]
    if numbers[:2] < [int(part) for part in OLDEST.split(".")]:
        return Finding(
            "degraded", "firecracker", version or "says no version", f"{OLDEST} or newer is needed"
        )
    return Finding("ok", "firecracker", f"{version}, the digest that was configured")


def _smt(root: Path) -> Finding:
    control = _read(root, "sys/devices/system/cpu/smt/control")
    if control == "on":
        consequence = "two guests can share a core and see each other's traces; echo off > .../smt/control"
        return Finding("degraded", "SMT", "on", consequence)
    return Finding("ok", "SMT", control or "unknown")


def _ksm(root: Path) -> Finding:
    if _read(root, "sys/kernel/mm/ksm/run") == "1":
        return Finding(
            "degraded", "KSM", "on", "guests can tell what others have in memory; echo 0 > .../ksm/run"
        )
    return Finding("ok", "KSM", "off")


def _swap(root: Path) -> Finding:
    if len(_read(root, "proc/swaps").splitlines()) > 1:
        consequence = "memory of guests can stay on disk, and be slow; swapoff -a, or encrypt it"
        return Finding("degraded", "swap", "on", consequence)
    return Finding("ok", "swap", "off")


def _huge_pages(root: Path) -> Finding:
    free = _read(root, "sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages") or "0"
    return Finding("ok", "huge pages of 2 MB", f"{free} free", "" if free != "0" else "not used by default")


def _cgroups(root: Path) -> Finding:
    if (root / "sys/fs/cgroup/cgroup.controllers").exists():
        return Finding("ok", "cgroups for VMs", "v2")
    return Finding("ok", "cgroups for VMs", "v1", "snapshots are restored more slowly than with v2")


def _mitigations(root: Path) -> Finding:
    folder = root / "sys/devices/system/cpu/vulnerabilities"
    names = sorted(
        path.name
        for path in folder.glob("*")
        if _read(root, str(path.relative_to(root))).startswith("Vulnerable")
    )
    if names:
        consequence = "guests can read across; newer microcode or kernel, see Firecracker's advice"
        return Finding("degraded", "CPU vulnerabilities", ", ".join(names), consequence)
    return Finding("ok", "CPU vulnerabilities", "mitigated, as far as the kernel knows")


def _metadata(environment: Mapping[str, str]) -> Finding:
    if environment.get("STOKER_EGRESS", "").lower() in ("0", "false"):
        return Finding("ok", "169.254.169.254", "out of reach", "no network in any VM")
    return Finding("ok", "169.254.169.254", "refused to guests by the egress rules")
