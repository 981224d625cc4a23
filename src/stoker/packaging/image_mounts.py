"""Images mounted on this worker: one volume and one mount an image, shared by its sandboxes.

A mount outlives its last sandbox for a while, so that the next start finds it warm. Knows how an image is
found and mounted, and nothing of registries, layers or who starts what.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import msgspec

from stoker.core.clock import Clock
from stoker.core.errors import StokerError
from stoker.packaging.chunks.images import ChunkedImages, OpenImage
from stoker.packaging.chunks.layout import profile_key
from stoker.packaging.chunks.reading import Alarms, ChunkSource, ImageReader
from stoker.packaging.chunks.sealing import SealedChunk
from stoker.packaging.volumes.profile import decode_profile, encode_profile, is_news
from stoker.packaging.volumes.serving import VolumeContent, VolumeProcess, VolumesFailed
from stoker.services.images import ImageMissing
from stoker.services.volumes import ImageMounter, MountedTree, MountRefused, MountsUnavailable

UNUSED_MAX = 32
"""Mounts that no sandbox uses."""

UNUSED_FOR_S = 600.0
LAST_WORDS_POLLS, LAST_WORDS_POLL_S = 50, 0.01
"""How long closing waits for the volume process to be done with what was unmounted."""

Key = tuple[str, str]


class _Mount(msgspec.Struct):
    """An image that is mounted."""

    key: Key
    tree: MountedTree
    ending: asyncio.TimerHandle | None = None


class ImageMounts:
    """``mounted`` and ``leave`` of the ImageStore.

    ``on_lost`` is told the mount_id of a mount whose server died: what its sandboxes read fails, so they are
    to be ended. ``on_alarm`` is told, in words, of chunks that could not be had.
    """

    def __init__(
        self,
        images: ChunkedImages,
        source: ChunkSource,
        mounter: ImageMounter,
        clock: Clock,
        *,
        process: Callable[[Callable[[Sequence[int]], None]], VolumeProcess],
        on_lost: Callable[[int], None],
        on_alarm: Callable[[str], None],
    ) -> None:
        self._images = images
        self._source = source
        self._mounter = mounter
        self._clock = clock
        self.alarms = Alarms()
        self.process = process(self._server_died)
        self._on_lost = on_lost
        self._on_alarm = on_alarm
        self._mounts: dict[Key, _Mount] = {}
        self._making: dict[Key, asyncio.Task[_Mount]] = {}
        self._users: dict[Key, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        mounter.on_lost(self._mounts_gone)

    async def mounted(self, account: str, digest: str) -> MountedTree:
        """See ImageStore.

        Raises:
            ImageMissing, MountRefused, MountsUnavailable
        """
        key = (account, digest)
        mount = self._mounts.get(key)
        if mount is None:
            making = self._making.get(key)
            if making is None:
                making = self._making[key] = asyncio.ensure_future(self._mount(key))
                making.add_done_callback(lambda done: self._made(key, done))
            mount = await asyncio.shield(making)
        self._users[key] = self._users.get(key, 0) + 1
        self._keep(mount)
        return mount.tree

    def leave(self, account: str, digest: str) -> None:
        """See ImageStore. A mount that was lost meanwhile is left all the same."""
        key = (account, digest)
        left = self._users.get(key, 0) - 1
        if left > 0:
            self._users[key] = left
            return
        self._users.pop(key, None)
        mount = self._mounts.get(key)
        if mount is not None:
            self._rest(mount)

    async def close(self) -> None:
        """Unmount everything and end the volume process."""
        for making in tuple(self._making.values()):
            with contextlib.suppress(StokerError):
                await making
        mounts = tuple(self._mounts.values())
        await asyncio.gather(*(self._unmount(mount) for mount in mounts))
        for _ in range(LAST_WORDS_POLLS):  # of what their starts read
            if not any(self.process.serves(mount.tree.mount_id) for mount in mounts):
                break
            await asyncio.sleep(LAST_WORDS_POLL_S)
        if self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.process.close()

    # --- mounting --------------------------------------------------------------------------------

    async def _mount(self, key: Key) -> _Mount:
        if self._mounter.volumes_unavailable:
            raise MountsUnavailable(self._mounter.volumes_unavailable)
        try:
            image = await self._images.find(*key)
            profile = await self._profile(image)
        except ImageMissing:
            raise
        except StokerError as problem:
            raise MountRefused(f"the image cannot be opened: {problem}") from problem
        volume = await self._mounter.open_volume()
        try:
            try:
                await self.process.serve(volume.volume_id, volume.device, self._content(image, profile))
            finally:
                os.close(volume.device)
            tree = await self._mounter.mount_volume(volume.volume_id)
        except VolumesFailed as problem:
            await self._mounter.unmount(volume.volume_id)
            raise MountRefused(str(problem)) from problem
        except BaseException:
            await self.process.drop(volume.volume_id)
            await self._mounter.unmount(volume.volume_id)
            raise
        return _Mount(key, tree)

    def _made(self, key: Key, making: asyncio.Task[_Mount]) -> None:
        del self._making[key]
        if making.cancelled() or making.exception() is not None:
            return
        mount = making.result()
        if not self.process.serves(mount.tree.mount_id):  # it died in between
            self._begin(self._abandon(mount))
            return
        self._mounts[key] = mount
        self._rest(mount)  # until the first who asked, who may have gone, takes it up

    def _content(self, image: OpenImage, profile: tuple[int, ...]) -> VolumeContent:
        digest = image.place.digest
        reader = ImageReader(self._images, image, self._clock, self.alarms, self._source)

        async def fetch(index: int, again: bool) -> SealedChunk | None:
            return await reader.chunk(index, again=again)

        def touched(indexes: tuple[int, ...]) -> None:
            if is_news(profile, indexes):
                self._begin(self._store_profile(image, indexes))

        return VolumeContent(
            image.manifest, fetch, profile, touched, lambda what: self._on_alarm(f"image {digest}: {what}")
        )

    async def _profile(self, image: OpenImage) -> tuple[int, ...]:
        place = image.place
        try:
            stored = await self._images.store.get(profile_key(place.root, place.account, place.digest))
        except StokerError:  # a profile only saves time
            return ()
        return decode_profile(stored, len(image.manifest.indexes) and image.manifest.indexes[-1] + 1)

    async def _store_profile(self, image: OpenImage, indexes: tuple[int, ...]) -> None:
        place = image.place
        with contextlib.suppress(StokerError):
            await self._images.store.put(
                profile_key(place.root, place.account, place.digest), encode_profile(indexes)
            )

    # --- letting go ------------------------------------------------------------------------------

    def _keep(self, mount: _Mount) -> None:
        if mount.ending is not None:
            mount.ending.cancel()
            mount.ending = None

    def _rest(self, mount: _Mount) -> None:
        self._keep(mount)
        loop = asyncio.get_running_loop()
        mount.ending = loop.call_later(UNUSED_FOR_S, self._end, mount)
        resting = [each for each in self._mounts.values() if each.ending is not None]
        if len(resting) > UNUSED_MAX:
            self._end(min(resting, key=lambda each: each.ending.when() if each.ending else 0.0))

    def _end(self, mount: _Mount) -> None:
        self._begin(self._unmount(mount))

    async def _unmount(self, mount: _Mount) -> None:
        self._keep(mount)
        if self._mounts.get(mount.key) is mount:
            del self._mounts[mount.key]
        await self._mounter.unmount(mount.tree.mount_id)
        # The process hears from the kernel when the last sandbox has let go; until then it serves on.

    def _server_died(self, volumes: Sequence[int]) -> None:
        """Or the volumes were aborted: those that we unmounted are not here any more."""
        for mount in [each for each in self._mounts.values() if each.tree.mount_id in volumes]:
            del self._mounts[mount.key]  # now: the next start gets a mount that works
            self._begin(self._abandon(mount))
            self._on_lost(mount.tree.mount_id)

    async def _abandon(self, mount: _Mount) -> None:
        self._keep(mount)
        await self._mounter.abort_volume(mount.tree.mount_id)
        await self._mounter.unmount(mount.tree.mount_id)

    def _mounts_gone(self) -> None:
        """The jail died: every sandbox too."""
        lost, self._mounts = list(self._mounts.values()), {}
        for mount in lost:
            self._keep(mount)
            self._begin(self.process.drop(mount.tree.mount_id))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
