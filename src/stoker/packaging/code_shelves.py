"""Chooses between images and trees by what the host offers now: that is known once the jail has answered.

What cannot be mounted, of all that a host mounts, is unpacked: no function waits for a mount that fails.
"""

from collections.abc import Callable

from stoker.packaging.code_images import MountableImage, MountedImages
from stoker.packaging.code_trees import UnpackedTrees
from stoker.packaging.held import CacheStatistics, together
from stoker.packaging.protocol import Refused
from stoker.packaging.quiet_jobs import JobStatistics
from stoker.packaging.shelf import Packed, Shelf, Shelved
from stoker.services.volumes import ImageMounter, MountRefused


class EitherShelf:
    """The Shelf of images where they can be mounted, else of trees. Both share what is stored."""

    def __init__(
        self,
        images: MountedImages,
        trees: UnpackedTrees,
        mounter: ImageMounter,
        *,
        on_refused: Callable[[str], None],
    ) -> None:
        """``on_refused`` is told, in words, of a mount that failed."""
        self._images = images
        self._trees = trees
        self._mounter = mounter
        self._on_refused = on_refused

    @property
    def _now(self) -> Shelf:
        return self._images if self._mounter.unavailable is None else self._trees

    async def pack(self, archive: int, limit_bytes: int) -> Packed | Refused:
        return await self._now.pack(archive, limit_bytes)

    def offer(self, digest: str, packed: Packed) -> None:
        shelf = self._images if isinstance(packed.held, MountableImage) else self._trees
        shelf.offer(digest, packed)

    async def enter(self, codes: tuple[str, ...], runtime: str | None, account: str) -> Shelved:
        if self._mounter.unavailable is None:
            try:
                return await self._images.enter(codes, runtime, account)
            except MountRefused as problem:
                self._on_refused(str(problem))
        return await self._trees.enter(codes, runtime, account)

    async def prepare(self, codes: tuple[str, ...], runtime: str | None, account: str) -> None:
        await self._now.prepare(codes, runtime, account)

    def forget(self, digest: str) -> None:
        self._images.forget(digest)
        self._trees.forget(digest)

    def statistics(self) -> CacheStatistics:
        return together(self._images.statistics(), self._trees.statistics())

    def compiling(self) -> JobStatistics:
        return self._now.compiling()

    async def close(self) -> None:
        await self._images.close()
        await self._trees.close()
