"""What the init of a guest and the host say to each other, as native/guest/contract.h has it. Pure.

Whatever comes from a guest is hostile: decoders here answer None or raise GuestBroken, never anything else.
"""

import enum
import struct
from collections.abc import Sequence
from ipaddress import IPv4Address
from typing import Final

import msgspec

from stoker.core.errors import SandboxError
from stoker.sandbox.driver import MountPoint

VERSION: Final = 1
MAGIC: Final = 0x54534753

HOST_CID: Final = 2
PORT_CONTROL: Final = 5000
PORT_OUTPUT: Final = 5001
PORT_TELEMETRY: Final = 5002
PORT_RUNTIME: Final = 9001
PORT_SERVICE: Final = 9797
PORTS: Final = (PORT_CONTROL, PORT_OUTPUT, PORT_TELEMETRY, PORT_RUNTIME, PORT_SERVICE)

CONNECTIONS_MAX: Final = 32
BODY_BYTES_MAX: Final = 160 * 1024
REPLY_BYTES_MAX: Final = 256
ENTROPY_BYTES: Final = 64

SERIAL_NAME: Final = "stoker.link"
CHANNELS_MAX: Final = 40
FRAME_BYTES_MAX: Final = 16384
WINDOW_BYTES: Final = 65536

KERNEL_ARGUMENTS: Final = "panic=-1 reboot=t quiet loglevel=1 random.trust_cpu=on i8042.noaux i8042.nokbd"
"""For every guest; the driver adds ``stoker.link=vsock`` or ``stoker.link=serial`` and its machine's own."""


class Place(enum.IntEnum):
    """The block devices in the order in which the VMM has them."""

    ROOT = 0
    SCRATCH = 1
    TASK = 2
    OPT = 3
    RUNTIME = 4
    LANG = 5
    CODE_CACHE = 6


PLACE_OF: Final = {
    MountPoint.ROOT: Place.ROOT,
    MountPoint.TASK: Place.TASK,
    MountPoint.OPT: Place.OPT,
    MountPoint.RUNTIME: Place.RUNTIME,
    MountPoint.LANG: Place.LANG,
    MountPoint.CODE_CACHE: Place.CODE_CACHE,
}


class Order(enum.IntEnum):
    """What the host asks for."""

    ENTROPY = 1
    CLOCK = 2
    NETWORK = 3
    LIMITS = 4
    MOUNT = 5
    LAUNCH = 6
    SIGNAL = 7
    HOLD = 8
    PING = 9
    POWER_OFF = 10


class Answer(enum.IntEnum):
    """What the guest says."""

    HELLO = 64
    DONE = 65
    REPORT = 66
    MEMORY = 67
    HELD = 68


class FrameKind(enum.IntEnum):
    """Frames on a virtio-serial port."""

    OPEN = 1
    DATA = 2
    END = 3
    RESET = 4
    CREDIT = 5


RECORD = struct.Struct("<IIII")
FRAME = struct.Struct("<HBBI")
_CLOCK = struct.Struct("<qq")
_NETWORK = struct.Struct("<4sI4s4s4s4s")
_LIMITS = struct.Struct("<QIIII")
_HELLO = struct.Struct("<IIQQ64s")
_DONE = struct.Struct("<i124s")
_MEMORY = struct.Struct("<QQQ")


class GuestBroken(SandboxError):
    """The guest said what no guest of ours says: its VM is ended."""


class Record(msgspec.Struct, frozen=True):
    """One record on the control connection."""

    kind: int
    argument: int
    body: bytes


class Hello(msgspec.Struct, frozen=True):
    """How a guest begins each control connection."""

    launched: bool
    uptime_s: float
    memory_bytes: int
    release: str


class Done(msgspec.Struct, frozen=True):
    """How an order went: an errno or 0, and what failed."""

    error: int
    step: str


class Memory(msgspec.Struct, frozen=True):
    """What the function's control group uses."""

    current_bytes: int
    peak_bytes: int
    oom_kills: int


def encode(kind: Order, argument: int = 0, body: bytes = b"") -> bytes:
    """A record with its body."""
    if len(body) > BODY_BYTES_MAX:
        raise SandboxError(f"a record of {len(body)} bytes is too long for a guest")
    return RECORD.pack(MAGIC, kind, argument, len(body)) + body


def encode_clock(now_ns: int) -> bytes:
    """Nanoseconds since 1970, UTC."""
    return encode(Order.CLOCK, body=_CLOCK.pack(*divmod(now_ns, 1_000_000_000)))


def encode_network(address: str, prefix_bits: int, gateway: str, dns: Sequence[str] = ()) -> bytes:
    """IPv4 addresses in dots; ``gateway`` may be empty; three name servers at most."""
    servers = [IPv4Address(each).packed for each in dns[:3]] + [bytes(4)] * 3
    way = IPv4Address(gateway).packed if gateway else bytes(4)
    body = _NETWORK.pack(IPv4Address(address).packed, prefix_bits, way, *servers[:3])
    return encode(Order.NETWORK, body=body)


def encode_limits(memory_bytes: int, pids_max: int, open_files_max: int, uid: int, gid: int) -> bytes:
    """The function's limits; its ids count until the root is mounted."""
    return encode(Order.LIMITS, body=_LIMITS.pack(memory_bytes, pids_max, open_files_max, uid, gid))


def encode_mount(places: Sequence[Place]) -> bytes:
    """Mount what these block devices hold by now."""
    return encode(Order.MOUNT, sum(1 << place for place in set(places)))


def take_record(buffer: bytearray) -> Record | None:
    """Take the first record out of what a guest sent; None: it is not whole yet.

    Raises:
        GuestBroken: this is none.
    """
    if len(buffer) < RECORD.size:
        return None
    magic, kind, argument, body_bytes = RECORD.unpack_from(buffer)
    if magic != MAGIC or body_bytes > REPLY_BYTES_MAX:
        raise GuestBroken("a guest sent what is no record")
    end = RECORD.size + body_bytes
    if len(buffer) < end:
        return None
    body = bytes(buffer[RECORD.size : end])
    del buffer[:end]
    return Record(kind, argument, body)


def decode_hello(body: bytes) -> Hello:
    """Raises GuestBroken for another version, and for what is no hello."""
    if len(body) != _HELLO.size:
        raise GuestBroken("a guest sent no hello")
    version, launched, uptime_ns, memory_bytes, release = _HELLO.unpack(body)
    if version != VERSION:
        raise GuestBroken(f"the guest's init speaks version {version}, not {VERSION}: build the guest again")
    return Hello(bool(launched), uptime_ns / 1e9, memory_bytes, _text(release))


def decode_done(body: bytes) -> Done:
    """Raises GuestBroken."""
    if len(body) != _DONE.size:
        raise GuestBroken("a guest sent no answer")
    error, step = _DONE.unpack(body)
    return Done(error if 0 <= error < 4096 else 5, _text(step))


def decode_memory(body: bytes) -> Memory:
    """Raises GuestBroken."""
    if len(body) != _MEMORY.size:
        raise GuestBroken("a guest sent no memory figures")
    return Memory(*_MEMORY.unpack(body))


def _text(field: bytes) -> str:
    printable = field.partition(b"\0")[0].decode("ascii", "replace")
    return "".join(each if each.isprintable() else "?" for each in printable)
