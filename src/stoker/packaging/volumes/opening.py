"""Threads that verify and decrypt chunks beside the loop of the volume process."""

import os
import queue
import threading

from stoker.packaging.chunks.sealing import ChunkDamaged
from stoker.packaging.volumes.records import open_chunk_file

THREADS = 2


class Opener:
    """``done`` becomes readable when ``results`` has something. Bounded by whoever hands chunks in."""

    def __init__(self) -> None:
        self.done = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._work: queue.SimpleQueue[tuple[int, int]] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[tuple[int, bytes | None]] = queue.SimpleQueue()
        for number in range(THREADS):
            threading.Thread(target=self._run, name=f"open-{number}", daemon=True).start()

    def open(self, fetch: int, content: int) -> None:
        """Open the sealed chunk in a file, which is closed."""
        self._work.put((fetch, content))

    def results(self) -> list[tuple[int, bytes | None]]:
        """What is done: the number of the fetch, and the plaintext or, of a damaged chunk, None."""
        try:
            os.eventfd_read(self.done)
        except BlockingIOError:
            return []
        found: list[tuple[int, bytes | None]] = []
        while not self._results.empty():
            found.append(self._results.get())
        return found

    def _run(self) -> None:
        while True:
            fetch, content = self._work.get()
            self._results.put((fetch, _opened(content)))
            os.eventfd_write(self.done, 1)


def _opened(content: int) -> bytes | None:
    try:
        return open_chunk_file(content)
    except (ChunkDamaged, OSError):
        return None
    finally:
        os.close(content)
