"""``services.logs.LogStore`` in files: the door to index, disk, writer thread and reader."""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from stoker.core.clock import Clock
from stoker.services.logs import LogGroupInfo, LogPage, LogStreamInfo
from stoker.worker.logstore import tokens
from stoker.worker.logstore.disk import Disk, LogStoreLimits
from stoker.worker.logstore.index import Group, Index, Key, Stream, load
from stoker.worker.logstore.reading import Part, Query, learn, parts_of, read_page
from stoker.worker.logstore.writing import Pending, WriterThread

_T = TypeVar("_T")

__all__ = ["FileLogStore", "LogStoreLimits"]


class StreamWriter:
    """One stream, open for writing. Used on the event loop only; nothing in it waits or touches a disk."""

    __slots__ = ("_dropped_bytes", "_dropped_events", "_limits", "_open", "_pending", "_store", "_thread")

    def __init__(self, store: "FileLogStore", thread: WriterThread, pending: Pending) -> None:
        self._store = store
        self._thread = thread
        self._limits = store.limits
        self._pending = pending
        self._open = True
        self._dropped_events = 0
        self._dropped_bytes = 0

    def append(self, timestamp_ms: int, message: str) -> None:
        thread = self._thread
        if thread.pending_bytes + len(message) > self._limits.pending_bytes:
            self._drop(message)
            return
        if self._dropped_events:
            self._tell_dropped(timestamp_ms)
        thread.append(self._pending, timestamp_ms, message)

    def _drop(self, message: str) -> None:
        self._dropped_events += 1
        self._dropped_bytes += len(message)
        self._store.dropped_events += 1
        self._store.dropped_bytes += len(message)

    def _tell_dropped(self, timestamp_ms: int) -> None:
        text = (
            f"STOKER {self._dropped_events} log events ({self._dropped_bytes} bytes) were dropped here: "
            "they came faster than they could be stored\n"
        )
        self._dropped_events = self._dropped_bytes = 0
        self._thread.append(self._pending, timestamp_ms, text)

    @property
    def congested(self) -> bool:
        return self._thread.pending_bytes > self._limits.congested_bytes

    def close(self) -> None:
        if self._open:
            self._open = False
            self._store.closed(self._pending.key, self._pending.stream)


class FileLogStore:
    """Made by ``FileLogStore.open``. Groups and streams outlive restarts."""

    def __init__(self, index: Index, disk: Disk, limits: LogStoreLimits) -> None:
        self.limits = limits
        self.dropped_events = 0
        self.dropped_bytes = 0
        self._index = index
        self._disk = disk
        self._thread = WriterThread(disk)

    @staticmethod
    async def open(root: Path, clock: Clock, limits: LogStoreLimits | None = None) -> "FileLogStore":
        """Read what is on disk and start writing behind. Raises OSError when ``root`` cannot be used."""
        chosen = limits or LogStoreLimits()

        def prepare() -> tuple[Index, Disk]:
            root.mkdir(parents=True, exist_ok=True)
            index = Index(root)
            load(index)
            return index, Disk(index, chosen, clock)

        index, disk = await asyncio.to_thread(prepare)
        return FileLogStore(index, disk, chosen)

    # --- writing

    @property
    def pending_bytes(self) -> int:
        """Appended and not yet on disk."""
        return self._thread.pending_bytes

    @property
    def failed_batches(self) -> int:
        """Batches that the disk refused; their events are lost."""
        return self._thread.failed_batches

    def losses(self) -> dict[str, int]:
        """What never reached the disk, by name, for /metrics."""
        return {
            "dropped_events": self.dropped_events,
            "dropped_bytes": self.dropped_bytes,
            "failed_batches": self.failed_batches,
        }

    def writer(self, account: str, region: str, group: str, stream: str) -> StreamWriter:
        """Open a stream; group and stream come to be with the first event."""
        key = (account, region, group)
        self._index.opened(key, stream)
        return StreamWriter(self, self._thread, Pending(key, stream))

    def closed(self, key: Key, stream: str) -> None:
        """A writer is done."""
        self._index.closed(key, stream)

    async def flush(self) -> None:
        await asyncio.wrap_future(self._thread.flush())

    async def close(self) -> None:
        await asyncio.to_thread(self._thread.close)

    # --- management

    async def _locked(self, action: Callable[[], _T]) -> _T:
        """Run something that may touch the disk in a thread, after everything appended so far."""
        # A disk that refuses what is new must not hide what is there.
        with contextlib.suppress(OSError):
            await self.flush()

        def run() -> _T:
            with self._index.lock:
                return action()

        return await asyncio.to_thread(run)

    async def create_group(self, account: str, region: str, group: str) -> bool:
        key = (account, region, group)

        def create() -> bool:
            if key in self._index.groups:
                return False
            self._disk.group(key)
            return True

        return await self._locked(create)

    async def create_stream(self, account: str, region: str, group: str, stream: str) -> bool | None:
        """False when it exists already, None when there is no such group."""

        def create() -> bool | None:
            found = self._index.groups.get((account, region, group))
            if found is None:
                return None
            if stream in found.streams:
                return False
            self._disk.stream(found, stream)
            return True

        return await self._locked(create)

    async def delete_group(self, account: str, region: str, group: str) -> bool:
        key = (account, region, group)

        def delete() -> bool:
            if key not in self._index.groups:
                return False
            self._disk.delete_group(key)
            return True

        return await self._locked(delete)

    async def delete_stream(self, account: str, region: str, group: str, stream: str) -> bool | None:
        """False when there is no such stream, None when there is no such group."""

        def delete() -> bool | None:
            found = self._index.groups.get((account, region, group))
            if found is None:
                return None
            if stream not in found.streams:
                return False
            self._disk.delete_stream(found, stream)
            return True

        return await self._locked(delete)

    async def set_retention(self, account: str, region: str, group: str, days: int | None) -> bool:
        def change() -> bool:
            found = self._index.groups.get((account, region, group))
            if found is None:
                return False
            found.metadata = msgspec.structs.replace(found.metadata, retention_days=days)
            self._disk.save(found)
            return True

        return await self._locked(change)

    # --- reading

    async def groups(
        self, account: str, region: str, *, prefix: str, after: str, limit: int
    ) -> list[LogGroupInfo]:
        def find() -> list[LogGroupInfo]:
            names = sorted(
                name
                for owner, place, name in self._index.groups
                if owner == account and place == region and name.startswith(prefix) and name > after
            )
            return [_group_info(self._index.groups[account, region, name]) for name in names[:limit]]

        return await self._locked(find)

    async def streams(
        self, account: str, region: str, group: str, *, prefix: str, by_last_event: bool, descending: bool
    ) -> list[LogStreamInfo] | None:
        def find() -> tuple[list[Stream], list[Part]] | None:
            found = self._index.groups.get((account, region, group))
            if found is None:
                return None
            streams = [stream for name, stream in found.streams.items() if name.startswith(prefix)]
            return streams, parts_of(streams, _EVERYTHING)

        found = await self._locked(find)
        if found is None:
            return None
        streams, parts = found

        def describe() -> list[LogStreamInfo]:
            for part in parts:
                learn(self._index, part)
            with self._index.lock:
                return [_stream_info(stream) for stream in streams]

        infos = await asyncio.to_thread(describe)
        infos.sort(
            key=lambda info: (info.last_event_ms or 0, info.name) if by_last_event else (0, info.name),
            reverse=descending,
        )
        return infos

    async def events(
        self,
        account: str,
        region: str,
        group: str,
        *,
        streams: tuple[str, ...] | None,
        start_ms: int,
        end_ms: int,
        token: str | None,
        limit: int,
        from_head: bool = True,
    ) -> LogPage | None:
        beyond = None
        if token is not None:
            kind, beyond = tokens.decode(token)
            from_head = kind == "f"
        query = Query(start_ms, end_ms, limit, from_head, beyond)

        def find() -> list[Part] | None:
            found = self._index.groups.get((account, region, group))
            if found is None:
                return None
            if streams is None:
                return parts_of(found.streams.values(), query)
            if any(name not in found.streams for name in streams):
                return None
            return parts_of([found.streams[name] for name in streams], query)

        parts = await self._locked(find)
        if parts is None:
            return None
        return await asyncio.to_thread(read_page, self._index, parts, query)


_EVERYTHING = Query(-(2**63), 2**63 - 1, 0, True, None)


def _group_info(group: Group) -> LogGroupInfo:
    metadata = group.metadata
    return LogGroupInfo(metadata.name, metadata.created_ms, group.size_bytes, metadata.retention_days)


def _stream_info(stream: Stream) -> LogStreamInfo:
    first = [segment.first_ms for segment in stream.segments if segment.first_ms is not None]
    last = [segment.last_ms for segment in stream.segments if segment.last_ms is not None]
    ingested = [s.last_ingestion_ms for s in stream.segments if s.last_ingestion_ms is not None]
    return LogStreamInfo(
        stream.name,
        stream.created_ms,
        min(first, default=None),
        max(last, default=None),
        max(ingested, default=None),
        stream.size_bytes,
    )
