"""One source for all references: imported images by their local names, everything else from its registry."""

from pathlib import Path

from stoker.packaging.oci.references import Reference
from stoker.packaging.oci.source import Descriptor, ImageManifest, ImageSource, Progress


class EverySource:
    """An ``ImageSource`` over the two."""

    def __init__(self, registries: ImageSource, imported: ImageSource) -> None:
        self._registries = registries
        self._imported = imported

    async def manifest(self, reference: Reference, architecture: str | None) -> ImageManifest:
        """As in ``ImageSource``."""
        return await self._of(reference).manifest(reference, architecture)

    async def blob(
        self, manifest: ImageManifest, blob: Descriptor, into: Path, progress: Progress | None = None
    ) -> None:
        """As in ``ImageSource``."""
        await self._of(manifest.reference).blob(manifest, blob, into, progress)

    def _of(self, reference: Reference) -> ImageSource:
        return self._imported if reference.is_local else self._registries
