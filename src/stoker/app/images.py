"""The image store of this host: where images come from, where their chunks lie, what mounts them."""

from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import structlog

from stoker.app.collecting import Collecting
from stoker.app.configuration import ConfigurationError
from stoker.core.clock import Clock
from stoker.core.configuration import Settings
from stoker.core.threads import CallThreads
from stoker.packaging.chunks.images import ChunkedImages
from stoker.packaging.chunks.reading import Alarms
from stoker.packaging.image_admission import ImageAdmission
from stoker.packaging.image_mounts import ImageMounts
from stoker.packaging.image_store import ChunkedImageStore
from stoker.packaging.oci.every import EverySource
from stoker.packaging.oci.imported import ImportedImages
from stoker.packaging.oci.registry.access import registry_settings
from stoker.packaging.oci.registry.source import RegistrySource
from stoker.packaging.volumes.cached_chunks import CachedChunks, SourceStatistics
from stoker.packaging.volumes.records import VolumeStatistics
from stoker.packaging.volumes.serving import VolumeProcess
from stoker.services.keys import DataKeys
from stoker.services.object_store import ObjectStore
from stoker.services.records import Records
from stoker.services.volumes import ImageMounter

THREADS_MAX = 16
"""For reading chunks and for what waits for the volume process."""

MEGABYTE = 1024**2

_log = structlog.get_logger("stoker.images")


class Images(msgspec.Struct, frozen=True, kw_only=True):
    """What the rooms need of them."""

    store: ChunkedImageStore
    imported: ImportedImages
    chunked: ChunkedImages
    volumes: Callable[[], VolumeStatistics]
    volume_restarts: Callable[[], int]
    """How often the volume process died, and whatever it served with it."""
    chunks: Callable[[], SourceStatistics]
    alarms: Alarms
    collecting: Collecting
    unavailable: Callable[[], str | None]
    """What this host lacks for running images; None: nothing."""
    on_mount_lost: list[Callable[[int], object]]
    """Told the mount_id of an image that can no longer be read."""


async def open_images(
    settings: Settings,
    records: Records,
    objects: ObjectStore,
    keys: DataKeys,
    mounter: ImageMounter,
    clock: Clock,
    stack: AsyncExitStack,
) -> Images:
    """Open everything; ``stack`` closes it. Nothing is mounted or started before it is needed.

    Raises:
        ConfigurationError: the settings of registries cannot be used.
    """
    folder = Path(settings.data) / "images"
    imported = ImportedImages(records, settings.account)
    source = EverySource(_open_registries(settings, stack), imported)
    chunked = ChunkedImages(objects, keys, clock)
    admission = ImageAdmission(source, chunked, folder / "layers")
    await admission.start()
    mounts, cached, told = await _open_mounts(settings, chunked, folder, mounter, clock)
    stack.push_async_callback(mounts.close)
    collecting = Collecting(chunked, settings, clock)
    collecting.start()
    stack.push_async_callback(collecting.close)
    return Images(
        store=ChunkedImageStore(source, chunked, admission, mounts, imported.roots),
        imported=imported,
        chunked=chunked,
        volumes=mounts.process.statistics,
        volume_restarts=lambda: mounts.process.restarts,
        chunks=cached.statistics,
        alarms=mounts.alarms,
        collecting=collecting,
        unavailable=lambda: mounter.volumes_unavailable,
        on_mount_lost=told,
    )


async def _open_mounts(
    settings: Settings, chunked: ChunkedImages, folder: Path, mounter: ImageMounter, clock: Clock
) -> tuple[ImageMounts, CachedChunks, list[Callable[[int], object]]]:
    """The mounts, where their chunks come from, and whom to tell of lost ones."""
    threads = CallThreads("stoker-volumes", threads_max=THREADS_MAX)
    kept = folder / "chunks" if settings.object_store else None
    cached = CachedChunks(chunked.store, threads, kept, settings.image_disk_cache_mb * MEGABYTE)
    await cached.start()
    told: list[Callable[[int], object]] = []

    def lost(mount_id: int) -> None:
        _log.error("image_lost", mount=mount_id)
        for tell in told:
            tell(mount_id)

    mounts = ImageMounts(
        chunked,
        cached,
        mounter,
        clock,
        process=lambda gone: VolumeProcess(threads, settings.image_cache_mb * MEGABYTE, gone),
        on_lost=lost,
        on_alarm=lambda what: _log.error("image_chunk", problem=what),
    )
    return mounts, cached, told


def _open_registries(settings: Settings, stack: AsyncExitStack) -> RegistrySource:
    chosen = registry_settings(
        settings.registry_config,
        settings.registry_ca,
        settings.registry_plain_http,
        settings.registries,
    )
    try:
        registries = RegistrySource(chosen)
    except OSError as problem:
        raise ConfigurationError(f"configuration: registry_ca: {problem}") from problem
    stack.callback(registries.close)
    return registries
