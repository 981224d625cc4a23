"""The service's side of one flattening: starts the confined process, feeds it layers, stores what it seals.

Trusts nothing that comes back but its form: chunk numbers, slots and sizes are checked, and a chunk's content
is copied before it is looked at.
"""

import asyncio
import fcntl
import hashlib
import mmap
import os
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Final, Self

import msgspec

from stoker.core.disk import disk_full
from stoker.core.errors import StokerError
from stoker.packaging.chunks.sealing import CHUNK_BYTES, KEY_BYTES, NAME_BYTES
from stoker.packaging.flatten import protocol
from stoker.packaging.flatten.image import BLOCK_BYTES
from stoker.packaging.flatten.limits import LayerRefused
from stoker.packaging.spawning import end_of, spawn

COMMAND: Final = (sys.executable, "-I", "-m", "stoker.packaging.flatten.process")
SILENCE_MAX_S: Final = 600.0
"""Zeros by the gigabyte are read without a word."""
START_TIMEOUT_S: Final = 30.0
_CHUNK_NUMBERS: Final = 1 << 20

_decode = msgspec.msgpack.Decoder(protocol.Answer).decode
_encode = msgspec.msgpack.encode


class FlatteningFailed(StokerError):
    """The host, not the image, failed: no room, the process died or stopped answering."""


class ReceivedChunk(msgspec.Struct, frozen=True):
    """A sealed chunk that was not stored yet."""

    number: int
    name: bytes
    key: bytes
    size_bytes: int
    copied: Callable[[], bytes]

    async def content(self) -> bytes:
        """The content, checked to be what the name says, off the event loop; while the batch is being stored.

        Raises:
            FlatteningFailed: it is not: the process that read hostile layers must not name chunks of others.
        """
        return await asyncio.to_thread(self._checked)

    def _checked(self) -> bytes:
        content = self.copied()
        if hashlib.sha256(content).digest() != self.name:
            raise FlatteningFailed("the flattener sent a chunk under a wrong name")
        return content


Store = Callable[[Sequence[ReceivedChunk]], Awaitable[None]]
"""Makes sure that a batch of chunks is stored; several batches are under way at once."""

Tell = Callable[[int], None]


class Flattening:
    """One image. ``async with``; ``add_layer`` for each, lowest first; ``finish``. Whatever is wrong ends it.

    Raises, all of it: LayerRefused; FlatteningFailed; DiskFull; what ``store`` raises.
    """

    def __init__(self, *, salt: bytes, scratch: int, store: Store, block_bytes: int = BLOCK_BYTES) -> None:
        """``scratch`` is an open, unlinked file where one layer is decompressed; it stays the caller's."""
        self._salt = salt
        self._scratch = scratch
        self._store = store
        self._block_bytes = block_bytes
        self._storing: set[asyncio.Task[None]] = set()
        self._in_use: set[int] = set()
        self._is_finished = False
        self.missing: tuple[str, ...] = ()
        """What the host does not offer for confining the process."""

    async def __aenter__(self) -> Self:
        self._slots = _sealed_memory(protocol.SLOTS * CHUNK_BYTES)
        self._room = mmap.mmap(self._slots, protocol.SLOTS * CHUNK_BYTES, prot=mmap.PROT_READ)
        try:
            self._process, self._control = await asyncio.to_thread(_spawn)
        except BaseException:
            self._room.close()
            os.close(self._slots)
            raise
        try:
            answer = await self._answer(START_TIMEOUT_S)
            if not isinstance(answer, protocol.Ready):
                raise FlatteningFailed(f"the flattener began with {answer}")
            self.missing = tuple(answer.missing)
            self._send(protocol.Begin(self._salt, self._block_bytes), [self._slots, self._scratch])
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._storing:
            task.cancel()
        await asyncio.gather(*self._storing, return_exceptions=True)
        self._control.close()
        self._process.kill()
        await asyncio.shield(asyncio.to_thread(self._process.wait))
        self._room.close()
        os.close(self._slots)

    @property
    def pid(self) -> int:
        """Of the process, within ``async with``."""
        return self._process.pid

    async def add_layer(
        self, blob: int, *, compression: str, digest: str, diff_id: str, tell: Tell | None = None
    ) -> None:
        """Merge the layer in the open file ``blob``; its chunks may still be on their way afterwards."""
        self._send(protocol.Layer(compression, digest, diff_id), [blob])
        while not isinstance(answer := await self._next(), protocol.LayerDone):
            if not isinstance(answer, protocol.Read):
                raise FlatteningFailed(f"the flattener answered {type(answer).__name__}")
            if tell is not None:
                tell(answer.size_bytes)

    async def finish(self, user: str) -> protocol.Flattened:
        """The image is whole and every chunk of it stored."""
        self._send(protocol.Finish(user), [])
        answer = await self._next()
        if not isinstance(answer, protocol.Flattened):
            raise FlatteningFailed(f"the flattener answered {type(answer).__name__}")
        self._is_finished = True
        if self._storing:
            await asyncio.gather(*self._storing)
        return answer

    async def _next(self) -> protocol.Answer:
        """The next answer that is not chunks; those go to the store meanwhile."""
        while True:
            answer = await self._answer(SILENCE_MAX_S)
            match answer:
                case protocol.Chunks():
                    task = asyncio.create_task(self._store_batch(answer.chunks))
                    self._storing.add(task)
                case protocol.Refused():
                    raise LayerRefused(answer.kind, answer.why)
                case protocol.Broke():
                    raise disk_full(answer.number) or FlatteningFailed(f"the flattener failed: {answer.why}")
                case _:
                    return answer

    async def _answer(self, silence_max_s: float) -> protocol.Answer:
        loop = asyncio.get_running_loop()
        receiving = asyncio.ensure_future(loop.sock_recv(self._control, protocol.MESSAGE_MAX_BYTES))
        try:
            while not receiving.done():
                waiting = {receiving, *self._storing}
                done, _ = await asyncio.wait(
                    waiting, timeout=silence_max_s, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done & self._storing:
                    self._storing.discard(task)
                    task.result()
                if not done and not self._storing:
                    raise FlatteningFailed(f"the flattener said nothing for {silence_max_s:.0f} s")
            message = receiving.result()
        except OSError as problem:
            raise FlatteningFailed(f"the flattener is gone: {problem}") from problem
        finally:
            receiving.cancel()
        if not message:
            raise FlatteningFailed(f"the flattener {await asyncio.to_thread(end_of, self._process)}")
        try:
            return _decode(message)
        except msgspec.DecodeError as problem:
            raise FlatteningFailed(f"the flattener spoke nonsense: {problem}") from problem

    async def _store_batch(self, chunks: list[protocol.Chunk]) -> None:
        slots = [chunk.slot for chunk in chunks]
        received = [self._received(chunk) for chunk in chunks]
        await self._store(received)
        self._in_use.difference_update(slots)
        if not self._is_finished:  # else it has sent all and is gone
            self._send(protocol.Taken(slots), [])

    def _received(self, chunk: protocol.Chunk) -> ReceivedChunk:
        start = chunk.slot * CHUNK_BYTES
        if (
            not 0 <= chunk.slot < protocol.SLOTS
            or chunk.slot in self._in_use
            or not 0 < chunk.size_bytes <= CHUNK_BYTES
            or not 0 <= chunk.number < _CHUNK_NUMBERS
            or (len(chunk.name), len(chunk.key)) != (NAME_BYTES, KEY_BYTES)
        ):
            raise FlatteningFailed("the flattener sent a chunk that cannot be")
        self._in_use.add(chunk.slot)
        return ReceivedChunk(
            chunk.number,
            chunk.name,
            chunk.key,
            chunk.size_bytes,
            lambda: self._room[start : start + chunk.size_bytes],
        )

    def _send(self, request: protocol.Request, descriptors: list[int]) -> None:
        try:
            socket.send_fds(self._control, [_encode(request)], descriptors)
        except OSError as problem:
            raise FlatteningFailed(f"the flattener is gone: {problem}") from problem


def _sealed_memory(size_bytes: int) -> int:
    """Memory to share with a process that is not trusted to leave it its size."""
    memory = os.memfd_create("stoker-chunks", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(memory, size_bytes)
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, seals)
    except BaseException:
        os.close(memory)
        raise
    return memory


def _spawn() -> tuple[subprocess.Popen[bytes], socket.socket]:
    try:
        return spawn(COMMAND)
    except OSError as problem:
        raise FlatteningFailed(f"the flattener does not start: {problem}") from problem
