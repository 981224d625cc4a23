"""Incremental parser of the framed log pipe (``_LAMBDA_TELEMETRY_LOG_FD``): bytes in, records out.

Frames are as AWS's runtime interface clients write them: type, length and time in microseconds, big-endian,
then the message. The bytes come from the function and may be anything; nothing is kept beyond one record.
"""

import enum

import msgspec

MAX_RECORD_BYTES = 1024 * 1024
"""Longest message kept, as CloudWatch Logs; the rest of a longer one is dropped."""

_HEAD_BYTES = 16
_OLD_HEAD_BYTES = 8
_MAGIC = b"\xa5\x5a\x00"


class Level(enum.IntEnum):
    """The level bits of a frame's type."""

    UNSET = 0
    TRACE = 1
    DEBUG = 2
    INFO = 3
    WARN = 4
    ERROR = 5
    FATAL = 6


class LogRecord(msgspec.Struct, frozen=True):
    """One framed message."""

    message: bytes
    timestamp_us: int | None
    """Microseconds since the epoch as the runtime claims; None in old frames and for unframed bytes."""
    level: Level = Level.UNSET
    is_json: bool = False
    framed: bool = True
    """False: bytes without a frame, written by something that is no runtime."""
    truncated: bool = False


class TelemetryParser:
    """Feed it what was read from the pipe; it returns the records that became complete."""

    __slots__ = ("_buffer", "_skip")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._skip = 0
        """Bytes of an over-long message still to be dropped."""

    def feed(self, data: bytes) -> list[LogRecord]:
        """Take bytes and return complete records in order."""
        self._buffer += data
        records: list[LogRecord] = []
        while self._step(records):
            pass
        return records

    def flush(self) -> list[LogRecord]:
        """The pipe ended: whatever is left becomes one last record."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        if not rest:
            return []
        frame = _Frame.read(rest)
        if frame is None:
            return [LogRecord(rest[:MAX_RECORD_BYTES], None, framed=False, truncated=True)]
        message = rest[frame.head_bytes : frame.head_bytes + MAX_RECORD_BYTES]
        return [frame.record(message, truncated=True)] if message else []

    def _step(self, records: list[LogRecord]) -> bool:
        """Take one thing off the buffer; False when more bytes are needed."""
        buffer = self._buffer
        if self._skip:
            dropped = min(self._skip, len(buffer))
            del buffer[:dropped]
            self._skip -= dropped
            return self._skip == 0 and bool(buffer)
        if len(buffer) >= len(_MAGIC) and not buffer.startswith(_MAGIC):
            return self._unframed(records)
        if not _MAGIC.startswith(bytes(buffer[: len(_MAGIC)])):
            return self._unframed(records)
        frame = _Frame.read(bytes(buffer[:_HEAD_BYTES]))
        if frame is None:
            return False
        kept = min(frame.length, MAX_RECORD_BYTES)
        if len(buffer) < frame.head_bytes + kept:
            return False
        message = bytes(buffer[frame.head_bytes : frame.head_bytes + kept])
        records.append(frame.record(message, truncated=frame.length > kept))
        del buffer[: frame.head_bytes + kept]
        self._skip = frame.length - kept
        return bool(buffer)

    def _unframed(self, records: list[LogRecord]) -> bool:
        """Bytes up to the next frame are one record of their own."""
        buffer = self._buffer
        end = buffer.find(_MAGIC, 1)
        if end < 0:
            end = len(buffer)
        text = bytes(buffer[:end])
        records.extend(
            LogRecord(text[start : start + MAX_RECORD_BYTES], None, framed=False)
            for start in range(0, len(text), MAX_RECORD_BYTES)
        )
        del buffer[:end]
        return bool(buffer)


class _Frame(msgspec.Struct, frozen=True):
    """The head of one frame."""

    head_bytes: int
    length: int
    timestamp_us: int | None
    kind: int

    @staticmethod
    def read(data: bytes) -> "_Frame | None":
        """Parse a head; None when ``data`` is too short or no head."""
        if len(data) < _OLD_HEAD_BYTES or not data.startswith(_MAGIC):
            return None
        kind = data[3]
        length = int.from_bytes(data[4:8], "big")
        if kind == 1:  # frames of runtimes before 2021 have no time
            return _Frame(_OLD_HEAD_BYTES, length, None, 0)
        if len(data) < _HEAD_BYTES:
            return None
        return _Frame(_HEAD_BYTES, length, int.from_bytes(data[8:16], "big"), kind)

    def record(self, message: bytes, *, truncated: bool) -> LogRecord:
        level = (self.kind >> 2) & 7
        return LogRecord(
            message,
            self.timestamp_us,
            Level(level) if level <= Level.FATAL else Level.UNSET,
            is_json=self.timestamp_us is not None and not self.kind & 1,
            truncated=truncated,
        )
