"""Bytes of a segment file: a header that names its stream, then one record an event. Pure functions.

A record whose length or checksum is wrong ends the segment: it is what a crash left of the last write.
"""

import struct
import zlib
from collections.abc import Iterator

import msgspec

MAGIC = b"STKLOG1\n"

_RECORD = struct.Struct("<IIqq")
"""Length of the message, checksum, time of the event, time of ingestion (ms)."""

_LENGTH = struct.Struct("<I")
_HEADER_MAX = 64 * 1024

RECORD_OVERHEAD_BYTES = _RECORD.size


class SegmentHeader(msgspec.Struct, frozen=True):
    """What a segment says about the stream it is a part of."""

    stream: str
    created_ms: int


class Record(msgspec.Struct, frozen=True):
    """One event and where its record starts in the segment."""

    offset: int
    timestamp_ms: int
    ingestion_ms: int
    message: bytes


def encode_header(header: SegmentHeader) -> bytes:
    body = msgspec.json.encode(header)
    return MAGIC + _LENGTH.pack(len(body)) + body


def encode_record_head(timestamp_ms: int, ingestion_ms: int, message: bytes) -> bytes:
    """What comes before the message in its record."""
    checksum = _checksum(timestamp_ms, ingestion_ms, message)
    return _RECORD.pack(len(message), checksum, timestamp_ms, ingestion_ms)


def _checksum(timestamp_ms: int, ingestion_ms: int, message: bytes) -> int:
    """CRC-32 of the message, begun with both times instead of zero."""
    return zlib.crc32(message, (timestamp_ms * 31 ^ ingestion_ms) & 0xFFFFFFFF)


def read_header(data: bytes) -> tuple[SegmentHeader, int] | None:
    """The header and where the records begin; None when this is no segment."""
    start = len(MAGIC) + _LENGTH.size
    if not data.startswith(MAGIC) or len(data) < start:
        return None
    (length,) = _LENGTH.unpack_from(data, len(MAGIC))
    if length > _HEADER_MAX or len(data) < start + length:
        return None
    try:
        return msgspec.json.decode(data[start : start + length], type=SegmentHeader), start + length
    except (msgspec.DecodeError, msgspec.ValidationError):
        return None


def read_records(data: bytes, start: int) -> Iterator[Record]:
    """Every whole record from ``start`` on; stops at the first that is not."""
    offset = start
    while offset + _RECORD.size <= len(data):
        length, checksum, timestamp_ms, ingestion_ms = _RECORD.unpack_from(data, offset)
        end = offset + _RECORD.size + length
        if end > len(data):
            return
        message = data[offset + _RECORD.size : end]
        if _checksum(timestamp_ms, ingestion_ms, message) != checksum:
            return
        yield Record(offset, timestamp_ms, ingestion_ms, message)
        offset = end
