"""Threads that seal chunks side by side into the slots that the service reads. Knows no layers."""

import queue
import threading
from collections.abc import Callable
from typing import Final

from stoker.packaging.chunks.sealing import CHUNK_BYTES, seal_chunk
from stoker.packaging.flatten.protocol import BATCH_CHUNKS, SLOTS, Chunk

SEALERS: Final = 2
_BUFFERS: Final = SEALERS + 2

Send = Callable[[list[Chunk]], None]
Failed = Callable[[BaseException], None]


class Sealers:
    """Takes chunks and sends their sealed forms in batches, in any order; holes are not sent."""

    def __init__(self, slots: memoryview, salt: bytes, send: Send, failed: Failed) -> None:
        self._slots = slots
        self._salt = salt
        self._send = send
        self._failed = failed
        self._jobs: queue.Queue[tuple[int, bytearray, int]] = queue.Queue(_BUFFERS)
        # The one used last goes first: it is still in the processor's cache.
        self._buffers: queue.Queue[bytearray] = queue.LifoQueue(_BUFFERS)
        self._free: queue.Queue[int] = queue.LifoQueue(SLOTS)
        self._batch: list[Chunk] = []
        self._lock = threading.Lock()
        for _ in range(_BUFFERS):
            self._buffers.put(bytearray(CHUNK_BYTES))
        self.release(list(range(SLOTS)))
        for _ in range(SEALERS):
            threading.Thread(target=self._run, daemon=True).start()

    def buffer(self) -> bytearray:
        """A buffer to fill; waits for one."""
        return self._buffers.get()

    def take(self, number: int, buffer: bytearray, used_bytes: int) -> bytearray:
        """Seal the chunk in ``buffer``; returns another one to fill."""
        self._jobs.put((number, buffer, used_bytes))
        return self._buffers.get()

    def release(self, slots: list[int]) -> None:
        """These slots may be used again.

        Raises:
            queue.Full: more than there are.
        """
        for slot in slots:
            self._free.put_nowait(slot)

    def drain(self) -> None:
        """Wait until everything that was taken is sent."""
        self._jobs.join()
        with self._lock:
            self._send_batch()

    def _run(self) -> None:
        try:
            while True:
                number, buffer, used_bytes = self._jobs.get()
                self._seal(number, buffer, used_bytes)
                self._jobs.task_done()
        except BaseException as problem:
            self._failed(problem)
            raise

    def _seal(self, number: int, buffer: bytearray, used_bytes: int) -> None:
        slot = self._free.get()
        room = self._slots[slot * CHUNK_BYTES : (slot + 1) * CHUNK_BYTES]
        sealed = seal_chunk(memoryview(buffer)[:used_bytes], self._salt, room)
        self._buffers.put(buffer)
        if sealed is None:
            self._free.put(slot)
            return
        with self._lock:
            self._batch.append(Chunk(number, sealed.name, sealed.key, slot, len(sealed.content)))
            if len(self._batch) >= BATCH_CHUNKS:
                self._send_batch()

    def _send_batch(self) -> None:
        if self._batch:
            self._send(self._batch)
            self._batch = []
