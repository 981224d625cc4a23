"""Mounts images by stoker-jail, over the connection of the container driver.

Knows the jail's protocol; never what an image holds, or who serves a volume.
"""

import asyncio
import os
from collections.abc import Callable

from stoker.sandbox.container_connection import JailConnection, JailUnavailable
from stoker.sandbox.container_protocol import Answer, Feature, Handle, Operation
from stoker.services.volumes import MountedTree, MountRefused, MountsUnavailable, OpenVolume

NO_JAIL = "the jail is not running"
NEEDS_ROOT = "images are mounted by root only: start Stoker as root"
NO_EROFS = "this kernel has no EROFS: load the module erofs, or use Linux 5.15 or later with CONFIG_EROFS_FS"
NO_FUSE = "there is no /dev/fuse to load images through: load the module fuse"


class ContainerMounter:
    """The ImageMounter of stoker-jail. Descriptors of roots are closed here, off the loop: the last one of a
    mount waits for the kernel."""

    def __init__(self) -> None:
        self._jail: JailConnection | None = None
        self._features = Feature(0)
        self._roots: dict[int, int] = {}
        self._told: list[Callable[[], None]] = []
        self._closing: set[asyncio.Future[None]] = set()

    def on_lost(self, tell: Callable[[], None]) -> None:
        self._told.append(tell)

    @property
    def unavailable(self) -> str | None:
        if self._jail is None:
            return NO_JAIL
        if Feature.IMAGES in self._features:
            return None
        return NEEDS_ROOT if Feature.ROOTLESS in self._features else NO_EROFS

    @property
    def volumes_unavailable(self) -> str | None:
        missing = None if Feature.VOLUMES in self._features else NO_FUSE
        return self.unavailable or missing

    async def mount_file(self, image: int) -> MountedTree:
        """See ImageMounter; the image is mounted read-only, without devices or set-user-id programs."""
        if self.unavailable:
            raise MountsUnavailable(self.unavailable)
        return self._tree(await self._made(Operation.IMAGE, image=image))

    async def open_volume(self) -> OpenVolume:
        if self.volumes_unavailable:
            raise MountsUnavailable(self.volumes_unavailable)
        answer = await self._made(Operation.VOLUME)
        return OpenVolume(answer.sandbox, answer.handles[Handle.DEVICE])

    async def mount_volume(self, volume_id: int) -> MountedTree:
        return self._tree(await self._made(Operation.VOLUME_IMAGE, handle=volume_id))

    async def unmount(self, mount_id: int) -> None:
        root = self._roots.pop(mount_id, None)
        if root is not None:
            await asyncio.to_thread(os.close, root)  # before: the jail's own last use then ends the mount
        await self._told_to(Operation.UNMOUNT, mount_id)

    async def abort_volume(self, volume_id: int) -> None:
        await self._told_to(Operation.ABORT, volume_id)

    def connected(self, jail: JailConnection, features: Feature) -> None:
        """A jail said what its host can do."""
        self._jail, self._features = jail, features

    def lost(self) -> None:
        """The jail is gone, and every mount with it but what descriptors here still hold."""
        if self._jail is None:
            return
        self._jail = None
        roots, self._roots = list(self._roots.values()), {}
        for tell in self._told:
            tell()
        if roots:
            closing = asyncio.ensure_future(asyncio.to_thread(_close_all, roots))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    def _tree(self, answer: Answer) -> MountedTree:
        root = answer.handles[Handle.ROOT]
        if self._jail is None:  # between the answer and now
            os.close(root)
            raise MountRefused(NO_JAIL)
        self._roots[answer.sandbox] = root
        return MountedTree(answer.sandbox, root)

    async def _made(self, operation: Operation, *, handle: int = 0, image: int | None = None) -> Answer:
        """Ask for something new; what comes after its caller was cancelled is taken back."""
        making = asyncio.ensure_future(self._asked(operation, handle=handle, image=image))
        try:
            return await asyncio.shield(making)
        except asyncio.CancelledError:
            making.add_done_callback(self._take_back)
            raise

    async def _asked(self, operation: Operation, *, handle: int = 0, image: int | None = None) -> Answer:
        if self._jail is None:
            raise MountRefused(NO_JAIL)
        kept = None if image is None else os.dup(image)  # a cancelled caller closes its own
        try:
            answer = await self._jail.request(operation, sandbox=handle, image=kept)
        except JailUnavailable as problem:
            raise MountRefused(str(problem)) from problem
        finally:
            if kept is not None:
                os.close(kept)
        if answer.status:
            raise MountRefused(f"{answer.stage or operation.name.lower()}: {os.strerror(-answer.status)}")
        return answer

    def _take_back(self, making: asyncio.Future[Answer]) -> None:
        if making.cancelled() or making.exception() is not None:
            return
        answer = making.result()
        _close_all(list(answer.handles.values()))
        taking = asyncio.ensure_future(self._told_to(Operation.UNMOUNT, answer.sandbox))
        self._closing.add(taking)
        taking.add_done_callback(self._closing.discard)

    async def _told_to(self, operation: Operation, handle: int) -> None:
        """A jail that does not know it has ended it already, and one that is gone took it along."""
        if self._jail is None:
            return
        try:
            await self._jail.request(operation, sandbox=handle)
        except JailUnavailable:
            return


def _close_all(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)
