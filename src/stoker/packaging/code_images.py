"""Code as read-only images that the jail mounts: decrypted into files without names, mounted once for all.

An image is written at the admission and stored sealed behind its archive, so that no other start unpacks.
"""

import asyncio
import os
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from stoker.packaging.code_vault import CodeVault
from stoker.packaging.held import CacheStatistics, Entry, HeldCache
from stoker.packaging.nameless import open_nameless
from stoker.packaging.packers import PackerPool, PackingFailed
from stoker.packaging.protocol import Refused
from stoker.packaging.shelf import Packed, Shelved, stored_code
from stoker.services.volumes import ImageMounter, MountedTree

NODE_BYTES: Final = 64 * 1024
"""What a mount takes beyond its image, about: it counts against the cache's limit."""


class MountableImage:
    """An image in a file without a name, until it is mounted: the mount keeps the file from then on."""

    def __init__(self, file: int, mounter: ImageMounter) -> None:
        self.size_bytes = os.fstat(file).st_size + NODE_BYTES
        self._file = file
        self._mounter = mounter
        self._mounting: asyncio.Task[MountedTree] | None = None

    async def mounted(self) -> MountedTree:
        """Its root, mounted once for all who ask.

        Raises:
            MountRefused: this host cannot; another try may.
        """
        if self._mounting is None or (self._mounting.done() and self._failed(self._mounting)):
            self._mounting = asyncio.create_task(self._mount())
        return await asyncio.shield(self._mounting)

    async def discard(self) -> None:
        if self._mounting is not None:
            await asyncio.wait([self._mounting])
            if not self._failed(self._mounting):
                await self._mounter.unmount(self._mounting.result().mount_id)
        if self._file >= 0:
            os.close(self._file)

    async def _mount(self) -> MountedTree:
        tree = await self._mounter.mount_file(self._file)
        os.close(self._file)
        self._file = -1
        return tree

    @staticmethod
    def _failed(mounting: asyncio.Task[MountedTree]) -> bool:
        return mounting.cancelled() or mounting.exception() is not None


class MountedImages:
    """The Shelf of images; files without names lie in ``folder``. Compiles nothing ahead."""

    def __init__(
        self, folder: Path, packers: PackerPool, vault: CodeVault, mounter: ImageMounter, *, limit_bytes: int
    ) -> None:
        self._folder = folder
        self._packers = packers
        self._vault = vault
        self._mounter = mounter
        self._held = HeldCache[MountableImage](limit_bytes)
        # Sandboxes that had them are gone with the jail; what they hold is left as usual.
        mounter.on_lost(lambda: self._held.forget(lambda _: True))

    async def close(self) -> None:
        await self._held.close()

    def statistics(self) -> CacheStatistics:
        return self._held.statistics()

    async def pack(self, archive: int, limit_bytes: int) -> Packed | Refused:
        """Check an archive by writing its image."""
        image = open_nameless(self._folder)
        try:
            answer = await self._packers.pack([archive], image, limit_bytes)
            if isinstance(answer, Refused):
                os.close(image)
                return answer
            held = MountableImage(image, self._mounter)
            return Packed(answer.unpacked_bytes, held, image, answer.image_bytes)
        except BaseException:
            os.close(image)
            raise

    def offer(self, digest: str, packed: Packed) -> None:
        """The image of code that was stored."""
        assert isinstance(packed.held, MountableImage)
        self._held.offer(digest, packed.held)

    async def enter(self, codes: tuple[str, ...], runtime: str | None, account: str) -> Shelved:
        """One mount of one code, or of several layers."""
        entry = await self._entered(codes)
        try:
            tree = await entry.held.mounted()
        except BaseException:
            self._held.leave(entry)
            raise
        return Shelved(tree, None, lambda: self._held.leave(entry))

    async def prepare(self, codes: tuple[str, ...], runtime: str | None, account: str) -> None:
        """Have the image at hand; mounting it is left to its first use."""
        self._held.leave(await self._entered(codes))

    def forget(self, digest: str) -> None:
        self._held.forget(lambda key: digest in key)

    async def _entered(self, codes: tuple[str, ...]) -> Entry[MountableImage]:
        return await self._held.enter("+".join(codes), lambda: self._make(codes))

    async def _make(self, codes: tuple[str, ...]) -> MountableImage:
        image = open_nameless(self._folder)
        try:
            if not await self._decrypt(codes, image):
                await self._pack_again(codes, image)
            return MountableImage(image, self._mounter)
        except BaseException:
            os.close(image)
            raise

    async def _decrypt(self, codes: tuple[str, ...], image: int) -> bool:
        """Whether an image was stored: not of several layers, nor by a host without mounts."""
        stored = [await stored_code(self._vault, digest) for digest in codes]
        if len(stored) > 1 or not stored[0].facts.image_bytes:
            return False
        await self._vault.image_into(stored[0], image)
        return True

    async def _pack_again(self, codes: tuple[str, ...], image: int) -> None:
        with ExitStack() as stack:
            archives: list[int] = []
            limit_bytes = 0
            for digest in codes:
                code = await stored_code(self._vault, digest)
                archive = stack.enter_context(tempfile.TemporaryFile(dir=self._folder))
                await self._vault.original_into(code, archive.fileno())
                archives.append(archive.fileno())
                limit_bytes = max(limit_bytes, code.facts.unpacked_bytes)
            answer = await self._packers.pack(archives, image, limit_bytes)
        if isinstance(answer, Refused):
            raise PackingFailed(f"{codes} were admitted and are refused now: {answer.why}")
