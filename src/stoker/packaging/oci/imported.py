"""Images imported here as a source: their names are records, their layers are in the archive being imported.

Once an image is admitted only its manifest is needed: it is kept in the record, so that a name resolves like
any registry's. Names belong to the account of the service.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar
from uuid import uuid4

import msgspec

from stoker.core.threads import CallThreads
from stoker.packaging.oci import documents
from stoker.packaging.oci.archive import ImageArchive
from stoker.packaging.oci.references import LOCAL_HOST, Reference
from stoker.packaging.oci.source import Descriptor, ImageManifest, Progress
from stoker.services.images import ImageRefused
from stoker.services.records import (
    ANY_REVISION,
    PAGE_SIZE_MAX,
    Entry,
    Put,
    RecordExists,
    RecordKey,
    RecordMissing,
    Records,
    Remove,
    Shelf,
)

T = TypeVar("T")

KIND: Final = "imported-image"
EVERY_REGION: Final = ""
"""Imported names belong to an account and hold in all its regions."""
MANIFEST_KEPT_MAX_BYTES: Final = 512 * 1024
"""Manifest and configuration of one imported image together."""
THREADS_MAX: Final = 2


class KeptImage(msgspec.Struct, frozen=True):
    """What an imported name is for one architecture of Lambda's."""

    architecture: str
    digest: str
    manifest: bytes
    config: bytes


class ImportedName(msgspec.Struct, frozen=True):
    """The document of a record."""

    images: tuple[KeptImage, ...]
    imported_at_s: float


class ImportedImages:
    """An ``ImageSource`` of ``local/NAME:TAG`` for one account."""

    def __init__(self, records: Records, account: str) -> None:
        self._shelf = Shelf(records, KIND, ImportedName)
        self._open: dict[str, list[ImageArchive]] = {}
        """By digest, every archive from which it is being imported."""
        self._threads = CallThreads("stoker-archive", threads_max=THREADS_MAX)
        self.account = account

    async def manifest(self, reference: Reference, architecture: str | None) -> ImageManifest:
        """As in ``ImageSource``."""
        if reference.digest is not None and reference.digest in self._open:
            archive = self._open[reference.digest][-1]
            return await self.call(archive, lambda: archive.manifest(reference, architecture))
        images = await self._images(reference)
        if not images:
            raise ImageRefused("missing", f"no image {reference} was imported (stoker image list)")
        found = [image for image in images if architecture in (None, image.architecture)]
        if not found:
            there = ", ".join(image.architecture for image in images)
            raise ImageRefused(
                "architecture", f"{reference} was imported for {there}, not for {architecture}"
            )
        kept = found[0]
        parts = documents.read_manifest(kept.manifest)
        return documents.assemble(reference.at(kept.digest), kept.manifest, parts, kept.config, architecture)

    async def blob(
        self, manifest: ImageManifest, blob: Descriptor, into: Path, progress: Progress | None = None
    ) -> None:
        """As in ``ImageSource``; only while the image is being imported."""
        archives = self._open.get(manifest.digest)
        if not archives:
            raise ImageRefused("missing", f"{manifest.reference} is no longer stored: import it again")
        archive = archives[-1]
        await self.call(archive, lambda: archive.copy(blob, into, progress))

    async def call(self, archive: ImageArchive, function: Callable[[], T]) -> T:
        """Call what reads the archive in a thread; cancelled, it has let go of its file when this returns."""
        called = asyncio.ensure_future(self._threads.call(function))
        try:
            return await asyncio.shield(called)
        except asyncio.CancelledError:
            archive.stop()
            await asyncio.wait([called])
            raise

    def open(self, digest: str, archive: ImageArchive) -> None:
        """Serve the layers of an image from this archive ..."""
        self._open.setdefault(digest, []).append(archive)

    def close(self, archive: ImageArchive) -> None:
        """... until this."""
        for digest in tuple(self._open):
            left = [each for each in self._open.pop(digest) if each is not archive]
            if left:
                self._open[digest] = left

    async def put(self, reference: Reference, name: ImportedName) -> None:
        """Give images a name, in the place of what had it."""
        key = self._key(reference)
        lookups = tuple(image.digest for image in name.images)
        while True:
            known = await self._shelf.get(key)
            record = self._shelf.record(key, name, str(uuid4()), lookups=lookups)
            try:
                await self._shelf.write(Put(record, ANY_REVISION if known else None))
            except (RecordExists, RecordMissing):
                continue
            return

    async def get(self, reference: Reference) -> ImportedName | None:
        """What has that name and tag."""
        entry = await self._shelf.get(self._key(reference))
        return entry.value if entry else None

    async def remove(self, reference: Reference) -> bool:
        """Take the name away; functions that were made of it keep their image. Whether there was one."""
        try:
            await self._shelf.write(Remove(self._key(reference)))
        except RecordMissing:
            return False
        return True

    async def names(self) -> list[tuple[Reference, ImportedName]]:
        """Every imported name."""
        found: list[Entry[ImportedName]] = []
        while page := await self._shelf.page(
            self.account,
            EVERY_REGION,
            after=(found[-1].key.owner, found[-1].key.name) if found else None,
            limit=PAGE_SIZE_MAX,
        ):
            found += page
        return [(Reference(LOCAL_HOST, entry.key.owner, entry.key.name), entry.value) for entry in found]

    async def roots(self) -> set[tuple[str, str]]:
        """(account, digest) of images that must stay although no version may name them."""
        named = {image.digest for _, name in await self.names() for image in name.images}
        return {(self.account, digest) for digest in named | set(self._open)}

    async def _images(self, reference: Reference) -> tuple[KeptImage, ...]:
        if reference.digest is None:
            name = await self.get(reference)
            return name.images if name else ()
        named = await self._shelf.referring(self.account, EVERY_REGION, reference.digest, limit=1)
        kept = named[0].value.images if named else ()
        return tuple(image for image in kept if image.digest == reference.digest)

    def _key(self, reference: Reference) -> RecordKey:
        return self._shelf.key(self.account, EVERY_REGION, reference.name, reference.tag or "")
