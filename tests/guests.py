"""A guest for tests that boot VMs: built once for each kernel package and init, and kept in the cache folder."""

import functools
import hashlib
import os
import shutil
from pathlib import Path

from stoker.packaging.guest.guests import Guests
from stoker.packaging.guest.kernel_package import KernelUnavailable, fetch
from stoker.sandbox.qemu.command import PROGRAM
from stoker.sandbox.qemu.driver import GuestFolder

BIN = Path(__file__).resolve().parents[1] / "native" / "bin"
CACHE = Path(os.environ.get("STOKER_TEST_GUEST_CACHE", "/var/tmp/stoker-guest-cache"))
KERNEL_CACHE = CACHE / "kernel.deb"


@functools.cache
def missing_for_vms() -> str:
    """What this host lacks to boot VMs; empty when nothing."""
    if os.geteuid() != 0:
        return "root, for the sandboxes that VMs run in"
    if not os.path.exists(PROGRAM):
        return "qemu-system-x86 (apt install qemu-system-x86)"
    if os.uname().machine != "x86_64":
        return "an x86-64 host"
    try:
        kernel()
    except KernelUnavailable as problem:
        return f"a kernel for guests: {problem}"
    return ""


def kernel() -> bytes:
    """The distribution's package, downloaded once."""
    if not KERNEL_CACHE.exists():
        content, _ = fetch("", "")
        CACHE.mkdir(mode=0o755, parents=True, exist_ok=True)
        written = KERNEL_CACHE.with_suffix(f".{os.getpid()}")
        written.write_bytes(content)
        written.rename(KERNEL_CACHE)
    return KERNEL_CACHE.read_bytes()


@functools.cache
def guests_data() -> Path:
    """A data folder in which the guest of this checkout is built."""
    digest = hashlib.sha256(kernel())
    for part in (BIN / "stoker-guest", BIN / "stoker-init", *sorted(_builder())):
        digest.update(part.read_bytes())
    data = CACHE / digest.hexdigest()[:16]
    if not (data / "guests" / "lock.json").exists():
        building = data.with_name(f"{data.name}.{os.getpid()}")
        Guests(building).build(
            kernel(), kernel_name="test", init=BIN / "stoker-guest", function_init=BIN / "stoker-init"
        )
        try:
            building.rename(data)
        except OSError:  # another process was faster; its result is the same
            shutil.rmtree(building)
    return data


def guest_folder() -> GuestFolder:
    """The guest, verified."""
    guests = Guests(guests_data())
    guest = guests.verified()
    folder = guests.folder(guest.version)
    return GuestFolder(folder, guest.version)


def _builder() -> list[Path]:
    return list((BIN.parents[1] / "src" / "stoker" / "packaging" / "guest").glob("*.py"))
