"""What Firecracker's API takes and answers, as records: field names are those on the wire.

After the project's OpenAPI description (1.12 to 1.17); pure. Knows nothing of sockets, sandboxes or files.
"""

import enum
from typing import Any

import msgspec

Version = tuple[int, int, int]
OLDEST: Version = (1, 12, 0)


class Record(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A request's body: what is left at its default is not sent."""


class TokenBucket(Record, frozen=True):
    """``size`` tokens, refilled within ``refill_time`` ms; ``one_time_burst`` comes on top, once."""

    size: int
    refill_time: int
    one_time_burst: int | None = None


class RateLimiter(Record, frozen=True):
    """Bytes and operations a device may move."""

    bandwidth: TokenBucket | None = None
    ops: TokenBucket | None = None


class BootSource(Record, frozen=True):
    """Paths are the VMM's own: inside its root."""

    kernel_image_path: str
    initrd_path: str | None = None
    boot_args: str | None = None


class Drive(Record, frozen=True):
    """A virtio block device backed by a file."""

    drive_id: str
    is_root_device: bool
    path_on_host: str
    is_read_only: bool
    partuuid: str | None = None
    cache_type: str | None = None
    io_engine: str | None = None
    rate_limiter: RateLimiter | None = None


class DriveUpdate(Record, frozen=True):
    """Another file behind a drive, or another rate, while the machine runs."""

    drive_id: str
    path_on_host: str | None = None
    rate_limiter: RateLimiter | None = None


class MachineConfig(Record, frozen=True):
    """``smt`` stays off: siblings of a core would be two guests' at times."""

    vcpu_count: int
    mem_size_mib: int
    smt: bool = False
    track_dirty_pages: bool = False
    cpu_template: str | None = None
    huge_pages: str | None = None


class MachineUpdate(Record, frozen=True):
    """What of the machine is to change before it starts."""

    vcpu_count: int | None = None
    mem_size_mib: int | None = None
    smt: bool | None = None
    track_dirty_pages: bool | None = None
    cpu_template: str | None = None
    huge_pages: str | None = None


class NetworkInterface(Record, frozen=True):
    """A virtio network device on a tap device."""

    iface_id: str
    host_dev_name: str
    guest_mac: str | None = None
    mtu: int | None = None
    rx_rate_limiter: RateLimiter | None = None
    tx_rate_limiter: RateLimiter | None = None


class NetworkUpdate(Record, frozen=True):
    """Other rates of a network device."""

    iface_id: str
    rx_rate_limiter: RateLimiter | None = None
    tx_rate_limiter: RateLimiter | None = None


class Vsock(Record, frozen=True):
    """The socket device: ``uds_path`` for connections to the guest, ``uds_path_PORT`` for those from it."""

    guest_cid: int
    uds_path: str


class Entropy(Record, frozen=True):
    """The virtio entropy device."""

    rate_limiter: RateLimiter | None = None


class Serial(Record, frozen=True):
    """Where the serial port's output goes."""

    serial_out_path: str | None = None
    rate_limiter: TokenBucket | None = None


class Balloon(Record, frozen=True):
    """The balloon device. ``stats_polling_interval_s`` can only be 0 for ever, or never."""

    amount_mib: int
    deflate_on_oom: bool
    stats_polling_interval_s: int = 0
    free_page_hinting: bool = False
    free_page_reporting: bool = False


class BalloonUpdate(Record, frozen=True):
    """How large the balloon is to be."""

    amount_mib: int


class BalloonStatisticsUpdate(Record, frozen=True):
    """How often the guest is asked for statistics."""

    stats_polling_interval_s: int


class BalloonStatistics(msgspec.Struct, frozen=True):
    """What the guest said last; the guest's words, not to be trusted."""

    target_pages: int
    actual_pages: int
    target_mib: int
    actual_mib: int
    free_memory: int | None = None
    total_memory: int | None = None
    available_memory: int | None = None
    disk_caches: int | None = None
    oom_kill: int | None = None


class Logger(Record, frozen=True):
    """Where the VMM's own log goes."""

    log_path: str | None = None
    level: str | None = None
    show_level: bool = False
    show_log_origin: bool = False
    module: str | None = None


class Metrics(Record, frozen=True):
    """A file or a named pipe that takes one JSON object at each flush."""

    metrics_path: str


class ActionType(enum.StrEnum):
    """What can be asked to happen."""

    FLUSH_METRICS = "FlushMetrics"
    INSTANCE_START = "InstanceStart"
    SEND_CTRL_ALT_DEL = "SendCtrlAltDel"


class Action(Record, frozen=True):
    """One action."""

    action_type: ActionType


class RunState(enum.StrEnum):
    """What a machine that started can be told to be."""

    PAUSED = "Paused"
    RESUMED = "Resumed"


class VmState(Record, frozen=True):
    """Pause or resume."""

    state: RunState


class SnapshotType(enum.StrEnum):
    """The whole memory, or what changed since the last one."""

    FULL = "Full"
    DIFF = "Diff"


class SnapshotCreate(Record, frozen=True):
    """Both files are made, or emptied first."""

    snapshot_path: str
    mem_file_path: str
    snapshot_type: SnapshotType | None = None


class BackendType(enum.StrEnum):
    """A file that is mapped, or a process that answers page faults."""

    FILE = "File"
    UFFD = "Uffd"


class MemoryBackend(Record, frozen=True):
    """Where a restored machine's memory comes from: a file, or a Unix socket where a handler listens."""

    backend_type: BackendType
    backend_path: str


class NetworkOverride(Record, frozen=True):
    """Another tap device for a network device of the snapshot."""

    iface_id: str
    host_dev_name: str


class VsockOverride(Record, frozen=True):
    """Another socket path for the snapshot's vsock device."""

    uds_path: str


class SnapshotLoad(Record, frozen=True):
    """Only for a VMM that was told nothing yet but its logger and metrics.

    ``track_dirty_pages`` came with 1.13; ``enable_diff_snapshots`` says the same before.
    """

    snapshot_path: str
    mem_backend: MemoryBackend
    track_dirty_pages: bool = False
    enable_diff_snapshots: bool = False
    resume_vm: bool = False
    network_overrides: tuple[NetworkOverride, ...] = ()
    vsock_override: VsockOverride | None = None
    clock_realtime: bool = False


class InstanceState(enum.StrEnum):
    """Where a machine is."""

    NOT_STARTED = "Not started"
    RUNNING = "Running"
    PAUSED = "Paused"


class InstanceInfo(msgspec.Struct, frozen=True):
    """What a VMM says of itself."""

    id: str
    state: InstanceState
    vmm_version: str
    app_name: str


class FirecrackerVersion(msgspec.Struct, frozen=True):
    """The answer to /version."""

    firecracker_version: str


class Fault(msgspec.Struct, frozen=True):
    """The body of a refusal."""

    fault_message: str


Configuration = dict[str, Any]
"""The answer to /vm/config: each device's record as it was put, by the name of its path."""


def parse_version(text: str) -> Version:
    """``1.12.1``, ``v1.12.1`` or ``1.17.0-dev`` as numbers.

    Raises:
        ValueError: no such thing.
    """
    parts = text.removeprefix("v").partition("-")[0].split(".")
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() and len(part) < 6 for part in parts):
        raise ValueError(f"not a version: {text[:40]!r}")
    major, minor, patch = (int(part) for part in parts)
    return major, minor, patch
