"""An ImageSource over a layout folder of a test, which counts, and can be told to fail."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from stoker.packaging.oci import documents
from stoker.packaging.oci.references import Reference
from stoker.packaging.oci.source import Descriptor, ImageManifest
from tests.images.layout import blob_path


class LayoutSource:
    """Images by digest; tags mean nothing here."""

    def __init__(self, layout: Path) -> None:
        self.layout = layout
        self.fetched: list[str] = []
        self.damage: Callable[[bytes], bytes] | None = None

    async def manifest(self, reference: Reference, architecture: str | None) -> ImageManifest:
        assert reference.digest is not None
        content = blob_path(self.layout, reference.digest).read_bytes()
        parts = documents.read_manifest(content)
        config = blob_path(self.layout, parts.config.digest).read_bytes()
        return documents.assemble(reference, content, parts, config, architecture)

    async def blob(
        self,
        manifest: ImageManifest,
        blob: Descriptor,
        into: Path,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self.fetched.append(blob.digest)
        await asyncio.sleep(0.01)
        content = blob_path(self.layout, blob.digest).read_bytes()
        into.write_bytes(self.damage(content) if self.damage else content)
        if progress is not None:
            progress(len(content))
