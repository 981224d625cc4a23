"""As much of an ImageStore as an import needs: it reads every layer it is given to admit, and keeps nothing."""

import secrets
from pathlib import Path
from typing import Any

from stoker.core.clock import SystemClock
from stoker.packaging.oci.every import EverySource
from stoker.packaging.oci.imported import ImportedImages
from stoker.packaging.oci.importing import ImageImporter
from stoker.packaging.oci.references import parse_reference
from stoker.packaging.oci.registry.access import RegistrySettings
from stoker.packaging.oci.registry.source import RegistrySource
from stoker.packaging.oci.source import ImageSource
from stoker.services.images import ImageArtifact, ImageConfiguration, ResolvedImage
from stoker.store.records import SqlRecords


class ReadingStore:
    """Tells what was admitted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source: ImageSource | None = None
        self.admitted: list[tuple[str, str]] = []

    async def admit(self, image: ResolvedImage, account: str, **_: Any) -> ImageArtifact:
        assert self.source is not None
        manifest = await self.source.manifest(parse_reference(image.resolved_uri), None)
        for layer in manifest.layers:
            file = self.folder / secrets.token_hex(8)
            await self.source.blob(manifest, layer.blob, file)
            file.unlink()
        self.admitted.append((account, image.digest))
        return ImageArtifact(
            digest=image.digest, account=account, size_bytes=1, configuration=ImageConfiguration()
        )


class Imports:
    def __init__(self, records: SqlRecords, folder: Path) -> None:
        self.store = ReadingStore(folder)
        self.names = ImportedImages(records, "000000000000")
        self.store.source = EverySource(RegistrySource(RegistrySettings()), self.names)
        self.importer = ImageImporter(self.store, self.names, SystemClock())  # pyright: ignore

    async def resolve(self, uri: str, architecture: str = "x86_64") -> str:
        assert self.store.source is not None
        return (await self.store.source.manifest(parse_reference(uri), architecture)).digest
