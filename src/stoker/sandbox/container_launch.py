"""The records between the service and the init inside a sandbox, as in native/init/control.h. Pure."""

import enum
import struct

import msgspec

from stoker.core.errors import SandboxError
from stoker.sandbox.driver import Launch

MAGIC = 0x4E494B53
RECORD_BYTES_MAX = 128 * 1024
STRINGS_MAX = 4094
TELEMETRY_FD_INSIDE = 62

_REQUEST = struct.Struct("<IIII")
_REPORT = struct.Struct("<IIiI")

REPORT_BYTES = _REPORT.size


class InitOperation(enum.IntEnum):
    """What the init can be told."""

    LAUNCH = 1
    STOP = 2
    CONTINUE = 3
    SIGNAL = 4


class ReportKind(enum.IntEnum):
    """What the init tells; ``value`` is an errno, an exit status or a signal."""

    STARTED = 1
    REFUSED = 2
    EXITED = 3
    SIGNALED = 4
    BROKEN = 5
    MISPLACED = 6


class Report(msgspec.Struct, frozen=True):
    """One report of the init."""

    kind: ReportKind
    value: int


def encode_launch(launch: Launch) -> bytes:
    """The record that starts a process.

    Raises:
        SandboxError: a string holds NUL, or the record would exceed RECORD_BYTES_MAX bytes.
    """
    variables = [f"{name}={value}" for name, value in launch.environment.items()]
    strings = [launch.working_directory, *launch.argv, *variables]
    if not launch.argv or len(strings) > STRINGS_MAX or any("\0" in text for text in strings):
        raise SandboxError("a launch needs a program, at most 4,093 strings, and none with a NUL byte")
    body = b"".join(text.encode("utf-8", "surrogateescape") + b"\0" for text in strings)
    record = _REQUEST.pack(MAGIC, InitOperation.LAUNCH, len(launch.argv), len(variables)) + body
    if len(record) > RECORD_BYTES_MAX:
        raise SandboxError(f"arguments and environment together exceed {RECORD_BYTES_MAX} bytes")
    return record


def encode_order(operation: InitOperation, argument: int = 0) -> bytes:
    """STOP, CONTINUE, or SIGNAL with the signal's number."""
    return _REQUEST.pack(MAGIC, operation, argument, 0)


def decode_report(data: bytes) -> Report | None:
    """One report, or None when this is none: what is inside a sandbox is not to be trusted."""
    if len(data) != REPORT_BYTES:
        return None
    magic, kind, value, _ = _REPORT.unpack(data)
    if magic != MAGIC or kind not in ReportKind.__members__.values():
        return None
    return Report(ReportKind(kind), value)
