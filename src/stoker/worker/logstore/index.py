"""What is on disk, as remembered in memory: groups, their streams, their segments, and the bytes they take.

Shared by the writer thread, readers and the event loop under one lock; files are touched by the caller.
"""

import bisect
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec

from stoker.worker.logstore.names import escape, unescape
from stoker.worker.logstore.records import read_header

STREAM_COST_BYTES = 16 * 1024
"""Charged for a stream beside its bytes: its folder, its files' last blocks and its entry here."""

HEADER_READ_BYTES = 4096
MARK_BYTES = 64 * 1024
METADATA_FILE = "group.json"


class GroupMetadata(msgspec.Struct, frozen=True):
    """The file that makes a folder a group."""

    name: str
    created_ms: int
    retention_days: int | None = None


class Segment:
    """One file of a stream. What it knows of its events is true only once ``known``."""

    __slots__ = (
        "first_ms",
        "known",
        "last_ingestion_ms",
        "last_ms",
        "marks",
        "number",
        "ordered",
        "path",
        "size_bytes",
    )

    def __init__(self, number: int, path: Path, size_bytes: int, *, known: bool) -> None:
        self.number = number
        self.path = path
        self.size_bytes = size_bytes
        self.known = known
        self.first_ms: int | None = None
        self.last_ms: int | None = None
        self.last_ingestion_ms: int | None = None
        self.ordered = True
        """No event is older than the one before it."""
        self.marks: list[tuple[int, int]] = []
        """(time, offset) of an event about every ``MARK_BYTES``, for starting to read near a time."""

    def add(self, timestamp_ms: int, ingestion_ms: int, offset: int) -> None:
        """One more event is in it."""
        if self.first_ms is None or self.last_ms is None:
            self.first_ms = self.last_ms = timestamp_ms
        elif timestamp_ms >= self.last_ms:
            self.last_ms = timestamp_ms
        else:
            self.ordered = False
            self.first_ms = min(self.first_ms, timestamp_ms)
        self.last_ingestion_ms = ingestion_ms
        if not self.marks or offset - self.marks[-1][1] >= MARK_BYTES:
            self.marks.append((timestamp_ms, offset))

    def touches(self, start_ms: int, end_ms: int) -> bool:
        """Whether events of [start_ms, end_ms) may be in it."""
        if not self.known:
            return True
        if self.first_ms is None or self.last_ms is None:
            return False
        return self.first_ms < end_ms and self.last_ms >= start_ms

    def offset_before(self, start_ms: int) -> int | None:
        """Where to start reading for events from ``start_ms`` on; None for the beginning."""
        if not self.known or not self.ordered:
            return None
        at = bisect.bisect_left(self.marks, (start_ms, 0)) - 1
        return self.marks[at][1] if at >= 0 else None


class Stream:
    """One stream and its segments, oldest first."""

    __slots__ = ("created_ms", "folder", "group", "name", "next_number", "open_segment", "segments")

    def __init__(self, group: "Group", name: str, folder: Path, created_ms: int) -> None:
        self.group = group
        self.name = name
        self.folder = folder
        self.created_ms = created_ms
        self.segments: list[Segment] = []
        self.next_number = 1
        self.open_segment: Segment | None = None
        """Where the next event goes; None after a restart, a failed write or a trim: a new one is begun."""

    @property
    def size_bytes(self) -> int:
        return sum(segment.size_bytes for segment in self.segments)


class Group:
    """One group."""

    __slots__ = ("account", "cost_bytes", "folder", "metadata", "region", "streams")

    def __init__(self, account: str, region: str, folder: Path, metadata: GroupMetadata) -> None:
        self.account = account
        self.region = region
        self.folder = folder
        self.metadata = metadata
        self.streams: dict[str, Stream] = {}
        self.cost_bytes = 0
        """What it counts against the limits: bytes of its segments and ``STREAM_COST_BYTES`` a stream."""

    @property
    def key(self) -> "Key":
        return (self.account, self.region, self.metadata.name)

    @property
    def size_bytes(self) -> int:
        return sum(stream.size_bytes for stream in self.streams.values())


Key = tuple[str, str, str]
"""Account, region, group."""


class Index:
    """All groups. Take ``lock`` around every use."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.lock = threading.RLock()
        self.groups: dict[Key, Group] = {}
        # Changed by the event loop alone and without the lock, which the writer thread may hold for long.
        self._open: dict[tuple[Key, str], int] = {}

    def opened(self, key: Key, stream: str) -> None:
        """A writer of the stream was opened; it is not forgotten although all its segments are deleted."""
        self._open[key, stream] = self._open.get((key, stream), 0) + 1

    def closed(self, key: Key, stream: str) -> None:
        """A writer of the stream was closed."""
        count = self._open.get((key, stream), 0)
        if count > 1:
            self._open[key, stream] = count - 1
        else:
            self._open.pop((key, stream), None)

    def is_open(self, key: Key, stream: str) -> bool:
        """Whether anybody may still write to the stream."""
        return (key, stream) in self._open

    def folder(self, key: Key) -> Path:
        """Where a group lives."""
        account, region, group = key
        return self.root / escape(account) / escape(region) / escape(group)

    def add_group(self, key: Key, metadata: GroupMetadata) -> Group:
        group = Group(key[0], key[1], self.folder(key), metadata)
        self.groups[key] = group
        return group

    def streams(self) -> Iterator[Stream]:
        """Every stream of every group."""
        for group in self.groups.values():
            yield from group.streams.values()


def load(index: Index) -> None:
    """Fill an index from the disk. What is no group, stream or segment is left alone. Blocking."""
    for metadata_file in index.root.glob(f"*/*/*/{METADATA_FILE}"):
        folder = metadata_file.parent
        account, region = unescape(folder.parent.parent.name), unescape(folder.parent.name)
        try:
            metadata = msgspec.json.decode(metadata_file.read_bytes(), type=GroupMetadata)
        except (OSError, msgspec.DecodeError, msgspec.ValidationError):
            continue
        if account is None or region is None or escape(metadata.name) != folder.name:
            continue
        group = index.add_group((account, region, metadata.name), metadata)
        for stream_folder in folder.iterdir():
            stream = _load_stream(group, stream_folder) if stream_folder.is_dir() else None
            if stream is not None:
                group.streams[stream.name] = stream
                group.cost_bytes += stream.size_bytes + STREAM_COST_BYTES


def _load_stream(group: Group, folder: Path) -> Stream | None:
    stream: Stream | None = None
    for path in sorted(folder.glob("*.log")):
        if not path.stem.isdecimal():
            continue
        with path.open("rb") as file:
            header = read_header(file.read(HEADER_READ_BYTES))
        if header is None:
            continue
        if stream is None:
            stream = Stream(group, header[0].stream, folder, header[0].created_ms)
        stream.segments.append(Segment(int(path.stem), path, path.stat().st_size, known=False))
        # A crash may have torn the last record: what comes next goes into a new segment.
        stream.next_number = int(path.stem) + 1
    return stream
