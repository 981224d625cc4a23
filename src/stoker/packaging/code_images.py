"""Code as read-only images that the jail mounts: decrypted into files without names, mounted once for all.

An image is written at the admission and stored sealed behind its archive, so that no other start unpacks.
"""

import asyncio
import os
import secrets
import shutil
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from stoker.packaging.artifacts import ArtifactDamaged
from stoker.packaging.code_cache import PACK
from stoker.packaging.code_variants import CodeVariants, Variant
from stoker.packaging.code_vault import CodeVault
from stoker.packaging.held import CacheStatistics, Entry, HeldCache, together
from stoker.packaging.nameless import moved_to_disk, open_in_memory, open_nameless
from stoker.packaging.packers import PackerPool
from stoker.packaging.protocol import Refused
from stoker.packaging.quiet_jobs import JobStatistics, QuietJobs
from stoker.packaging.shelf import Packed, Shelved, stored_code
from stoker.services.code import CodeMissing
from stoker.services.volumes import ImageMounter, MountedTree

NODE_BYTES: Final = 64 * 1024
"""What a mount takes beyond its image, about: it counts against the cache's limit."""


ARCHIVE_IN_MEMORY_MAX_BYTES: Final = 64 * 1024
"""The image of such an archive is written in memory, where it takes 64 MB at the very most ..."""

IMAGE_IN_MEMORY_MAX_BYTES: Final = 64 * 1024
"""... and kept there up to this size until it is mounted: deployments by the hundred make no files."""

PACKS: Final = "packs"
PACKS_MAX_BYTES: Final = 512 * 1024**2
"""Node.js code caches that are decrypted; the oldest unused go first."""


class MountableImage:
    """An image in a file without a name, until it is mounted: the mount keeps the file from then on."""

    def __init__(self, file: int, mounter: ImageMounter, folder: Path | None = None) -> None:
        """A ``file`` in memory is moved to the disk of ``folder`` before it is mounted."""
        self._folder = folder
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
        if self._folder is not None:
            self._file = moved_to_disk(self._file, self._folder)
            self._folder = None
        tree = await self._mounter.mount_file(self._file)
        os.close(self._file)
        self._file = -1
        return tree

    @staticmethod
    def _failed(mounting: asyncio.Task[MountedTree]) -> bool:
        return mounting.cancelled() or mounting.exception() is not None


class PackFolder(msgspec.Struct, frozen=True):
    """A decrypted pack in a folder of its own, for sandboxes of one account."""

    folder: Path
    size_bytes: int

    async def discard(self) -> None:
        await asyncio.to_thread(shutil.rmtree, self.folder)


class MountedImages:
    """The Shelf of images; files without names lie in ``folder``, packs in folders below it."""

    def __init__(
        self,
        folder: Path,
        packers: PackerPool,
        vault: CodeVault,
        mounter: ImageMounter,
        variants: CodeVariants,
        *,
        limit_bytes: int,
    ) -> None:
        self._folder = folder
        self._packers = packers
        self._vault = vault
        self._mounter = mounter
        self._variants = variants
        self._held = HeldCache[MountableImage](limit_bytes)
        self._packs = HeldCache[PackFolder](min(limit_bytes, PACKS_MAX_BYTES))
        self.jobs = QuietJobs[Variant](self._make_variant)
        # Sandboxes that had them are gone with the jail; what they hold is left as usual.
        mounter.on_lost(lambda: self._held.forget(lambda _: True))

    async def close(self) -> None:
        await self.jobs.close()
        await self._held.close()
        await self._packs.close()

    def statistics(self) -> CacheStatistics:
        return together(self._held.statistics(), self._packs.statistics())

    def compiling(self) -> JobStatistics:
        return self.jobs.statistics()

    async def pack(self, archive: int, limit_bytes: int) -> Packed | Refused:
        """Check an archive by writing its image."""
        in_memory = os.fstat(archive).st_size <= ARCHIVE_IN_MEMORY_MAX_BYTES
        image = open_in_memory() if in_memory else open_nameless(self._folder)
        try:
            answer = await self._packers.pack([archive], image, limit_bytes)
            if isinstance(answer, Refused):
                os.close(image)
                return answer
            if in_memory and answer.image_bytes > IMAGE_IN_MEMORY_MAX_BYTES:
                image, in_memory = moved_to_disk(image, self._folder), False
            held = MountableImage(image, self._mounter, self._folder if in_memory else None)
            return Packed(answer.unpacked_bytes, held, image, answer.image_bytes)
        except BaseException:
            os.close(image)
            raise

    def offer(self, digest: str, packed: Packed) -> None:
        """The image of code that was stored."""
        assert isinstance(packed.held, MountableImage)
        self._held.offer(digest, packed.held)

    async def enter(self, codes: tuple[str, ...], runtime: str | None, account: str) -> Shelved:
        """One mount of one code, or of several layers; what it would be quicker with is made meanwhile."""
        wanted = await self._variants.wanted(codes, runtime, account)
        entry = await self._entered(codes, wanted)
        try:
            tree = await entry.held.mounted()
            pack = await self._pack_of(wanted)
        except BaseException:
            self._held.leave(entry)
            raise
        for variant in wanted:
            if not self._variants.is_stored(variant):
                self.jobs.now(variant)
        return Shelved(tree, pack and pack.held.folder, partial(self._leave, entry, pack))

    async def prepare(self, codes: tuple[str, ...], runtime: str | None, account: str) -> None:
        """Have the image at hand, and make what it is quicker with once it is quiet."""
        wanted = await self._variants.wanted(codes, runtime, account)
        self._held.leave(await self._entered(codes, wanted))
        for variant in wanted:
            if not self._variants.is_stored(variant):
                self.jobs.when_quiet(variant)

    def forget(self, digest: str) -> None:
        self.jobs.forget(lambda variant: digest in variant.codes)
        self._held.forget(lambda key: digest in key)
        self._packs.forget(lambda key: digest in key)

    async def _entered(self, codes: tuple[str, ...], wanted: tuple[Variant, ...]) -> Entry[MountableImage]:
        """The image with most in it that there is."""
        for variant in wanted:
            if not variant.is_pack and self._variants.is_stored(variant):
                try:
                    return await self._held.enter(variant.key, partial(self._stored, variant))
                except (ArtifactDamaged, CodeMissing):
                    await self._give_up(variant)
        return await self._held.enter("+".join(codes), partial(self._base, codes))

    def _leave(self, entry: Entry[MountableImage], pack: Entry[PackFolder] | None) -> None:
        self._held.leave(entry)
        if pack is not None:
            self._packs.leave(pack)

    async def _pack_of(self, wanted: tuple[Variant, ...]) -> Entry[PackFolder] | None:
        for variant in wanted:
            if variant.is_pack and self._variants.is_stored(variant):
                try:
                    return await self._packs.enter(variant.key, partial(self._unsealed_pack, variant))
                except (ArtifactDamaged, CodeMissing):
                    await self._give_up(variant)
        return None

    async def _give_up(self, variant: Variant) -> None:
        """A damaged one makes room for another; what it was made of is checked when that is read."""
        await self._variants.drop(variant)
        self.jobs.again(variant)

    async def _base(self, codes: tuple[str, ...]) -> MountableImage:
        """An image without anything compiled: stored with its code, unless that came from a host of trees."""
        code = await stored_code(self._vault, codes[0])
        if len(codes) == 1 and code.facts.image_bytes:
            return await self._image(partial(self._vault.image_into, code))
        return await self._image(partial(self._variants.pack, codes))

    async def _stored(self, variant: Variant) -> MountableImage:
        return await self._image(partial(self._variants.read_into, variant))

    async def _image(self, fill: Callable[[int], Awaitable[None]]) -> MountableImage:
        image = open_nameless(self._folder)
        try:
            await fill(image)
            return MountableImage(image, self._mounter)
        except BaseException:
            os.close(image)
            raise

    async def _unsealed_pack(self, variant: Variant) -> PackFolder:
        folder = self._folder / PACKS / secrets.token_hex(8)
        folder.mkdir(parents=True, mode=0o755)
        try:
            file = os.open(folder / PACK, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            try:
                await self._variants.read_into(variant, file)
                os.fchmod(file, 0o644)  # sandboxes read it under other uids
                return PackFolder(folder, os.fstat(file).st_size)
            finally:
                os.close(file)
        except BaseException:
            shutil.rmtree(folder)
            raise

    # --- making variants, one at a time

    async def _make_variant(self, variant: Variant) -> None:
        base = "+".join(variant.codes)
        entry = await self._held.enter(base, partial(self._base, variant.codes))
        try:
            made = await self._variants.make(variant, await entry.held.mounted())
        finally:
            self._held.leave(entry)
        if made is None:
            return
        if variant.is_pack:
            os.close(made)
            return
        image = MountableImage(made, self._mounter)
        try:
            await image.mounted()
        except BaseException:
            await asyncio.shield(image.discard())
            raise
        if self._variants.is_stored(variant):
            self._held.offer(variant.key, image)
            self._held.forget(lambda key: key == base)
        else:
            await image.discard()
