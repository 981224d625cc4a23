"""A small pool of packer processes, started when first needed and replaced when they die or grow old."""

import asyncio
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from stoker.core.disk import disk_full
from stoker.core.errors import StokerError
from stoker.packaging.protocol import (
    MESSAGE_MAX_BYTES,
    Answer,
    Broke,
    Hash,
    Hashed,
    Imaged,
    Pack,
    Ready,
    Refused,
    Request,
    Unpack,
    Unpacked,
)
from stoker.packaging.spawning import end_of, spawn

PACKER_COMMAND = (sys.executable, "-I", "-m", "stoker.packaging.packer")

PACKERS_MAX = 2
REQUESTS_WAITING_MAX = 512
REQUESTS_PER_PACKER = 512
"""A packer is replaced after this many, so that nothing an archive did to it lasts."""

START_TIMEOUT_S = 15.0
REQUEST_TIMEOUT_S = 120.0

_decode = msgspec.msgpack.Decoder(Answer).decode


class PackingFailed(StokerError):
    """The host, not the archive, failed; nothing was kept."""


class PackersBusy(PackingFailed):
    """Too many archives wait to be unpacked."""


class _Packer:
    """One process and the socket to it."""

    def __init__(self, process: subprocess.Popen[bytes], control: socket.socket) -> None:
        self.process = process
        self.control = control
        self.served = 0

    async def receive(self, timeout_s: float) -> Answer:
        loop = asyncio.get_running_loop()
        message = await asyncio.wait_for(loop.sock_recv(self.control, MESSAGE_MAX_BYTES), timeout_s)
        if not message:
            raise PackingFailed(f"the packer {await asyncio.to_thread(end_of, self.process)}")
        return _decode(message)

    async def ask(self, request: Request, descriptors: Sequence[int]) -> Answer:
        self.served += 1
        socket.send_fds(self.control, [msgspec.msgpack.encode(request)], list(descriptors))
        return await self.receive(REQUEST_TIMEOUT_S)

    def end(self) -> None:
        """Kill it, whatever it does, and leave no zombie."""
        self.control.close()
        self.process.kill()
        self.process.wait()


class PackerPool:
    """Hands archives to packers, which can write below ``staging`` only.

    ``command`` may be prefixed by what confines the process further.
    """

    def __init__(
        self,
        staging: Path | None = None,
        *,
        command: Sequence[str] = PACKER_COMMAND,
        packers: int = PACKERS_MAX,
    ) -> None:
        self._staging = staging
        self._command = [*command] if staging is None else [*command, str(staging)]
        self._slots = asyncio.Semaphore(packers)
        self._idle: list[_Packer] = []
        self._waiting = 0
        self._closed = False
        self.missing: tuple[str, ...] = ()
        """What the host does not offer for confining packers; known once one has started."""

    async def start(self) -> None:
        """Start one packer ahead of the first archive, so that it costs no start-up time.

        Raises:
            PackingFailed: it does not start.
        """
        self._idle.append(await self._started())

    async def close(self) -> None:
        """End idle packers; busy ones end with their request."""
        self._closed = True
        idle, self._idle = self._idle, []
        for packer in idle:
            await asyncio.to_thread(packer.end)

    @property
    def pids(self) -> list[int]:
        """Of the packers that wait for work."""
        return [packer.process.pid for packer in self._idle]

    async def hash(self, archive: int) -> Hashed:
        """SHA-256 and size of an open archive.

        Raises:
            PackingFailed: the host failed.
        """
        answer = await self._ask(Hash(), [archive])
        if isinstance(answer, Hashed):
            return answer
        raise PackingFailed(f"the packer answered {answer}")

    async def unpack(self, archive: int, directory: int, limit_bytes: int) -> Unpacked | Refused:
        """Unpack an open archive into an open, empty directory.

        Raises:
            PackingFailed, DiskFull: the host failed; the directory holds an unknown part of the archive.
        """
        answer = await self._ask(Unpack(limit_bytes), [archive, directory])
        if isinstance(answer, Unpacked | Refused):
            return answer
        raise _failure(answer)

    async def pack(self, archives: Sequence[int], image: int, limit_bytes: int) -> Imaged | Refused:
        """Write open archives, later ones over earlier ones, as one image into an open, empty file.

        Raises:
            PackingFailed, DiskFull: the host failed; the file holds an unknown part of the image.
        """
        answer = await self._ask(Pack(limit_bytes), [image, *archives])
        if isinstance(answer, Imaged | Refused):
            return answer
        raise _failure(answer)

    async def _ask(self, request: Request, descriptors: Sequence[int]) -> Answer:
        if self._waiting >= REQUESTS_WAITING_MAX:
            raise PackersBusy(f"{self._waiting} archives wait")
        self._waiting += 1
        try:
            async with self._slots:
                packer = self._idle.pop() if self._idle else await self._started()
                return await self._exchange(packer, request, descriptors)
        finally:
            self._waiting -= 1

    async def _exchange(self, packer: _Packer, request: Request, descriptors: Sequence[int]) -> Answer:
        keep = False
        try:
            answer = await packer.ask(request, descriptors)
            keep = packer.served < REQUESTS_PER_PACKER and not self._closed
            return answer
        except (OSError, TimeoutError, msgspec.DecodeError) as problem:
            raise PackingFailed(f"the packer failed: {problem!r}") from problem
        finally:
            if keep:
                self._idle.append(packer)
            else:
                await asyncio.shield(asyncio.to_thread(packer.end))

    async def _started(self) -> _Packer:
        packer = await asyncio.to_thread(self._spawn)
        try:
            answer = await packer.receive(START_TIMEOUT_S)
            if not isinstance(answer, Ready):
                raise PackingFailed(f"the packer began with {answer}")
        except BaseException:
            await asyncio.shield(asyncio.to_thread(packer.end))
            raise
        self.missing = tuple(answer.missing)
        return packer

    def _spawn(self) -> _Packer:
        if self._staging is not None:
            self._staging.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            return _Packer(*spawn(self._command))
        except OSError as problem:
            raise PackingFailed(f"the packer does not start: {problem}") from problem


def _failure(answer: Answer) -> StokerError:
    if not isinstance(answer, Broke):
        return PackingFailed(f"the packer answered {answer}")
    return disk_full(answer.number) or PackingFailed(answer.why)
