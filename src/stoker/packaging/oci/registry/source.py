"""Registries as a source of images, for the event loop: the blocking client on a few threads."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from stoker.core.threads import CallThreads
from stoker.packaging.oci import documents
from stoker.packaging.oci.references import Reference
from stoker.packaging.oci.registry.access import RegistrySettings
from stoker.packaging.oci.registry.client import SMALL_WITHIN_S, RegistryClient
from stoker.packaging.oci.registry.connections import Watch
from stoker.packaging.oci.registry.download import download
from stoker.packaging.oci.source import Descriptor, ImageManifest, Progress

T = TypeVar("T")

THREADS_MAX: Final = 8
"""Requests to registries at one time, of all deployments together."""
REMEMBERED_MAX: Final = 64
REMEMBERED_BYTES_MAX: Final = 256 * 1024
"""A bigger manifest or configuration is asked for again."""


class RegistrySource:
    """An ``ImageSource``. It remembers manifests: admitting what was just resolved asks nothing twice."""

    def __init__(self, settings: RegistrySettings) -> None:
        """Raises OSError when the configured certificates cannot be read."""
        self._client = RegistryClient(settings)
        self._threads = CallThreads("stoker-registry", threads_max=THREADS_MAX)
        self._remembered: OrderedDict[tuple[str, str, str | None], ImageManifest] = OrderedDict()

    def close(self) -> None:
        """Close idle connections; what runs is cut off by whoever cancels it."""
        self._client.close()

    async def manifest(self, reference: Reference, architecture: str | None) -> ImageManifest:
        """As in ``ImageSource``."""
        digest = reference.digest
        if digest is None and any(
            repository == reference.repository for repository, _, _ in self._remembered
        ):
            # A question that weighs nothing, and that Docker Hub does not count.
            digest = await self._called(lambda watch: self._client.digest(reference, watch))
        if digest is not None and (known := self._recall(reference, digest, architecture)) is not None:
            return known
        top, found = await self._called(lambda watch: self._read(reference, architecture, watch))
        for named, asked in ((top, architecture), (found.digest, architecture), (found.digest, None)):
            self._remember((reference.repository, named, asked), found)
        return found

    async def blob(
        self, manifest: ImageManifest, blob: Descriptor, into: Path, progress: Progress | None = None
    ) -> None:
        """As in ``ImageSource``."""
        try:
            await self._called(
                lambda watch: download(self._client, manifest.reference, blob, into, watch, progress)
            )
        except asyncio.CancelledError:
            _drop(into)
            raise

    def _read(
        self, reference: Reference, architecture: str | None, watch: Watch
    ) -> tuple[str, ImageManifest]:
        content, media_type = self._client.manifest(reference, watch)
        digest = top = documents.digest_of(content)
        for _ in range(documents.INDEX_DEPTH_MAX):
            if media_type in documents.MANIFESTS:
                break
            chosen = documents.choose(documents.read_index(content), architecture)
            digest = chosen.blob.digest
            content, media_type = self._client.manifest(reference.at(digest), watch)
        documents.check_is_manifest(media_type)
        parts = documents.read_manifest(content)
        config = self._client.small_blob(reference, parts.config, watch)
        found = documents.assemble(reference.at(digest), content, parts, config, architecture)
        return top, found

    async def _called(self, call: Callable[[Watch], T]) -> T:
        watch = Watch(SMALL_WITHIN_S)

        def run() -> T:
            with watch:
                return call(watch)

        try:
            return await self._threads.call(run)
        except asyncio.CancelledError:
            watch.cut()
            raise

    def _recall(self, reference: Reference, digest: str, architecture: str | None) -> ImageManifest | None:
        key = (reference.repository, digest, architecture)
        known = self._remembered.get(key)
        if known is not None:
            self._remembered.move_to_end(key)
        return known

    def _remember(self, key: tuple[str, str, str | None], manifest: ImageManifest) -> None:
        if len(manifest.content) + len(manifest.config_content) > REMEMBERED_BYTES_MAX:
            return
        self._remembered[key] = manifest
        while len(self._remembered) > REMEMBERED_MAX:
            self._remembered.popitem(last=False)


def _drop(into: Path) -> None:
    """A file whose last byte came before its download could be cut off."""
    into.unlink(missing_ok=True)
