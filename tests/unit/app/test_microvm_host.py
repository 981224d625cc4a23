"""What doctor says of hosts of many kinds, and that no other program than the named one is ever started."""

import hashlib
import os
from pathlib import Path

import pytest

from stoker.app.configuration import ConfigurationError
from stoker.app.microvm_host import microvm_findings
from stoker.app.microvm_programs import check_programs
from stoker.core.configuration import Settings

FILES = {
    "dev/kvm": "",
    "proc/cpuinfo": "flags : vmx",
    "proc/swaps": "Filename Type Size Used Priority\n",
    "sys/devices/system/cpu/smt/control": "off",
    "sys/kernel/mm/ksm/run": "0",
    "sys/fs/cgroup/cgroup.controllers": "cpu memory",
    "sys/devices/system/cpu/vulnerabilities/meltdown": "Mitigation: PTI",
}


def host(root: Path, **changes: str) -> Path:
    for path, text in {**FILES, **{key.replace("__", "/"): value for key, value in changes.items()}}.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


def verdicts(root: Path, environment: dict[str, str] | None = None) -> dict[str, str]:
    return {finding.what: finding.verdict for finding in microvm_findings(environment or {}, root)}


def test_a_good_host(tmp_path: Path) -> None:
    assert set(verdicts(host(tmp_path)).values()) == {"ok"}


def test_a_host_without_kvm_is_told_nothing_else(tmp_path: Path) -> None:
    assert [finding.what for finding in microvm_findings({}, tmp_path)] == ["/dev/kvm"]


@pytest.mark.parametrize(
    ("path", "text", "what"),
    [
        ("sys__devices__system__cpu__smt__control", "on", "SMT"),
        ("sys__kernel__mm__ksm__run", "1", "KSM"),
        ("proc__swaps", "Filename\n/dev/sda2 partition\n", "swap"),
        (
            "sys__devices__system__cpu__vulnerabilities__mds",
            "Vulnerable: no microcode",
            "CPU vulnerabilities",
        ),
    ],
)
def test_what_is_advised_against_degrades(tmp_path: Path, path: str, text: str, what: str) -> None:
    found = verdicts(host(tmp_path, **{path: text}))
    assert [name for name, verdict in found.items() if verdict != "ok"] == [what]


def test_a_nested_host_and_cgroup_v1_are_named(tmp_path: Path) -> None:
    root = host(tmp_path, proc__cpuinfo="flags : vmx hypervisor")
    (root / "sys/fs/cgroup/cgroup.controllers").unlink()
    said = {finding.what: finding for finding in microvm_findings({}, root)}
    assert "nested" in said["/dev/kvm"].found
    assert "more slowly" in said["cgroups for VMs"].consequence


def _program(folder: Path, name: str, version: str) -> tuple[str, str]:
    path = folder / name
    path.write_text(f"#!/bin/sh\necho 'Firecracker v{version}'\n")
    path.chmod(0o755)
    return str(path), hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(("version", "verdict"), [("1.12.1", "ok"), ("1.9.0", "degraded"), ("2.0.0", "ok")])
def test_the_version_of_the_configured_firecracker(tmp_path: Path, version: str, verdict: str) -> None:
    path, digest = _program(tmp_path, "firecracker", version)
    environment = {"STOKER_FIRECRACKER": path, "STOKER_FIRECRACKER_SHA256": digest}
    assert verdicts(host(tmp_path / "root"), environment)["firecracker"] == verdict
    environment["STOKER_FIRECRACKER_SHA256"] = "0" * 64
    assert verdicts(host(tmp_path / "root"), environment)["firecracker"] == "degraded"


def test_only_the_named_programs_are_started(tmp_path: Path) -> None:
    firecracker, its = _program(tmp_path, "firecracker", "1.12.1")
    jailer, others = _program(tmp_path, "jailer", "1.12.0")

    def settings(**fields: str) -> Settings:
        return Settings(firecracker=firecracker, jailer=jailer, **fields)

    check_programs(Settings())
    check_programs(settings(firecracker_sha256=its, jailer_sha256=others.upper()))
    with pytest.raises(ConfigurationError, match="jailer_sha256 must say"):
        check_programs(settings(firecracker_sha256=its))
    with pytest.raises(ConfigurationError, match="has the SHA-256"):
        check_programs(settings(firecracker_sha256=others, jailer_sha256=others))
    with pytest.raises(ConfigurationError, match="go together"):
        check_programs(Settings(firecracker=firecracker, firecracker_sha256=its))
    with pytest.raises(ConfigurationError, match="isolation firecracker needs"):
        check_programs(Settings(isolation="firecracker"))
    os.unlink(jailer)
    with pytest.raises(ConfigurationError, match="No such file"):
        check_programs(settings(firecracker_sha256=its, jailer_sha256=others))
