"""The fixed records of the jail's socket, as native/jail/protocol.h defines them.

Pure: bytes in, records out. Knows nothing of sockets or of what a sandbox is for.
"""

import enum
import struct
from ipaddress import IPv4Address

import msgspec

from stoker.sandbox.driver import MountPoint, SandboxLimits, SandboxUser

MAGIC = 0x4B4C4A53
VERSION = 6
CPU_PERIOD_US = 100_000
MEBIBYTE = 1 << 20

_REQUEST = struct.Struct("<IHHQQQQIIIIQIIQII")
_ANSWER = struct.Struct("<IHHQiIQIIIIII64s")

ANSWER_BYTES = _ANSWER.size
ANSWER_FDS_MAX = 18
EGRESS_FLAG = 1
ZYGOTE_FLAG = 2


class Operation(enum.IntEnum):
    """What can be asked of the jail."""

    HELLO = 1
    CREATE = 2
    MOUNT = 3
    LIMITS = 4
    DESTROY = 5
    COUNT = 6
    IMAGE = 7
    VOLUME = 8
    VOLUME_IMAGE = 9
    UNMOUNT = 10
    ABORT = 11
    VM = 12
    VM_FILES = 13


class Handle(enum.IntEnum):
    """Descriptors that come with an answer: their bits, and their order."""

    PIDFD = 0
    CONTROL = 1
    RUNTIME_API = 2
    SERVICE_API = 3
    RUNTIME_SOCKET = 4
    OUTPUT = 5
    TELEMETRY = 6
    FREEZE = 7
    KILL = 8
    EVENTS = 9
    MEMORY_CURRENT = 10
    MEMORY_PEAK = 11
    OOM = 12
    OOM_EVENT = 13
    DNS_UDP = 14
    DNS_TCP = 15
    ROOT = 16
    DEVICE = 17


class Feature(enum.IntFlag):
    """What the jail found on this host."""

    LIMITS_V1 = 0x01
    LIMITS_V2 = 0x02
    FREEZE_V2 = 0x04
    FREEZE_V1 = 0x08
    EGRESS_READY = 0x10
    ROOTLESS = 0x20
    ZYGOTES = 0x40
    IMAGES = 0x80
    VOLUMES = 0x100
    VMS = 0x200


DEGRADED = (
    "memory is not limited: no writable memory controller (delegate cgroups, or run as root)",
    "CPU is not limited: no writable cpu controller (delegate cgroups, or run as root)",
    "processes are not limited: no writable pids controller (delegate cgroups, or run as root)",
    "idle sandboxes are stopped with SIGSTOP, which a function can notice: no cgroup freezer",
    "/tmp counts as the sandbox's memory: tmpfs (root, btrfs-progs or e2fsprogs bring a disk-backed one)",
    "functions cannot reach the network: no egress (root and nftables bring it)",
    "all sandboxes share one uid: no range of ids (newuidmap and /etc/subuid bring one)",
    "system calls are not filtered: no filter for this architecture",
    "the largest memory use is unknown: the kernel does not record it (cgroup v2 needs 5.19)",
    "pre-warmed Python sandboxes share no memory: no zygotes (root brings them)",
    "file system images cannot be mounted: container images are refused, code is unpacked"
    " (root and a kernel with EROFS bring it)",
    "container images are refused: no /dev/fuse to load them through (the kernel's fuse module brings it)",
)
"""Words for the bits of an answer's ``degraded``, lowest first."""

MOUNT_ORDER = (
    MountPoint.TASK, MountPoint.OPT, MountPoint.RUNTIME, MountPoint.LANG, MountPoint.CODE_CACHE,
    MountPoint.ROOT,
)  # fmt: skip


class Answer(msgspec.Struct, frozen=True):
    """One answer. ``status`` is 0 or a negative errno; ``stage`` then names the step that failed."""

    operation: int
    request_id: int
    status: int
    sandbox: int
    features: Feature
    degraded: tuple[str, ...]
    count: int
    stage: str
    handles: dict[Handle, int]
    address: str = ""
    gateway: str = ""
    """IPv4 of a virtual machine's guest, and where that sends everything; empty without a network."""


class ProtocolMismatch(Exception):
    """The other end does not speak this version of the protocol."""


def encode_request(
    operation: Operation,
    request_id: int,
    *,
    sandbox: int = 0,
    limits: SandboxLimits | None = None,
    mounts: tuple[MountPoint, ...] = (),
    egress: bool = False,
    is_zygote: bool = False,
    zygote: int = 0,
    user: SandboxUser | None = None,
) -> bytes:
    """One request record; the folders of ``mounts`` travel beside it in MOUNT_ORDER.

    ``zygote`` is the handle of the one that is to fork the process of a new sandbox.
    """
    quota_us = _cpu_quota_us(limits) if limits else 0
    return _REQUEST.pack(
        MAGIC,
        VERSION,
        operation,
        request_id,
        sandbox,
        limits.memory_mb * MEBIBYTE if limits else 0,
        limits.tmp_mb * MEBIBYTE if limits else 0,
        quota_us,
        1 if limits and limits.cpu_policy == "weight" else 0,
        limits.pids_max if limits else 0,
        limits.open_files_max if limits else 0,
        limits.cpu_group if limits else 0,
        sum(1 << MOUNT_ORDER.index(point) for point in mounts),
        (EGRESS_FLAG if egress else 0) | (ZYGOTE_FLAG if is_zygote else 0),
        zygote,
        user.uid if user else 0,
        user.gid if user else 0,
    )


def decode_answer(data: bytes, fds: list[int]) -> Answer:
    """One answer record with the descriptors that came beside it.

    Raises:
        ProtocolMismatch: not an answer of this version, or other descriptors; they stay the caller's.
    """
    if len(data) != ANSWER_BYTES:
        raise ProtocolMismatch(f"an answer of {len(data)} bytes")
    (
        magic,
        version,
        operation,
        request_id,
        status,
        mask,
        sandbox,
        features,
        degraded,
        _,
        count,
        address,
        gateway,
        stage,
    ) = _ANSWER.unpack(data)
    which = [handle for handle in Handle if mask & 1 << handle]
    if magic != MAGIC or version != VERSION or len(which) != len(fds):
        raise ProtocolMismatch(f"an answer of version {version} with {len(fds)} descriptors")
    return Answer(
        operation=operation,
        request_id=request_id,
        status=status,
        sandbox=sandbox,
        features=Feature(features),
        degraded=tuple(words for bit, words in enumerate(DEGRADED) if degraded & 1 << bit),
        count=count,
        stage=stage.split(b"\0", 1)[0].decode("ascii", "replace"),
        handles=dict(zip(which, fds, strict=True)),
        address=str(IPv4Address(address)) if address else "",
        gateway=str(IPv4Address(gateway)) if gateway else "",
    )


def _cpu_quota_us(limits: SandboxLimits) -> int:
    """The kernel's smallest quota is 1 ms a period; 0 stands for unthrottled."""
    return 0 if limits.cpu_quota <= 0 else max(1000, round(limits.cpu_quota * CPU_PERIOD_US))
