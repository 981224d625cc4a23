"""What machine a sandbox's limits make: vCPUs, memory, devices, the kernel's command line. Pure."""

import math

import msgspec

from stoker.sandbox.driver import SandboxLimits
from stoker.sandbox.firecracker import records as fc
from stoker.sandbox.guest.contract import KERNEL_ARGUMENTS, Place

MEMORY_MB_PER_VCPU = 1769
VCPUS_MAX = 32
GUEST_OVERHEAD_MB = 64
"""Kernel, init and page tables of the guest, on top of what the function may use."""
VMM_OVERHEAD_MB = 64
"""The VMM's own memory and its root (32 MB at most), on top of the guest's."""
WRITTEN_SPARE_MB = 64
"""File systems are larger than what fits into them."""
VMM_OPEN_FILES = 1024
VMM_PROCESSES_MAX = 128

GUEST_CID = 3
"""The same for every VM: its sockets are files in a root of its own."""
GUEST_MAC = "06:00:00:00:00:01"
"""The same for every VM: each is alone on its cable."""
NETWORK_ID = "eth0"
TAP_NAME = "tap0"
SOCKETS = "/sockets"
VSOCK_PATH = f"{SOCKETS}/v"
METRICS_PATH = f"{SOCKETS}/metrics"

KERNEL_FILE, INITRD_FILE, FIRST_DRIVE_FILE = 0, 1, 2
STATE_FILE = FIRST_DRIVE_FILE + len(Place)
MEMORY_FILE = STATE_FILE + 1

NETWORK_BYTES_PER_S = 80 << 20
DISK_BYTES_PER_S = 256 << 20
DISK_OPERATIONS_PER_S = 20_000
ENTROPY_BYTES_PER_S = 64 << 10
REFILL_MS = 100


class Machine(msgspec.Struct, frozen=True):
    """A VM: what the guest has, and what the host's limits around its VMM are."""

    vcpus: int
    guest_memory_mib: int
    vmm_limits: SandboxLimits


def machine_of(limits: SandboxLimits) -> Machine:
    """One vCPU for each 1,769 MB begun; the control group's quota takes the fraction."""
    vcpus = min(VCPUS_MAX, max(1, math.ceil(limits.memory_mb / MEMORY_MB_PER_VCPU)))
    guest_mb = limits.memory_mb + GUEST_OVERHEAD_MB
    guest_mb += guest_mb % 2
    return Machine(
        vcpus,
        guest_mb,
        msgspec.structs.replace(
            limits,
            memory_mb=guest_mb + VMM_OVERHEAD_MB,
            tmp_mb=max(limits.tmp_mb, guest_mb) + WRITTEN_SPARE_MB,
            pids_max=VMM_PROCESSES_MAX,
            open_files_max=VMM_OPEN_FILES,
        ),
    )


def file_path(number: int) -> str:
    """Where the VMM sees the file of this number."""
    return f"/f{number}"


def drive_of(place: Place, number: int | None = None) -> fc.Drive:
    """The block device of a place; ``number`` of its file, if not the first."""
    path = file_path(FIRST_DRIVE_FILE + place if number is None else number)
    return fc.Drive(
        drive_id=place.name.lower(),
        is_root_device=False,  # the initramfs finds the root; this would put an argument on the command line
        path_on_host=path,
        is_read_only=place is not Place.SCRATCH,
        rate_limiter=_rate(DISK_BYTES_PER_S, DISK_OPERATIONS_PER_S),
    )


def boot_source(debug: bool = False) -> fc.BootSource:
    """The kernel with the guest's arguments; serial only for debugging."""
    console = "console=ttyS0" if debug else "8250.nr_uarts=0"
    own = "pci=off i8042.nomux i8042.dumbkbd stoker.link=vsock"
    return fc.BootSource(
        kernel_image_path=file_path(KERNEL_FILE),
        initrd_path=file_path(INITRD_FILE),
        boot_args=f"{KERNEL_ARGUMENTS} {own} {console}",
    )


def machine_config(machine: Machine) -> fc.MachineConfig:
    """SMT off."""
    return fc.MachineConfig(vcpu_count=machine.vcpus, mem_size_mib=machine.guest_memory_mib)


def network_interface() -> fc.NetworkInterface:
    """The guest's end of its tap device, with the same rate both ways."""
    rate = _rate(NETWORK_BYTES_PER_S)
    return fc.NetworkInterface(
        iface_id=NETWORK_ID,
        host_dev_name=TAP_NAME,
        guest_mac=GUEST_MAC,
        rx_rate_limiter=rate,
        tx_rate_limiter=rate,
    )


def balloon(version: fc.Version) -> fc.Balloon:
    """Empty; the guest takes it back when it runs short, and reports free pages where that is known."""
    return fc.Balloon(amount_mib=0, deflate_on_oom=True, free_page_reporting=version >= (1, 14, 0))


def entropy() -> fc.Entropy:
    """Enough for any function, too little to starve the host."""
    return fc.Entropy(rate_limiter=_rate(ENTROPY_BYTES_PER_S))


def vsock() -> fc.Vsock:
    """The guest's way to its APIs, its output and its orders."""
    return fc.Vsock(guest_cid=GUEST_CID, uds_path=VSOCK_PATH)


def snapshot_load(resume: bool = False) -> fc.SnapshotLoad:
    """From the files that come after the drives; memory is mapped, not read."""
    return fc.SnapshotLoad(
        snapshot_path=file_path(STATE_FILE),
        mem_backend=fc.MemoryBackend(backend_type=fc.BackendType.FILE, backend_path=file_path(MEMORY_FILE)),
        resume_vm=resume,
    )


def _rate(bytes_per_s: int, operations_per_s: int = 0) -> fc.RateLimiter:
    """Buckets of a tenth of a second."""
    ops = fc.TokenBucket(size=operations_per_s // 10, refill_time=REFILL_MS) if operations_per_s else None
    return fc.RateLimiter(
        bandwidth=fc.TokenBucket(size=bytes_per_s * REFILL_MS // 1000, refill_time=REFILL_MS), ops=ops
    )
