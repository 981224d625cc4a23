"""The files of a log store: makes, appends, trims and deletes. Blocking; used under the index's lock.

What is over a limit goes oldest first, a segment at a time, whosever it is.
"""

import collections
import contextlib
import os
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import msgspec

from stoker.core.clock import Clock
from stoker.worker.logstore.index import (
    METADATA_FILE,
    STREAM_COST_BYTES,
    Group,
    GroupMetadata,
    Index,
    Key,
    Segment,
    Stream,
)
from stoker.worker.logstore.names import escape
from stoker.worker.logstore.records import (
    RECORD_OVERHEAD_BYTES,
    SegmentHeader,
    encode_header,
    encode_record_head,
)

OPEN_FILES_MAX = 256
"""Segments kept open between batches; the least recently written are closed."""

YIELD_EVERY = 32
"""Events encoded in a row before other threads get their turn."""

TRIM_TO = 0.9
"""Over a limit, the oldest segments go until this share of it is used."""

_DAY_MS = 86_400_000


class LogStoreLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of one store."""

    total_bytes: int = 1024 * 1024 * 1024
    group_bytes: int = 512 * 1024 * 1024
    segment_bytes: int = 8 * 1024 * 1024
    pending_bytes: int = 16 * 1024 * 1024
    """Appended and not yet written; beyond it events are dropped."""
    congested_bytes: int = 8 * 1024 * 1024
    """From this much on, writers say that they are congested."""


Event = tuple[int, str]
"""Time (ms) and message. A plain tuple: there are three and more an invocation."""


class Disk:
    """Files and index together. Used by the writer thread, and for management by others under the lock."""

    def __init__(self, index: Index, limits: LogStoreLimits, clock: Clock) -> None:
        self._index = index
        self._limits = limits
        self._clock = clock
        self._files: collections.OrderedDict[Path, BinaryIO] = collections.OrderedDict()
        self._expired_ms = 0
        self.cost_bytes = sum(group.cost_bytes for group in index.groups.values())

    def now_ms(self) -> int:
        return int(self._clock.now_s() * 1000)

    # --- groups and streams

    def group(self, key: Key) -> Group:
        """The group, made where it is new."""
        group = self._index.groups.get(key)
        if group is None:
            group = self._index.add_group(key, GroupMetadata(key[2], self.now_ms()))
            group.folder.mkdir(parents=True, exist_ok=True)
            self.save(group)
        return group

    def save(self, group: Group) -> None:
        """Write the group's metadata; a crash leaves the old or the new, never half."""
        path = group.folder / METADATA_FILE
        temporary = path.with_suffix(".new")
        temporary.write_bytes(msgspec.json.encode(group.metadata))
        os.replace(temporary, path)

    def stream(self, group: Group, name: str) -> Stream:
        """The stream, made where it is new, on disk too."""
        stream = group.streams.get(name)
        if stream is None:
            stream = Stream(group, name, group.folder / escape(name), self.now_ms())
            stream.folder.mkdir(exist_ok=True)
            group.streams[name] = stream
            self._charge(group, STREAM_COST_BYTES)
            self._new_segment(stream)
        return stream

    def delete_group(self, key: Key) -> None:
        group = self._index.groups.pop(key)
        self.cost_bytes -= group.cost_bytes
        for stream in group.streams.values():
            self._close_files(stream)
        _remove_tree(group.folder)

    def delete_stream(self, group: Group, name: str) -> None:
        stream = group.streams.pop(name)
        self._charge(group, -stream.size_bytes - STREAM_COST_BYTES)
        self._close_files(stream)
        _remove_tree(stream.folder)

    # --- events

    def append(self, key: Key, name: str, events: Iterable[Event]) -> None:
        """Write events of one stream, and keep its group within its bounds."""
        with self._index.lock:
            group = self.group(key)
            self._append(self.stream(group, name), events)
            self._trim(group)

    def _append(self, stream: Stream, events: Iterable[Event]) -> None:
        ingestion_ms = self.now_ms()
        segment = stream.open_segment or self._new_segment(stream)
        parts: list[bytes] = []
        end = segment.size_bytes
        for count, (timestamp_ms, text) in enumerate(events):
            if end >= self._limits.segment_bytes:
                self._flush(stream, segment, b"".join(parts))
                parts.clear()
                segment = self._new_segment(stream)
                end = segment.size_bytes
            message = text.encode("utf-8", "replace")
            segment.add(timestamp_ms, ingestion_ms, end)
            parts.append(encode_record_head(timestamp_ms, ingestion_ms, message))
            parts.append(message)
            end += RECORD_OVERHEAD_BYTES + len(message)
            if count % YIELD_EVERY == YIELD_EVERY - 1:
                # Let go of the interpreter lock: the event loop must not wait for a whole batch.
                time.sleep(0)
        self._flush(stream, segment, b"".join(parts))

    def _flush(self, stream: Stream, segment: Segment, data: bytes) -> None:
        rest = memoryview(data)
        file = self._file(segment)
        try:
            while rest:
                rest = rest[file.write(rest) :]
        except OSError:
            # Half a record may be at the end of the file now: nothing may follow it.
            stream.open_segment = None
            self._close_file(segment.path)
            raise
        segment.size_bytes += len(data)
        self._charge(stream.group, len(data))

    def _new_segment(self, stream: Stream) -> Segment:
        path = stream.folder / f"{stream.next_number:08d}.log"
        segment = Segment(stream.next_number, path, 0, known=True)
        stream.next_number += 1
        stream.segments.append(segment)
        stream.open_segment = segment
        self._flush(stream, segment, encode_header(SegmentHeader(stream.name, stream.created_ms)))
        return segment

    def _file(self, segment: Segment) -> BinaryIO:
        file = self._files.get(segment.path)
        if file is None:
            file = segment.path.open("ab", buffering=0)
            self._files[segment.path] = file
            if len(self._files) > OPEN_FILES_MAX:
                self._files.popitem(last=False)[1].close()
        else:
            self._files.move_to_end(segment.path)
        return file

    def _close_files(self, stream: Stream) -> None:
        for segment in stream.segments:
            self._close_file(segment.path)

    def _close_file(self, path: Path) -> None:
        file = self._files.pop(path, None)
        if file is not None:
            file.close()

    def close_files(self) -> None:
        for file in self._files.values():
            file.close()
        self._files.clear()

    # --- bounds

    def _trim(self, group: Group) -> None:
        if self.cost_bytes > self._limits.total_bytes:
            excess_bytes = self.cost_bytes - int(self._limits.total_bytes * TRIM_TO)
            self._drop_oldest(self._index.streams(), excess_bytes)
        if group.cost_bytes > self._limits.group_bytes:
            self._drop_oldest(
                group.streams.values(), group.cost_bytes - int(self._limits.group_bytes * TRIM_TO)
            )

    def _drop_oldest(self, streams: Iterable[Stream], excess_bytes: int) -> None:
        candidates = [
            (segment.last_ingestion_ms or _modified_ms(segment.path), stream, segment)
            for stream in streams
            for segment in stream.segments
        ]
        candidates.sort(key=lambda candidate: (candidate[0], candidate[2].number))
        for _, stream, segment in candidates:
            if excess_bytes <= 0:
                return
            excess_bytes -= self._drop(stream, segment)

    def _drop(self, stream: Stream, segment: Segment) -> int:
        """Delete a segment, and its stream with the last unless that is open; returns the bytes regained."""
        self._close_file(segment.path)
        with contextlib.suppress(FileNotFoundError):
            segment.path.unlink()
        stream.segments.remove(segment)
        if stream.open_segment is segment:
            stream.open_segment = None
        group = stream.group
        regained_bytes = segment.size_bytes
        if not stream.segments and not self._index.is_open(group.key, stream.name):
            del group.streams[stream.name]
            _remove_tree(stream.folder)
            regained_bytes += STREAM_COST_BYTES
        self._charge(group, -regained_bytes)
        return regained_bytes

    def _charge(self, group: Group, size_bytes: int) -> None:
        group.cost_bytes += size_bytes
        self.cost_bytes += size_bytes

    def expire_if_due(self, every_s: float) -> None:
        """``expire``, but not more often than this."""
        now_ms = self.now_ms()
        if now_ms - self._expired_ms >= every_s * 1000:
            self._expired_ms = now_ms
            self.expire()

    def expire(self) -> None:
        """Delete segments whose newest event is older than their group's retention."""
        now_ms = self.now_ms()
        with self._index.lock:
            for group in self._index.groups.values():
                days = group.metadata.retention_days
                if days is None:
                    continue
                for stream in tuple(group.streams.values()):
                    for segment in tuple(stream.segments):
                        newest_ms = segment.last_ms or _modified_ms(segment.path)
                        if newest_ms < now_ms - days * _DAY_MS:
                            self._drop(stream, segment)


def _modified_ms(path: Path) -> int:
    try:
        return int(path.stat().st_mtime * 1000)
    except FileNotFoundError:
        return 0


def _remove_tree(folder: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)
