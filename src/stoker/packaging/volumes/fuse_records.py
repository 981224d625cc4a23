"""The records of /dev/fuse that a file system of one read-only file needs (include/uapi/linux/fuse.h, 7.31+).

Pure: bytes in, records out. Knows nothing of devices, chunks or who reads.
"""

import enum
import struct

import msgspec

REQUEST_BYTES_MAX = 64 * 1024
"""Room for one request; the kernel refuses to be read with less than 8 KiB."""

READ_BYTES_MAX = 1024 * 1024
READ_AHEAD_BYTES = 1024 * 1024
PAGE_BYTES = 4096
BACKGROUND_READS_MAX = 64
ROOT_NODE = 1
MAJOR, MINOR, MINOR_OLDEST = 7, 31, 28
"""7.28 (Linux 4.20) is the first with max_pages."""

_IN = struct.Struct("<IIQQIIIHH")
_OUT = struct.Struct("<IiQ")
_INIT_IN = struct.Struct("<IIII")
_INIT_OUT = struct.Struct("<IIIIHHIIHHI28x")
_READ_IN = struct.Struct("<QQII")
_ATTRIBUTES_OUT = struct.Struct("<QII6Q10I")
_OPEN_OUT = struct.Struct("<QIi")
_STATFS_OUT = struct.Struct("<5Q4I24x")

OUT_HEADER_BYTES = _OUT.size
_ASYNC_READ, _MAX_PAGES = 1 << 0, 1 << 22
_FILE_MODE = 0o100444
_FOR_EVER_S = 1 << 30
_KEEP_CACHE = 1 << 1


class Opcode(enum.IntEnum):
    """What the kernel asks of such a file system; everything else is answered ENOSYS."""

    FORGET = 2
    GETATTR = 3
    OPEN = 14
    READ = 15
    STATFS = 17
    RELEASE = 18
    INIT = 26
    INTERRUPT = 36
    DESTROY = 38
    BATCH_FORGET = 42


UNANSWERED = frozenset({Opcode.FORGET, Opcode.INTERRUPT, Opcode.BATCH_FORGET})


class MalformedRequest(Exception):
    """Not a request of this protocol."""


class FuseRequest(msgspec.Struct, frozen=True):
    """One request. ``offset`` and ``size_bytes`` are set for READ; ``minor`` and ``flags`` for INIT."""

    opcode: int
    unique: int
    node: int
    offset: int = 0
    size_bytes: int = 0
    minor: int = 0
    flags: int = 0


def parse_request(data: memoryview) -> FuseRequest:
    """The request in one read of the device.

    Raises:
        MalformedRequest: it is shorter than it says, or of another major version.
    """
    if len(data) < _IN.size:
        raise MalformedRequest(f"{len(data)} bytes")
    length, opcode, unique, node, *_ = _IN.unpack_from(data)
    if length != len(data):
        raise MalformedRequest(f"{len(data)} bytes of {length}")
    if opcode == Opcode.READ:
        if length < _IN.size + _READ_IN.size:
            raise MalformedRequest("a short read request")
        _, offset, size_bytes, _ = _READ_IN.unpack_from(data, _IN.size)
        return FuseRequest(opcode, unique, node, offset, size_bytes)
    if opcode == Opcode.INIT:
        if length < _IN.size + _INIT_IN.size:
            raise MalformedRequest("a short init request")
        major, minor, _, flags = _INIT_IN.unpack_from(data, _IN.size)
        if major != MAJOR or minor < MINOR_OLDEST:
            raise MalformedRequest(f"version {major}.{minor}")
        return FuseRequest(opcode, unique, node, minor=minor, flags=flags)
    return FuseRequest(opcode, unique, node)


def answer_header(unique: int, payload_bytes: int) -> bytes:
    """What goes before ``payload_bytes`` of an answer."""
    return _OUT.pack(_OUT.size + payload_bytes, 0, unique)


def answer_error(unique: int, number: int) -> bytes:
    """A whole answer: the errno ``number``, or success without more to say for 0."""
    return _OUT.pack(_OUT.size, -number, unique)


def answer_init(request: FuseRequest) -> bytes:
    """Reads in parallel, up to READ_BYTES_MAX each, and nothing else that the kernel offers."""
    payload = _INIT_OUT.pack(
        MAJOR,
        MINOR,
        READ_AHEAD_BYTES,
        request.flags & (_ASYNC_READ | _MAX_PAGES),
        BACKGROUND_READS_MAX,
        BACKGROUND_READS_MAX * 3 // 4,
        PAGE_BYTES,
        1,
        READ_BYTES_MAX // PAGE_BYTES,
        0,
        0,
    )
    return answer_header(request.unique, len(payload)) + payload


def answer_attributes(request: FuseRequest, size_bytes: int) -> bytes:
    """The one file: read-only, of root, the same for ever."""
    blocks = -(-size_bytes // 512)
    payload = _ATTRIBUTES_OUT.pack(
        _FOR_EVER_S, 0, 0, ROOT_NODE, size_bytes, blocks, 0, 0, 0,
        0, 0, 0, _FILE_MODE, 1, 0, 0, 0, PAGE_BYTES, 0,
    )  # fmt: skip
    return answer_header(request.unique, len(payload)) + payload


def answer_open(request: FuseRequest) -> bytes:
    """Through the page cache: EROFS gets EIO from a file that is open for direct I/O (Linux 6.18)."""
    payload = _OPEN_OUT.pack(0, _KEEP_CACHE, 0)
    return answer_header(request.unique, len(payload)) + payload


def answer_statfs(request: FuseRequest, size_bytes: int) -> bytes:
    """Full, with one file."""
    blocks = -(-size_bytes // PAGE_BYTES)
    payload = _STATFS_OUT.pack(blocks, 0, 0, 1, 0, PAGE_BYTES, 255, PAGE_BYTES, 0)
    return answer_header(request.unique, len(payload)) + payload
