"""Images imported here, as the admin socket asks for them: an archive is spooled, then taken in."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

import msgspec

from stoker.packaging.nameless import open_nameless
from stoker.packaging.oci.imported import ImportedImages, ImportedName
from stoker.packaging.oci.importing import ImageImporter
from stoker.packaging.oci.references import Reference, parse_local_name
from stoker.services.admin import ImageDetails, ImportedImage
from stoker.services.images import ImageProgress, ImageRefused

ARCHIVE_MAX_BYTES: Final = 12 * 1024**3
"""An image has at most 10 GB; archives are padded."""
WRITE_BYTES: Final = 1024**2
IMPORTS_MAX: Final = 2
"""At one time; each may hold an archive on disk."""


class LocalImageAdmin:
    """The ImageAdmin port over this service's own store."""

    def __init__(
        self,
        importer: ImageImporter,
        imported: ImportedImages,
        spool: Path,
        unavailable: Callable[[], str | None] = lambda: None,
    ) -> None:
        """``unavailable`` says why this host has no use for images."""
        self._importer = importer
        self._unavailable = unavailable
        self._imported = imported
        self._spool = spool
        self._places = asyncio.Semaphore(IMPORTS_MAX)

    async def take_in(
        self,
        archive: AsyncIterator[bytes],
        name: str,
        chosen: str | None,
        progress: Callable[[ImageProgress], None],
    ) -> ImportedImage:
        """Spool the archive and import it; nothing is left of it afterwards.

        Raises:
            ImageRefused: kind says why.
            OSError: the disk is full.
        """
        reference = parse_local_name(name)
        if (why := self._unavailable()) is not None:
            raise ImageRefused("invalid", why)
        async with self._places:
            descriptor = open_nameless(self._spool)
            try:
                await _spooled(archive, descriptor, progress)
                path = Path(f"/proc/self/fd/{descriptor}")
                taken = await self._importer.take_in(path, reference, chosen=chosen, progress=progress)
            finally:
                os.close(descriptor)
        return _shown(reference, taken)

    async def list_images(self) -> list[ImportedImage]:
        """Every imported name, in order."""
        return [_shown(reference, name) for reference, name in await self._imported.names()]

    async def inspect(self, name: str) -> dict[str, ImageDetails]:
        """By architecture. Raises ImageRefused (``missing``)."""
        found = await self._imported.get(parse_local_name(name))
        if found is None:
            raise _missing(name)
        return {
            image.architecture: ImageDetails(
                digest=image.digest,
                manifest=msgspec.Raw(image.manifest),
                configuration=msgspec.Raw(image.config),
            )
            for image in found.images
        }

    async def remove(self, name: str) -> None:
        """Take a name away; functions keep their image. Raises ImageRefused (``missing``)."""
        if not await self._imported.remove(parse_local_name(name)):
            raise _missing(name)


async def _spooled(
    archive: AsyncIterator[bytes], descriptor: int, progress: Callable[[ImageProgress], None]
) -> None:
    received_bytes, waiting = 0, bytearray()
    async for chunk in archive:
        received_bytes += len(chunk)
        if received_bytes > ARCHIVE_MAX_BYTES:
            raise ImageRefused("too_big", f"the archive is over {ARCHIVE_MAX_BYTES} bytes")
        waiting += chunk
        if len(waiting) >= WRITE_BYTES:
            await asyncio.to_thread(_write, descriptor, bytes(waiting))
            waiting.clear()
            progress(ImageProgress(received_bytes, 0, "receiving"))
    await asyncio.to_thread(_write, descriptor, bytes(waiting))


def _write(descriptor: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _shown(reference: Reference, name: ImportedName) -> ImportedImage:
    return ImportedImage(
        name=f"{reference.name}:{reference.tag}",
        digests={image.architecture: image.digest for image in name.images},
        imported_at_s=name.imported_at_s,
    )


def _missing(name: str) -> ImageRefused:
    return ImageRefused("missing", f"no image {name} was imported (stoker image list)")
