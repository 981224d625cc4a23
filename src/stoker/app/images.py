"""The image store of this host: where images come from, where their chunks lie, what mounts them."""

from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import structlog

from stoker.core.clock import Clock
from stoker.core.threads import CallThreads
from stoker.packaging.chunks.images import ChunkedImages
from stoker.packaging.image_admission import ImageAdmission
from stoker.packaging.image_mounts import ImageMounts
from stoker.packaging.image_store import ChunkedImageStore
from stoker.packaging.oci.imported import ImportedImages
from stoker.packaging.oci.source import ImageSource
from stoker.packaging.volumes.chunk_source import ChunkSource
from stoker.packaging.volumes.serving import VolumeProcess
from stoker.services.keys import DataKeys
from stoker.services.object_store import ObjectStore
from stoker.services.volumes import ImageMounter

THREADS_MAX = 16
"""For reading chunks and for what waits for the volume process."""

PLAIN_CACHE_BYTES = 256 * 1024**2
"""Opened chunks in memory, of all images together; what the kernel keeps of them is beside it."""

SEALED_CACHE_BYTES = 4 * 1024**3
"""Sealed chunks on this host's disk, where they come from a bucket."""

_log = structlog.get_logger("stoker.images")


class Images(msgspec.Struct, frozen=True, kw_only=True):
    """What the rooms need of them."""

    store: ChunkedImageStore
    unavailable: Callable[[], str | None]
    """What this host lacks for running images; None: nothing."""
    on_mount_lost: list[Callable[[int], None]]
    """Told the mount_id of an image that can no longer be read."""


async def open_images(
    folder: Path,
    *,
    source: ImageSource,
    imported: ImportedImages,
    objects: ObjectStore,
    objects_are_far: bool,
    keys: DataKeys,
    mounter: ImageMounter,
    clock: Clock,
    stack: AsyncExitStack,
) -> Images:
    """Open everything; ``stack`` closes it. Nothing is mounted or started before it is needed."""
    chunked = ChunkedImages(objects, keys, clock)
    admission = ImageAdmission(source, chunked, folder / "layers")
    await admission.start()
    threads = CallThreads("stoker-volumes", threads_max=THREADS_MAX)
    cached = ChunkSource(objects, threads, folder / "chunks" if objects_are_far else None, SEALED_CACHE_BYTES)
    await cached.start()
    told: list[Callable[[int], None]] = []

    def lost(mount_id: int) -> None:
        _log.error("image_lost", mount=mount_id)
        for tell in told:
            tell(mount_id)

    mounts = ImageMounts(
        chunked,
        cached,
        mounter,
        process=lambda gone: VolumeProcess(threads, PLAIN_CACHE_BYTES, gone),
        on_lost=lost,
        on_alarm=lambda what: _log.error("image_chunk", problem=what),
    )
    stack.push_async_callback(mounts.close)
    return Images(
        store=ChunkedImageStore(source, chunked, admission, mounts, imported.roots),
        unavailable=lambda: mounter.volumes_unavailable,
        on_mount_lost=told,
    )
