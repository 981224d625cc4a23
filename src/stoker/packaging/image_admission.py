"""Admits an image: layers come from a source, go through the flattener and end as chunks and a manifest."""

import asyncio
import contextlib
import os
import secrets
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path

import msgspec

from stoker.core.disk import disk_full
from stoker.core.errors import StokerError
from stoker.packaging.chunks.admission import Admission, AdmissionLost
from stoker.packaging.chunks.images import ChunkedImages
from stoker.packaging.chunks.manifest import ChunkEntry, make_manifest
from stoker.packaging.flatten.flattener import Flattening, ReceivedChunk
from stoker.packaging.flatten.limits import LayerRefused
from stoker.packaging.image_configuration import read_configuration, with_user
from stoker.packaging.nameless import open_nameless
from stoker.packaging.oci.references import parse_reference
from stoker.packaging.oci.source import ImageManifest, ImageSource, Layer
from stoker.services.images import ImageProgress, ImageRefused, ResolvedImage

ATTEMPTS = 3
"""A root can be retired while an image goes into it."""


class AdmissionFailed(StokerError):
    """This host failed, not the image: no room on its disk, most likely."""


class ImageAdmission:
    """``folder`` holds layers while they are read; what an earlier life left there is swept by ``start``."""

    def __init__(self, source: ImageSource, images: ChunkedImages, folder: Path) -> None:
        self._source = source
        self._images = images
        self._folder = folder

    async def start(self) -> None:
        """Make the folder, empty."""
        await asyncio.to_thread(_empty, self._folder)

    async def admit(
        self,
        image: ResolvedImage,
        account: str,
        kms_key_arn: str | None,
        progress: Callable[[ImageProgress], None] | None,
    ) -> None:
        """Have the image stored and readable.

        Raises:
            ImageRefused: kind says why.
            StokerError: this host, the object store or the key service failed.
        """
        reference = parse_reference(image.resolved_uri)
        manifest = await self._source.manifest(reference, None)
        for attempt in range(ATTEMPTS):
            try:
                async with await self._images.begin(account, image.digest, kms_key_arn) as admission:
                    await self._flatten(manifest, admission, _Meter(manifest.transfer_bytes, progress))
                return
            except AdmissionLost:
                if attempt == ATTEMPTS - 1:
                    raise
            except LayerRefused as problem:
                raise ImageRefused(problem.kind, problem.why) from problem
            except OSError as problem:
                full = disk_full(problem.errno)
                raise full or AdmissionFailed(f"the image could not be unpacked: {problem}") from problem

    async def _flatten(self, manifest: ImageManifest, admission: Admission, meter: "_Meter") -> None:
        configuration, user = read_configuration(manifest.config_content)
        entries: list[ChunkEntry] = []

        async def store(chunks: Sequence[ReceivedChunk]) -> None:
            await asyncio.gather(*(_stored(admission, chunk) for chunk in chunks))
            entries.extend(ChunkEntry(chunk.number, chunk.name, chunk.key) for chunk in chunks)

        scratch = await asyncio.to_thread(open_nameless, self._folder)
        try:
            async with Flattening(salt=admission.salt, scratch=scratch, store=store) as flattening:
                async for layer, blob in self._layers(manifest, meter):
                    meter.turn("flattening")
                    await flattening.add_layer(
                        blob,
                        compression=layer.compression,
                        digest=layer.blob.digest,
                        diff_id=layer.diff_id,
                    )
                done = await flattening.finish(user)
        finally:
            os.close(scratch)
        if done.user is not None:
            configuration = with_user(configuration, done.user.uid, done.user.gid, done.user.home)
        meter.turn("storing")
        await admission.publish(make_manifest(done.size_bytes, entries, msgspec.json.encode(configuration)))

    async def _layers(self, manifest: ImageManifest, meter: "_Meter") -> AsyncGenerator[tuple[Layer, int]]:
        """Layers in their order, as open files without names; each while the one before is flattened."""
        ahead: asyncio.Task[int] | None = None
        try:
            for layer, following in zip(manifest.layers, (*manifest.layers[1:], None), strict=True):
                ahead = ahead or asyncio.create_task(self._fetch(manifest, layer, meter))
                blob, ahead = await ahead, None
                if following is not None:
                    ahead = asyncio.create_task(self._fetch(manifest, following, meter))
                try:
                    yield layer, blob
                finally:
                    os.close(blob)
        finally:
            if ahead is not None:
                await _dropped(ahead)

    async def _fetch(self, manifest: ImageManifest, layer: Layer, meter: "_Meter") -> int:
        path = self._folder / secrets.token_hex(16)
        await self._source.blob(manifest, layer.blob, path, meter.arrived)
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        finally:
            path.unlink()


class _Meter:
    """Tells how far an admission has come; blobs may arrive on another thread."""

    def __init__(self, total_bytes: int, told: Callable[[ImageProgress], None] | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._total_bytes = total_bytes
        self._told = told
        self._done_bytes = 0
        self._phase = "downloading"

    def arrived(self, count: int) -> None:
        if self._told is not None:
            self._loop.call_soon_threadsafe(self._add, count)

    def turn(self, phase: str) -> None:
        self._phase = phase
        self._add(0)

    def _add(self, count: int) -> None:
        self._done_bytes += count
        if self._told is not None:
            self._told(ImageProgress(self._done_bytes, self._total_bytes, self._phase))


async def _stored(admission: Admission, chunk: ReceivedChunk) -> None:
    if not await admission.has_chunk(chunk.name):
        await admission.put_chunk(chunk.name, await chunk.content())


async def _dropped(fetching: asyncio.Task[int]) -> None:
    fetching.cancel()
    with contextlib.suppress(asyncio.CancelledError, StokerError, OSError):
        os.close(await fetching)


def _empty(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for left in folder.iterdir():
        left.unlink()
