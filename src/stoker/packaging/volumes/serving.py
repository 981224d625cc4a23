"""The service's end of the volume process: starts it, hands it volumes, fetches chunks for it.

When the process dies every volume it served is lost, and whoever mounted them is told; the next volume
starts a new one. Knows neither images nor where chunks are kept.
"""

import asyncio
import contextlib
import fcntl
import os
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from stoker.core.errors import StokerError
from stoker.core.threads import CallThreads
from stoker.packaging.chunks.manifest import Manifest
from stoker.packaging.chunks.sealing import SealedChunk
from stoker.packaging.spawning import spawn
from stoker.packaging.volumes.fetching import FETCHES_MAX
from stoker.packaging.volumes.records import (
    MESSAGE_MAX_BYTES,
    Alarm,
    Drop,
    Fetch,
    Fetched,
    Gone,
    Order,
    Ping,
    Pong,
    Ready,
    Report,
    Serve,
    Serving,
    Touched,
    VolumeStatistics,
    decode_report,
    encode,
    encode_chunk,
    encode_table,
)

COMMAND = (sys.executable, "-I", "-m", "stoker.packaging.volumes.process")
START_WAIT_S = 15.0
SERVE_WAIT_S = 5.0
SEND_WAIT_S = 5.0
"""A process that does not take an order for this long hangs, and is killed."""

PING_EVERY_S = 2.0
UNANSWERED_MAX = 4
"""Pings; a process that answers none of so many hangs."""

_SEND_PAUSE_S = 0.002


class VolumesFailed(StokerError):
    """The volume process does not start, or died."""


class VolumeContent(msgspec.Struct, frozen=True):
    """What a volume shows, and where it comes from.

    ``fetch`` gives the sealed chunk at an index, anew when its second argument says that the last was
    damaged. It raises StokerError when it cannot.
    """

    manifest: Manifest
    fetch: Callable[[int, bool], Awaitable[SealedChunk | None]]
    profile: tuple[int, ...] = ()
    on_touched: Callable[[tuple[int, ...]], None] = lambda _: None
    on_alarm: Callable[[str], None] = lambda _: None


class _Life:
    """One process and the socket to it."""

    def __init__(self, process: subprocess.Popen[bytes], control: socket.socket) -> None:
        self.process = process
        self.control = control
        self.serving: dict[int, asyncio.Future[Serving]] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self.statistics = VolumeStatistics()
        self.unanswered = 0

    def end(self) -> None:
        """Kill it, whatever it does, and leave no zombie."""
        self.control.close()
        self.process.kill()
        self.process.wait()


class VolumeProcess:
    """At most one process at a time, for every volume of this worker.

    ``on_lost`` is told the ids of volumes whose process died: every read of them fails by then.
    """

    def __init__(
        self,
        threads: CallThreads,
        cache_bytes: int,
        on_lost: Callable[[Sequence[int]], None],
        *,
        command: Sequence[str] = COMMAND,
    ) -> None:
        self._threads = threads
        self._command = [*command, str(cache_bytes)]
        self._on_lost = on_lost
        self._life: _Life | None = None
        self._starting = asyncio.Lock()
        self._volumes: dict[int, VolumeContent] = {}
        self._past = VolumeStatistics()
        self.restarts = 0
        self.missing: tuple[str, ...] = ()
        """What the host does not offer for confining it; known once it has started."""

    @property
    def pid(self) -> int | None:
        """Of the process, while there is one."""
        return self._life.process.pid if self._life else None

    def serves(self, volume: int) -> bool:
        """Whether a volume is served."""
        return volume in self._volumes

    async def start(self) -> None:
        """Start the process ahead of the first volume.

        Raises:
            VolumesFailed
        """
        async with self._starting:
            if self._life is None:
                self._life = await self._started()
                self._begin(self._life, self._receive(self._life))
                self._begin(self._life, self._watch(self._life))

    async def serve(self, volume: int, device: int, content: VolumeContent) -> None:
        """Have a volume served; the device stays the caller's, who closes it at once.

        Raises:
            VolumesFailed: it is not served.
        """
        await self.start()
        life = self._life
        if life is None:
            raise VolumesFailed("the volume process died")
        answer = life.serving[volume] = asyncio.get_running_loop().create_future()
        table = _sealed_file(encode_table(content.manifest))
        self._volumes[volume] = content
        try:
            await self._send(life, Serve(volume, content.profile), [device, table])
            served = await asyncio.wait_for(answer, SERVE_WAIT_S)
        except (OSError, TimeoutError) as problem:
            self._volumes.pop(volume, None)
            raise VolumesFailed(f"the volume process does not serve: {problem!r}") from problem
        except BaseException:
            self._volumes.pop(volume, None)
            raise
        finally:
            life.serving.pop(volume, None)
            os.close(table)
        if served.why:
            self._volumes.pop(volume, None)
            raise VolumesFailed(f"the volume process does not serve: {served.why}")

    async def drop(self, volume: int) -> None:
        """Stop serving a volume: its reads fail. Nothing happens when it is not served."""
        if self._volumes.pop(volume, None) is not None and self._life is not None:
            with contextlib.suppress(OSError, TimeoutError):
                await self._send(self._life, Drop(volume), [])

    async def close(self) -> None:
        """End the process; nobody is told of volumes it served."""
        self._volumes.clear()
        life, self._life = self._life, None
        if life is not None:
            for task in life.tasks:
                task.cancel()
            await asyncio.gather(*life.tasks, return_exceptions=True)
            await self._threads.call(life.end)

    def statistics(self) -> VolumeStatistics:
        """Totals of all processes there were; sizes of the one there is."""
        now = self._life.statistics if self._life else VolumeStatistics()
        past, current = msgspec.structs.asdict(self._past), msgspec.structs.asdict(now)
        sums = {name: past[name] + current[name] for name in current}
        return VolumeStatistics(**sums | {"volumes": now.volumes, "cache_bytes": now.cache_bytes})

    # --- the process -----------------------------------------------------------------------------

    async def _started(self) -> _Life:
        life = await self._threads.call(self._spawn)
        try:
            loop = asyncio.get_running_loop()
            message = await asyncio.wait_for(loop.sock_recv(life.control, MESSAGE_MAX_BYTES), START_WAIT_S)
            ready = decode_report(message) if message else None
            if not isinstance(ready, Ready):
                raise VolumesFailed(f"the volume process began with {ready}")
        except (OSError, TimeoutError, msgspec.MsgspecError) as problem:
            await self._threads.call(life.end)
            raise VolumesFailed(f"the volume process does not start: {problem!r}") from problem
        except BaseException:
            await asyncio.shield(self._threads.call(life.end))
            raise
        self.missing = ready.missing
        return life

    def _spawn(self) -> _Life:
        try:
            return _Life(*spawn(self._command, MALLOC_ARENA_MAX="2"))
        except OSError as problem:
            raise VolumesFailed(f"the volume process does not start: {problem}") from problem

    def _begin(self, life: _Life, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        assert isinstance(task, asyncio.Task)
        life.tasks.add(task)
        task.add_done_callback(life.tasks.discard)

    async def _receive(self, life: _Life) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            while message := await loop.sock_recv(life.control, MESSAGE_MAX_BYTES):
                self._hear(life, decode_report(message))
        await self._lose(life)

    async def _watch(self, life: _Life) -> None:
        """End a process that hangs: who waits for a read of it can neither be frozen nor always killed."""
        while life.unanswered < UNANSWERED_MAX and self._life is life:
            life.unanswered += 1
            with contextlib.suppress(OSError, TimeoutError):
                await self._send(life, Ping(), [])
            await asyncio.sleep(PING_EVERY_S)
        life.process.kill()

    async def _lose(self, life: _Life) -> None:
        if self._life is not life:
            return
        self._life = None
        self.restarts += 1
        self._past = _added(self._past, life.statistics)
        lost, self._volumes = list(self._volumes), {}
        for waiting in life.serving.values():
            if not waiting.done():
                waiting.set_exception(VolumesFailed("the volume process died"))
        await self._threads.call(life.end)  # before anybody is told: now every read fails
        self._on_lost(lost)

    def _hear(self, life: _Life, report: Report) -> None:
        match report:
            case Serving():
                waiting = life.serving.get(report.volume)
                if waiting is not None and not waiting.done():
                    waiting.set_result(report)
            case Gone():
                if self._volumes.pop(report.volume, None) is not None:
                    self._on_lost([report.volume])
            case VolumeStatistics():
                life.statistics = report
            case Pong():
                life.unanswered = 0
            case Ready():
                raise OSError("the volume process began again")
            case _:
                content = self._volumes.get(report.volume)
                if content is not None:
                    self._hear_of(life, report, content)

    def _hear_of(self, life: _Life, report: Fetch | Alarm | Touched, content: VolumeContent) -> None:
        match report:
            case Fetch() if len(life.tasks) <= 2 * FETCHES_MAX:
                self._begin(life, self._fetch(life, report, content))
            case Alarm():
                content.on_alarm(f"chunk {report.index} was {report.why}: reads of it failed")
            case Touched():
                content.on_touched(report.indexes)
            case Fetch():  # more than it may ask for: its own time-out tells it
                pass

    async def _fetch(self, life: _Life, wanted: Fetch, content: VolumeContent) -> None:
        try:
            chunk = await content.fetch(wanted.index, wanted.again)
            if chunk is None:
                raise VolumesFailed("a chunk became a hole")
        except StokerError as problem:
            await self._answer(life, Fetched(wanted.fetch, type(problem).__name__), [])
            return
        file = os.memfd_create("chunk", os.MFD_CLOEXEC)
        try:
            os.writev(file, encode_chunk(chunk))
            await self._answer(life, Fetched(wanted.fetch), [file])
        finally:
            os.close(file)

    async def _answer(self, life: _Life, answer: Fetched, descriptors: list[int]) -> None:
        try:
            await self._send(life, answer, descriptors)
        except (OSError, TimeoutError):
            life.process.kill()  # it hangs, or is gone: its socket's end tells the rest

    async def _send(self, life: _Life, order: Order, descriptors: list[int]) -> None:
        """Raises OSError, or TimeoutError when the process takes nothing."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + SEND_WAIT_S
        while True:
            try:
                socket.send_fds(life.control, [encode(order)], descriptors)
                return
            except BlockingIOError:
                if loop.time() > deadline_s:
                    raise TimeoutError("the volume process hangs") from None
                await asyncio.sleep(_SEND_PAUSE_S)


def _added(past: VolumeStatistics, more: VolumeStatistics) -> VolumeStatistics:
    first, second = msgspec.structs.asdict(past), msgspec.structs.asdict(more)
    return VolumeStatistics(**{name: first[name] + second[name] for name in first})


def _sealed_file(content: bytes) -> int:
    """A file in memory that nobody can change any more."""
    file = os.memfd_create("table", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    view = memoryview(content)
    while view:
        view = view[os.write(file, view) :]
    fcntl.fcntl(
        file,
        fcntl.F_ADD_SEALS,
        fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE,
    )
    return file
