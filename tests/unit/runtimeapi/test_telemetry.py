"""Frames in, records out, however the bytes are cut and whatever they are."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from stoker.runtimeapi.telemetry import MAX_RECORD_BYTES, Level, LogRecord, TelemetryParser


def frame(message: bytes, kind: int = 0xA55A0003, time_us: int = 7) -> bytes:
    return struct.pack(">IIQ", kind, len(message), time_us) + message


def test_kinds_and_levels():
    parser = TelemetryParser()
    records = parser.feed(frame(b"plain") + frame(b"{}", 0xA55A0016) + frame(b"w", 0xA55A0013))
    assert records == [
        LogRecord(b"plain", 7),
        LogRecord(b"{}", 7, Level.ERROR, is_json=True),
        LogRecord(b"w", 7, Level.WARN),
    ]


def test_frames_without_time():
    assert TelemetryParser().feed(struct.pack(">II", 0xA55A0001, 2) + b"ab") == [LogRecord(b"ab", None)]


@given(st.lists(st.binary(max_size=40), max_size=6), st.lists(st.integers(1, 30), min_size=1, max_size=40))
def test_any_cut_gives_the_same_records(messages, sizes):
    data = b"".join(frame(message) for message in messages)
    parser, records, position = TelemetryParser(), [], 0
    for size in sizes:
        records += parser.feed(data[position : position + size])
        position += size
    records += parser.feed(data[position:])
    assert [record.message for record in records] == messages


@given(st.lists(st.binary(max_size=200), max_size=10))
def test_garbage_neither_raises_nor_is_kept(chunks):
    parser = TelemetryParser()
    for chunk in chunks:
        parser.feed(chunk)
    parser.flush()
    assert parser.flush() == []


def test_garbage_between_frames_is_told_apart():
    parser = TelemetryParser()
    records = parser.feed(b"noise" + frame(b"good") + b"more")
    assert [(record.message, record.framed) for record in records] == [
        (b"noise", False),
        (b"good", True),
        (b"more", False),
    ]


def test_overlong_message_is_cut_and_the_next_frame_survives():
    parser = TelemetryParser()
    data = frame(b"x" * (MAX_RECORD_BYTES + 5000)) + frame(b"next")
    records = []
    for start in range(0, len(data), 100_000):
        records += parser.feed(data[start : start + 100_000])
    assert [len(record.message) for record in records] == [MAX_RECORD_BYTES, 4]
    assert (records[0].truncated, records[1].truncated) == (True, False)


def test_claimed_length_alone_reserves_nothing():
    parser = TelemetryParser()
    head = struct.pack(">IIQ", 0xA55A0003, 0xFFFFFFFF, 1)
    assert parser.feed(head + b"short") == []
    assert parser.flush() == [LogRecord(b"short", 1, truncated=True)]
