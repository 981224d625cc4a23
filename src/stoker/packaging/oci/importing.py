"""Takes image archives in: admits every image and gives them a local name. Nothing is half imported."""

import os
from collections.abc import Callable
from pathlib import Path

from stoker.core.clock import Clock
from stoker.packaging.oci.archive import ImageArchive
from stoker.packaging.oci.imported import MANIFEST_KEPT_MAX_BYTES, ImportedImages, ImportedName, KeptImage
from stoker.packaging.oci.references import Reference
from stoker.packaging.oci.source import ImageManifest
from stoker.services.images import ImageProgress, ImageRefused, ImageStore, ResolvedImage


class ImageImporter:
    """``admit`` of the store reads the layers through ``ImportedImages``, which must be among its sources."""

    def __init__(self, store: ImageStore, imported: ImportedImages, clock: Clock) -> None:
        self._store = store
        self._imported = imported
        self._clock = clock

    async def take_in(
        self,
        file: Path,
        reference: Reference,
        *,
        chosen: str | None = None,
        progress: Callable[[ImageProgress], None] | None = None,
    ) -> ImportedName:
        """Import one image of an archive, for every architecture that it has.

        Args:
            chosen: the image's name in the archive; None when it has only one.

        Raises:
            ImageRefused: kind says why; the name is what it was.
        """
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        archive = ImageArchive(descriptor)
        try:
            manifests = await self._imported.call(archive, lambda: _manifests(archive, reference, chosen))
            for manifest in manifests.values():
                self._imported.open(manifest.digest, archive)
                await self._admit(manifest, progress)
            name = ImportedName(
                tuple(_kept(architecture, manifest) for architecture, manifest in manifests.items()),
                self._clock.now_s(),
            )
            await self._imported.put(reference, name)
        finally:
            self._imported.close(archive)
            os.close(descriptor)
        return name

    async def _admit(self, manifest: ImageManifest, progress: Callable[[ImageProgress], None] | None) -> None:
        if len(manifest.content) + len(manifest.config_content) > MANIFEST_KEPT_MAX_BYTES:
            raise ImageRefused(
                "too_big", f"manifest and configuration are over {MANIFEST_KEPT_MAX_BYTES} bytes"
            )
        uri = str(manifest.reference)
        image = ResolvedImage(uri=uri, resolved_uri=uri, digest=manifest.digest)
        await self._store.admit(image, self._imported.account, progress=progress)


def _manifests(archive: ImageArchive, reference: Reference, chosen: str | None) -> dict[str, ImageManifest]:
    archive.read()
    image = archive.select(chosen)
    return {
        architecture: archive.manifest(reference.at(image.digest), architecture)
        for architecture in archive.architectures(image)
    }


def _kept(architecture: str, manifest: ImageManifest) -> KeptImage:
    return KeptImage(architecture, manifest.digest, manifest.content, manifest.config_content)
