"""The one thread that writes, behind everybody's back: gives what was appended to the disk, in batches."""

import collections
import concurrent.futures
import contextlib
import threading

from stoker.worker.logstore.disk import Appended, Disk

BATCH_S = 0.2
"""How long the thread lets events gather before it writes them."""

SWEEP_S = 60.0
"""How often retention is looked at."""

Flushed = concurrent.futures.Future[None]


class WriterThread:
    """``append`` may be called from one thread only: the event loop's."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._queue: collections.deque[Appended | Flushed] = collections.deque()
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

    def append(self, event: Appended) -> None:
        self._appended_bytes += event.size_bytes
        self._queue.append(event)
        if not self._wake.is_set():
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
        events: list[Appended] = []
        waiting: list[Flushed] = []
        while self._queue:
            item = self._queue.popleft()
            if isinstance(item, Appended):
                events.append(item)
            else:
                waiting.append(item)
        error: OSError | None = None
        try:
            self._disk.write(events)
        except OSError as failure:
            error = self.last_error = failure
            self.failed_batches += 1
        self._taken_bytes += sum(event.size_bytes for event in events)
        for done in waiting:
            if done.set_running_or_notify_cancel():
                done.set_result(None) if error is None else done.set_exception(error)
