"""The ImageStore: images of registries and archives, flattened into chunks, mounted on this worker.

Composes what finds, flattens, keeps and mounts images; it reads no layer and serves no file itself.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable

import msgspec

from stoker.packaging.chunks.images import ChunkedImages
from stoker.packaging.image_admission import ImageAdmission
from stoker.packaging.image_mounts import ImageMounts
from stoker.packaging.oci.references import parse_reference
from stoker.packaging.oci.source import ImageSource
from stoker.services.images import (
    ImageArtifact,
    ImageConfiguration,
    ImageMissing,
    ImageProgress,
    ResolvedImage,
)
from stoker.services.volumes import MountedTree

ARTIFACTS_MAX = 1024
"""Known without asking the object store."""

ADMISSIONS_MAX = 2
"""At one time: each has a process of its own, and layers on disk."""

Key = tuple[str, str]


class ChunkedImageStore:
    """Images by (account, digest). ``pinned`` are those that are kept whatever ``forget`` says."""

    def __init__(
        self,
        source: ImageSource,
        images: ChunkedImages,
        admission: ImageAdmission,
        mounts: ImageMounts,
        pinned: Callable[[], Awaitable[set[Key]]],
    ) -> None:
        self._source = source
        self._images = images
        self._admission = admission
        self._mounts = mounts
        self._pinned = pinned
        self._artifacts: OrderedDict[Key, ImageArtifact] = OrderedDict()
        self._locks: dict[Key, tuple[asyncio.Lock, int]] = {}
        self._places = asyncio.Semaphore(ADMISSIONS_MAX)

    async def resolve(self, uri: str, architecture: str) -> ResolvedImage:
        manifest = await self._source.manifest(parse_reference(uri), architecture)
        return ResolvedImage(uri=uri, resolved_uri=str(manifest.reference), digest=manifest.digest)

    async def admit(
        self,
        image: ResolvedImage,
        account: str,
        *,
        kms_key_arn: str | None = None,
        progress: Callable[[ImageProgress], None] | None = None,
    ) -> ImageArtifact:
        key = (account, image.digest)
        lock, waiting = self._locks.get(key, (asyncio.Lock(), 0))
        self._locks[key] = (lock, waiting + 1)
        try:
            async with lock:
                known = await self.artifact(*key)
                if known is not None:
                    return known
                async with self._places:
                    await self._admission.admit(image, account, kms_key_arn, progress)
                return await self._found(key)
        finally:
            lock, waiting = self._locks.pop(key)
            if waiting > 1:
                self._locks[key] = (lock, waiting - 1)

    async def artifact(self, account: str, digest: str) -> ImageArtifact | None:
        key = (account, digest)
        if key in self._artifacts:
            self._artifacts.move_to_end(key)
            return self._artifacts[key]
        try:
            return await self._found(key)
        except ImageMissing:
            return None

    async def mounted(self, account: str, digest: str) -> MountedTree:
        return await self._mounts.mounted(account, digest)

    def leave(self, account: str, digest: str) -> None:
        self._mounts.leave(account, digest)

    async def forget(self, account: str, digest: str) -> None:
        if (account, digest) in await self._pinned():
            return
        self._artifacts.pop((account, digest), None)
        await self._images.forget(account, digest)

    async def stored(self) -> list[Key]:
        return await self._images.stored()

    async def _found(self, key: Key) -> ImageArtifact:
        manifest = (await self._images.find(*key)).manifest
        artifact = ImageArtifact(
            digest=key[1],
            account=key[0],
            size_bytes=manifest.size_bytes,
            configuration=msgspec.json.decode(manifest.configuration, type=ImageConfiguration),
        )
        self._artifacts[key] = artifact
        if len(self._artifacts) > ARTIFACTS_MAX:
            self._artifacts.popitem(last=False)
        return artifact
