"""The one thread that writes, behind everybody's back: gives what was appended to the disk, in batches."""

import collections
import concurrent.futures
import contextlib
import threading
from collections.abc import Iterator

from stoker.core.limits import LOG_EVENT_COST_BYTES
from stoker.worker.logstore.disk import Disk, Event
from stoker.worker.logstore.index import Key

BATCH_S = 0.2
"""How long the thread lets events gather before it writes them."""

SWEEP_S = 60.0
"""How often retention is looked at."""

Flushed = concurrent.futures.Future[None]


class Pending:
    """The events of one stream that wait. Appended to by the event loop, emptied by the writer thread."""

    __slots__ = ("events", "is_queued", "key", "stream")

    def __init__(self, key: Key, stream: str) -> None:
        self.key = key
        self.stream = stream
        self.events: collections.deque[Event] = collections.deque()
        self.is_queued = False


class WriterThread:
    """``append`` may be called from one thread only: the event loop's."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._queue: collections.deque[Pending | Flushed] = collections.deque()
        self._wake = threading.Event()
        self._urgent = threading.Event()
        self._closing = False
        # Two counters, each written by one thread: no lock on the way of an invocation.
        self._appended_bytes = 0
        self._taken_bytes = 0
        self.failed_batches = 0
        self.last_error: OSError | None = None
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    @property
    def pending_bytes(self) -> int:
        """Appended and not yet written."""
        return self._appended_bytes - self._taken_bytes

    def append(self, pending: Pending, timestamp_ms: int, message: str) -> None:
        self._appended_bytes += len(message) + LOG_EVENT_COST_BYTES
        pending.events.append((timestamp_ms, message))
        # The thread clears the mark before it looks: whatever comes after is marked, and looked for, again.
        if not pending.is_queued:
            pending.is_queued = True
            self._queue.append(pending)
            self._wake.set()

    def flush(self) -> Flushed:
        """Done once everything appended before is written; fails with the OSError that prevented it."""
        done: Flushed = concurrent.futures.Future()
        if self._closing:
            done.set_result(None)
            return done
        self._queue.append(done)
        self._urgent.set()
        self._wake.set()
        return done

    def close(self) -> None:
        """Write what waits and end. Blocking."""
        self._closing = True
        self._urgent.set()
        self._wake.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            self._wake.wait(SWEEP_S)
            # Let events gather, unless somebody waits for them.
            self._urgent.wait(BATCH_S)
            closing = self._closing
            self._wake.clear()
            self._urgent.clear()
            self._write_batch()
            if closing:
                self._disk.close_files()
                return
            with contextlib.suppress(OSError):
                self._disk.expire_if_due(SWEEP_S)

    def _write_batch(self) -> None:
        waiting: list[Flushed] = []
        error: OSError | None = None
        for _ in range(len(self._queue)):
            item = self._queue.popleft()
            if not isinstance(item, Pending):
                waiting.append(item)
                continue
            item.is_queued = False
            try:
                self._disk.append(item.key, item.stream, self._take(item))
            except OSError as failure:
                error = self.last_error = failure
                self.failed_batches += 1
                self._requeue(item)
        for done in waiting:
            if done.set_running_or_notify_cancel():
                done.set_result(None) if error is None else done.set_exception(error)

    def _requeue(self, pending: Pending) -> None:
        """What a failed write had not taken yet is tried again with the next batch."""
        if pending.events and not pending.is_queued:
            pending.is_queued = True
            self._queue.append(pending)

    def _take(self, pending: Pending) -> Iterator[Event]:
        """The events that wait now; each counts as taken once it is handed out."""
        events = pending.events
        for _ in range(len(events)):
            event = events.popleft()
            self._taken_bytes += len(event[1]) + LOG_EVENT_COST_BYTES
            yield event
