"""Chooses between images and trees by what the host offers now: that is known once the jail has answered."""

from stoker.packaging.code_images import MountableImage, MountedImages
from stoker.packaging.code_trees import UnpackedTrees
from stoker.packaging.held import CacheStatistics
from stoker.packaging.protocol import Refused
from stoker.packaging.shelf import Packed, Shelf, Shelved
from stoker.services.volumes import ImageMounter


class EitherShelf:
    """The Shelf of images where they can be mounted, else of trees. Both share what is stored."""

    def __init__(self, images: MountedImages, trees: UnpackedTrees, mounter: ImageMounter) -> None:
        self._images = images
        self._trees = trees
        self._mounter = mounter

    @property
    def _now(self) -> Shelf:
        return self._images if self._mounter.unavailable is None else self._trees

    async def pack(self, archive: int, limit_bytes: int) -> Packed | Refused:
        return await self._now.pack(archive, limit_bytes)

    def offer(self, digest: str, packed: Packed) -> None:
        shelf = self._images if isinstance(packed.held, MountableImage) else self._trees
        shelf.offer(digest, packed)

    async def enter(self, codes: tuple[str, ...], runtime: str | None, account: str) -> Shelved:
        return await self._now.enter(codes, runtime, account)

    async def prepare(self, codes: tuple[str, ...], runtime: str | None, account: str) -> None:
        await self._now.prepare(codes, runtime, account)

    def forget(self, digest: str) -> None:
        self._images.forget(digest)
        self._trees.forget(digest)

    def statistics(self) -> CacheStatistics:
        return self._now.statistics()

    async def close(self) -> None:
        await self._images.close()
        await self._trees.close()
