"""Collects the garbage of stored images on a timer, and says what goes wrong."""

import asyncio
import contextlib

import msgspec
import structlog

from stoker.core.clock import Clock
from stoker.core.configuration import Settings
from stoker.core.errors import StokerError
from stoker.packaging.chunks.collector import Collector, CollectorLimits, CollectorStatistics
from stoker.packaging.chunks.images import ChunkedImages
from stoker.store.object_store import S3ObjectStore

FIRST_AFTER_S = 300.0
EVERY_S = 3600.0
UPLOADS_KEPT_S = 24 * 3600
"""An upload in parts that is not done by then was left by a process that died."""

_log = structlog.get_logger("stoker.images")


class CollectingStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Since the start."""

    runs: int
    failures: int
    """Collections that ended early; the next goes on."""
    rotations: int
    images_moved: int
    images_stuck: int
    bytes_moved: int
    roots_deleted: int
    objects_deleted: int
    bytes_deleted: int
    alarmed_roots: int


class Collecting:
    """``start`` begins the timer; ``close`` cuts off what is under way, which loses nothing."""

    def __init__(self, images: ChunkedImages, settings: Settings, clock: Clock) -> None:
        self._images = images
        self._clock = clock
        self._collector = Collector(
            images,
            clock,
            CollectorLimits(
                rotate_after_s=settings.root_rotation_days * 86_400.0,
                grace_s=settings.root_grace_hours * 3600.0,
            ),
            on_problem=_warn,
        )
        self._task: asyncio.Task[None] | None = None
        self._runs = self._failures = 0

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def statistics(self) -> CollectingStatistics:
        """Counts since the start."""
        counts: CollectorStatistics = self._collector.statistics
        kept = {
            name: getattr(counts, name) for name in CollectorStatistics.__struct_fields__ if name != "phase"
        }
        return CollectingStatistics(runs=self._runs, failures=self._failures, **kept)

    async def collect(self, *, rotate: bool = False) -> bool:
        """Collect now; whether there was anything to collect and nobody else is at it.

        Raises:
            StokerError: it ended early; the next collection goes on.
        """
        if not await self._images.roots.exist():
            return False
        if isinstance(self._images.store, S3ObjectStore):
            before_s = self._clock.now_s() - UPLOADS_KEPT_S
            await self._images.store.drop_uploads(begun_before_s=before_s)
        return await self._collector.collect(rotate=rotate)

    async def _run(self) -> None:
        await asyncio.sleep(FIRST_AFTER_S)
        while True:
            self._runs += 1
            try:
                await self.collect()
            except StokerError as problem:
                self._failures += 1
                _warn("collecting the garbage of images ended early", problem)
            await asyncio.sleep(EVERY_S)


def _warn(what: str, problem: Exception | None) -> None:
    _log.warning(what, problem=None if problem is None else str(problem))
