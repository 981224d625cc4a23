"""Serves every volume of a worker from one thread: requests of the kernel, chunks from the service.

Never waits for anything but its own descriptors: a chunk that is slow to come delays its own readers alone.
"""

import errno
import os
import socket
from collections.abc import Callable
from contextlib import suppress

import msgspec

from stoker.packaging.volumes import fuse_records as fuse
from stoker.packaging.volumes.cache import LruTwo
from stoker.packaging.volumes.fetching import SLOW_FOR_S, Want, Wants
from stoker.packaging.volumes.opening import Opener
from stoker.packaging.volumes.records import (
    Alarm,
    Drop,
    Fetch,
    Fetched,
    Gone,
    Order,
    Ping,
    Pong,
    Report,
    Serve,
    Serving,
    TableDamaged,
    Touched,
    VolumeStatistics,
    decode_table,
    encode,
)
from stoker.packaging.volumes.volume import ChunkId, PendingRead, Piece, Volume, answer_read, chunk_id

VOLUMES_MAX = 1024
REQUESTS_AT_ONCE_MAX = 16
"""Of one volume before the others get their turn."""

AHEAD_SHARE = 0.5
"""Of the cache that a profile may fill."""


class VolumeServer:
    """Its owner calls ``serve_device`` when a device is readable, ``obey`` for each order, ``opened`` when
    chunks were opened, and ``tick`` now and then. ``watch`` and ``unwatch`` are told of devices."""

    def __init__(
        self,
        control: socket.socket,
        cache_bytes: int,
        clock: Callable[[], float],
        watch: Callable[[int], None],
        unwatch: Callable[[int], None],
    ) -> None:
        self._control = control
        self._clock = clock
        self._watch = watch
        self._unwatch = unwatch
        self._ahead_bytes_max = int(cache_bytes * AHEAD_SHARE)
        self.opener = Opener()
        self._cache: LruTwo[ChunkId, bytes] = LruTwo(cache_bytes)
        self._wants = Wants()
        self._volumes: dict[int, Volume] = {}
        self._devices: dict[int, Volume] = {}
        self._slow: dict[ChunkId, float] = {}
        self._buffer = bytearray(fuse.REQUEST_BYTES_MAX)
        self._counts = dict.fromkeys(VolumeStatistics.__struct_fields__, 0)
        self._told = VolumeStatistics()

    # --- orders ----------------------------------------------------------------------------------

    def obey(self, order: Order, descriptors: list[int]) -> None:
        """Do what the service says; every descriptor is taken over."""
        match order:
            case Serve() if len(descriptors) == 2:
                self._serve(order, *descriptors)
                return
            case Fetched() if len(descriptors) == 1:
                self._take(order.fetch, descriptors[0])
                return
            case Fetched():
                self._attempt_failed(order.fetch)
            case Drop():
                volume = self._volumes.get(order.volume)
                if volume is not None:
                    self._close(volume)
            case Ping():
                self._tell(Pong())
            case Serve():
                self._tell(Serving(order.volume, "descriptors are missing"))
        for descriptor in descriptors:
            os.close(descriptor)

    def _serve(self, order: Serve, device: int, table: int) -> None:
        try:
            manifest = decode_table(os.pread(table, os.fstat(table).st_size, 0))
            if order.volume in self._volumes or len(self._volumes) >= VOLUMES_MAX:
                raise TableDamaged("too many volumes, or one served already")
        except (TableDamaged, OSError) as problem:
            os.close(device)
            self._tell(Serving(order.volume, str(problem)))
            return
        finally:
            os.close(table)
        volume = Volume(order.volume, device, manifest, self._clock())
        self._volumes[volume.number] = self._devices[device] = volume
        self._watch(device)
        self._tell(Serving(volume.number))
        self._fetch_ahead(volume, order.profile)
        self._ask()

    def _fetch_ahead(self, volume: Volume, profile: tuple[int, ...]) -> None:
        room = self._ahead_bytes_max
        for index in profile:
            entry = volume.manifest.chunk(index)
            if entry is None or (chunk := chunk_id(entry)) in self._cache:
                continue
            room -= fuse.PAGE_BYTES * 128
            if room < 0:
                return
            self._wants.fetch_ahead(volume.number, chunk, index)

    def _close(self, volume: Volume) -> None:
        self._tell_profile(volume, volume.last_profile())
        self._unwatch(volume.device)
        os.close(volume.device)  # its reads fail with this
        del self._volumes[volume.number], self._devices[volume.device]
        self._wants.drop(volume.number)
        self._tell(Gone(volume.number))

    # --- the kernel's requests -------------------------------------------------------------------

    def serve_device(self, device: int) -> None:
        """Answer some of what a volume's kernel side asks."""
        volume = self._devices.get(device)
        for _ in range(REQUESTS_AT_ONCE_MAX):
            if volume is None:
                return
            try:
                length = os.readv(device, [self._buffer])
            except BlockingIOError:
                return
            except OSError as problem:
                if problem.errno in (errno.ENOENT, errno.EINTR):  # a request taken back before it was read
                    continue
                self._close(volume)
                return
            try:
                request = fuse.parse_request(memoryview(self._buffer)[:length])
            except fuse.MalformedRequest:
                self._close(volume)
                return
            if request.opcode not in fuse.UNANSWERED:
                self._serve_request(volume, request)
                volume = self._devices.get(device)

    def _serve_request(self, volume: Volume, request: fuse.FuseRequest) -> None:
        match request.opcode:
            case fuse.Opcode.READ:
                self._read(volume, request)
            case fuse.Opcode.GETATTR:
                self._write(volume, [fuse.answer_attributes(request, volume.manifest.size_bytes)])
            case fuse.Opcode.OPEN:
                self._write(volume, [fuse.answer_open(request)])
            case fuse.Opcode.INIT:
                self._write(volume, [fuse.answer_init(request)])
            case fuse.Opcode.STATFS:
                self._write(volume, [fuse.answer_statfs(request, volume.manifest.size_bytes)])
            case fuse.Opcode.RELEASE | fuse.Opcode.DESTROY:
                self._write(volume, [fuse.answer_error(request.unique, 0)])
            case _:
                self._write(volume, [fuse.answer_error(request.unique, errno.ENOSYS)])

    def _read(self, volume: Volume, request: fuse.FuseRequest) -> None:
        pieces = volume.pieces(request.offset, request.size_bytes)
        self._counts["reads"] += 1
        self._counts["read_bytes"] += request.size_bytes
        now_s = self._clock()
        found: dict[ChunkId, bytes] = {}
        missing: list[Piece] = []
        for piece in pieces:
            if piece.chunk is None:
                continue
            volume.touch(piece.index, now_s)
            plain = self._cache.get(piece.chunk, now_s)
            if plain is None:
                missing.append(piece)
            else:
                found[piece.chunk] = plain
        self._counts["hits"] += len(found)
        if any(now_s < self._slow.get(piece.chunk, 0.0) for piece in missing if piece.chunk is not None):
            self._counts["failed_reads"] += 1
            self._write(volume, [fuse.answer_error(request.unique, errno.EIO)])
        elif missing:
            self._wait(volume, request.unique, pieces, found, missing, now_s)
        else:
            self._write(volume, answer_read(request.unique, pieces, found))

    def _wait(
        self,
        volume: Volume,
        unique: int,
        pieces: tuple[Piece, ...],
        found: dict[ChunkId, bytes],
        missing: list[Piece],
        now_s: float,
    ) -> None:
        chunks = {piece.chunk: piece.index for piece in missing if piece.chunk is not None}
        read = PendingRead(volume.number, unique, pieces, found, set(chunks))
        volume.pending[unique] = read
        for chunk, index in chunks.items():
            joined = self._wants.wait_for(read, chunk, index, now_s)
            self._counts["joined" if joined else "misses"] += 1
        self._ask()

    def _write(self, volume: Volume, parts: list[bytes | memoryview] | list[bytes]) -> None:
        try:
            os.writev(volume.device, parts)
        except OSError as problem:
            if problem.errno not in (errno.ENOENT, errno.EINTR):  # whoever asked was killed meanwhile
                self._close(volume)

    # --- chunks ----------------------------------------------------------------------------------

    def _ask(self) -> None:
        """Ask the service for what is due."""
        for want in self._wants.due(self._clock()):
            order = Fetch(want.fetch, want.volume, want.index, again=want.damaged)
            if not self._tell(order):
                self._wants.unsent(want)
                return

    def _take(self, fetch: int, content: int) -> None:
        want = self._wants.named(fetch)
        if want is None:
            os.close(content)
            return
        self._counts["fetched_bytes"] += os.fstat(content).st_size
        self.opener.open(fetch, content)

    def opened(self) -> None:
        """Chunks were verified and decrypted: answer whoever waits for them."""
        for fetch, plain in self.opener.results():
            want = self._wants.named(fetch)
            if want is None:
                continue
            if plain is None:
                self._counts["damaged"] += 1
                self._attempt_failed(fetch, damaged=True)
                continue
            self._counts["prefetched"] += not want.waiting
            now_s = self._clock()
            self._cache.put(want.chunk, plain, len(plain), now_s)
            for read in self._wants.came(want):
                self._resolve(read, want.chunk, plain)
        self._ask()

    def _resolve(self, read: PendingRead, chunk: ChunkId, plain: bytes) -> None:
        volume = self._volumes.get(read.volume)
        if volume is None or read.unique not in volume.pending:
            return
        read.found[chunk] = plain
        read.missing.discard(chunk)
        if not read.missing:
            del volume.pending[read.unique]
            self._write(volume, answer_read(read.unique, read.pieces, read.found))

    def _attempt_failed(self, fetch: int, *, damaged: bool = False) -> None:
        want = self._wants.named(fetch)
        if want is None:
            return
        waited = self._wants.failed(want, self._clock(), damaged=damaged)
        if waited:
            self._fail(want, waited, "damaged" if damaged else "not to be had")

    def _fail(self, want: Want, waited: list[PendingRead], why: str) -> None:
        """EIO, never wrong bytes; the next read asks for the chunk again."""
        for read in waited:
            volume = self._volumes.get(read.volume)
            if volume is None or volume.pending.pop(read.unique, None) is None:
                continue
            self._counts["failed_reads"] += 1
            self._tell(Alarm(volume.number, want.index, why))
            self._write(volume, [fuse.answer_error(read.unique, errno.EIO)])

    # --- time ------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Give up what took too long, try again what failed, tell what is new."""
        now_s = self._clock()
        slow, late = self._wants.overdue(now_s)
        self._slow = {chunk: until_s for chunk, until_s in self._slow.items() if now_s < until_s}
        for want in late:
            self._slow[want.chunk] = now_s + SLOW_FOR_S
            self._fail(want, self._wants.give_up(want), "too slow")
        for want in slow:
            if want.fetch:
                self._attempt_failed(want.fetch)
        for volume in self._volumes.values():
            self._tell_profile(volume, volume.profile(now_s))
        self._ask()
        self._tell_statistics()

    @property
    def is_waiting(self) -> bool:
        """Whether anything could become overdue soon."""
        return len(self._wants) > 0

    def statistics(self) -> VolumeStatistics:
        """Totals since the start."""
        counts = self._counts | {
            "volumes": len(self._volumes),
            "cache_bytes": self._cache.size_bytes,
            "evicted": self._cache.evicted,
        }
        return VolumeStatistics(**counts)

    def _tell_statistics(self) -> None:
        now = self.statistics()
        if now != self._told and self._tell(now):
            self._told = now

    def _tell_profile(self, volume: Volume, profile: tuple[int, ...] | None) -> None:
        if profile:
            self._tell(Touched(volume.number, profile))

    def _tell(self, report: Report) -> bool:
        """False: the service does not read at the moment. Its end shows elsewhere."""
        with suppress(OSError, msgspec.MsgspecError):
            return self._control.send(encode(report), socket.MSG_DONTWAIT) > 0
        return False
