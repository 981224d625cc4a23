"""What is written in rising order of addresses, cut into chunks. Holds one chunk; holes cost nothing."""

import os
from collections.abc import Callable
from typing import Final

from stoker.packaging.chunks.sealing import CHUNK_BYTES
from stoker.packaging.flatten.limits import invalid

Take = Callable[[int, bytearray, int], bytearray]
"""(number of the chunk, its bytes, how many are used): returns a buffer for the next, whatever is in it."""

_NOTHING: Final = -1


class ChunkWriter:
    """Copies files and pieces of metadata to their addresses, chunk by chunk."""

    def __init__(self, take: Take, first: bytearray) -> None:
        self._take = take
        self._buffer = first
        self._view = memoryview(first)
        self._number = _NOTHING
        self._used = 0

    def copy(self, address: int, descriptor: int, offset: int, size_bytes: int) -> None:
        """Copy from a file.

        Raises:
            LayerRefused: it ends early.
        """
        while size_bytes:
            start = self._at(address)
            part = min(size_bytes, CHUNK_BYTES - start)
            if os.preadv(descriptor, [self._view[start : start + part]], offset) != part:
                raise invalid("a layer ends within a file")
            self._used = start + part
            address, offset, size_bytes = address + part, offset + part, size_bytes - part

    def put(self, address: int, piece: bytes) -> None:
        """Copy what is in memory."""
        done = 0
        while done < len(piece):
            start = self._at(address + done)
            part = min(len(piece) - done, CHUNK_BYTES - start)
            self._view[start : start + part] = piece[done : done + part]
            self._used = start + part
            done += part

    def flush(self) -> None:
        """Hand over the chunk that is being filled."""
        if self._number != _NOTHING:
            self._buffer = self._take(self._number, self._buffer, self._used)
            self._view = memoryview(self._buffer)
        self._number, self._used = _NOTHING, 0

    def _at(self, address: int) -> int:
        """Be at an address: its place in the chunk, zeros before it."""
        number, start = divmod(address, CHUNK_BYTES)
        if number != self._number:
            self.flush()
            self._number = number
        if start > self._used:
            self._view[self._used : start] = bytes(start - self._used)
        elif start < self._used:
            raise ValueError(f"address {address} was written already")
        return start
