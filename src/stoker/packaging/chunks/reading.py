"""Reads the chunks of one image for as long as it is mounted, following it from root to root.

Once its root is retired, reads move to the manifest in a newer root. A read that finds its root expired and
no newer manifest means that the collector is wrong: it raises an alarm, which stops the deletion.
"""

import asyncio
import contextlib
import secrets
from typing import Protocol

import msgspec

from stoker.core.clock import Clock
from stoker.packaging.chunks.images import ChunkedImages, OpenImage
from stoker.packaging.chunks.layout import alarm_key
from stoker.packaging.chunks.manifest import Manifest, ManifestDamaged
from stoker.packaging.chunks.roots import READABLE, RootState, RootTable
from stoker.packaging.chunks.sealing import SealedChunk
from stoker.services.images import ImageMissing
from stoker.services.keys import KeyRefused, KeyUnavailable
from stoker.services.object_store import ObjectMissing, ObjectStoreUnavailable

ROOTS_LOOKED_UP_EVERY_S = 60
"""Much less than the time between a root's expiry and the deletion of its chunks."""


LOOK_UP_WAIT_S = 1.0
"""How long a read waits for roots to be looked up beside it."""


class Alarms(msgspec.Struct):
    """What must never happen, counted; shared by all readers of a process."""

    expired_reads: int = 0
    """Reads of chunks whose root had expired."""


class ChunkSource(Protocol):
    """Gives chunks from somewhere nearer than the store, where it has them."""

    async def fetch(self, root: str, name: bytes, *, again: bool) -> bytes:
        """A chunk's sealed content. ``again``: what came the last time was damaged.

        Raises:
            ObjectMissing, ObjectStoreUnavailable
        """
        ...


class ImageReader:
    """The chunks of one image. Many may be read at once."""

    def __init__(
        self,
        images: ChunkedImages,
        image: OpenImage,
        clock: Clock,
        alarms: Alarms,
        source: ChunkSource | None = None,
    ) -> None:
        """``source`` gives the content of chunks, instead of the store alone."""
        self._images = images
        self._source = source
        self._image = image
        self._clock = clock
        self._alarms = alarms
        self._looked_up_at_s = clock.monotonic_s()
        self._looking = asyncio.Lock()
        self._alarmed: set[str] = set()

    @property
    def manifest(self) -> Manifest:
        """Sizes, places and the configuration, which are the same in every root; keys and names are not."""
        return self._image.manifest

    async def chunk(self, index: int, *, again: bool = False) -> SealedChunk | None:
        """The sealed chunk at ``index``, not verified: ``open_chunk`` does that. None for a hole.

        ``again``: it was damaged the last time.

        Raises:
            ObjectStoreUnavailable: also when the object is gone that should be there.
        """
        with contextlib.suppress(TimeoutError):  # the store stalls: what is open may be at hand all the same
            async with asyncio.timeout(LOOK_UP_WAIT_S):
                await self._look_up(force=False)
        found = await self._fetch(index, again)
        if found is not None or self._image.manifest.chunk(index) is None:
            return found
        await self._look_up(force=True)
        found = await self._fetch(index, again)
        if found is None:
            raise ObjectStoreUnavailable(f"chunk {index} of {self._image.place.digest} is gone")
        return found

    async def _fetch(self, index: int, again: bool) -> SealedChunk | None:
        image = self._image
        entry = image.manifest.chunk(index)
        if entry is None:
            return None
        try:
            if self._source is None:
                content = await self._images.fetch(image, entry)
            else:
                content = await self._source.fetch(image.place.root, entry.name, again=again)
        except ObjectMissing:
            return None
        return SealedChunk(entry.name, entry.key, content)

    async def _look_up(self, *, force: bool) -> None:
        """Move to a newer root when there is one to move to; failures leave everything as it is."""
        if not force and self._clock.monotonic_s() - self._looked_up_at_s < ROOTS_LOOKED_UP_EVERY_S:
            return
        async with self._looking:
            since_s = self._clock.monotonic_s() - self._looked_up_at_s
            if not force and since_s < ROOTS_LOOKED_UP_EVERY_S:
                return
            self._looked_up_at_s = self._clock.monotonic_s()
            try:
                await self._move(await self._images.roots.read())
            except (ObjectStoreUnavailable, KeyUnavailable, KeyRefused, ManifestDamaged):
                # What is open goes on being read; if its chunks are gone, that read says so.
                return

    async def _move(self, table: RootTable) -> None:
        place = self._image.place
        state = table.state(place.root)
        if state is RootState.ACTIVE:
            return
        try:
            self._image = await self._images.find(place.account, place.digest)
        except ImageMissing:
            if state not in READABLE and not await self._was_forgotten():
                await self._alarm(place.root)

    async def _was_forgotten(self) -> bool:
        """A mount may outlive its image: that is no alarm. Its manifest in the old root tells: forgetting
        takes it away, expiry does not."""
        place = self._image.place
        try:
            return await self._images.open_in(place.root, place.account, place.digest) is None
        except ObjectMissing:
            return True

    async def _alarm(self, root: str) -> None:
        self._alarms.expired_reads += 1
        if root not in self._alarmed:
            await self._images.store.put_new(alarm_key(root), secrets.token_bytes(16))
            self._alarmed.add(root)


async def open_reader(
    images: ChunkedImages, account: str, digest: str, clock: Clock, alarms: Alarms
) -> ImageReader:
    """A reader of an image that is stored. Raises as ``ChunkedImages.find``."""
    return ImageReader(images, await images.find(account, digest), clock, alarms)
