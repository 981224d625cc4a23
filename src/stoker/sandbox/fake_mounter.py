"""An ImageMounter that mounts nothing: every image shows one folder. It refuses and loses when told."""

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

from stoker.services.volumes import MountedTree, MountRefused, MountsUnavailable, OpenVolume


class FakeMounter:
    """Shows ``folder`` for every image. A volume's device is one end of a socket pair, the other is in
    ``servers`` by volume_id."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.unavailable: str | None = None
        self.refuses: str | None = None
        """What the next mounts are refused with."""
        self.mounts: dict[int, int] = {}
        self.servers: dict[int, socket.socket] = {}
        self.aborted: set[int] = set()
        self._told: list[Callable[[], None]] = []
        self._last = 0

    @property
    def volumes_unavailable(self) -> str | None:
        return self.unavailable

    def on_lost(self, tell: Callable[[], None]) -> None:
        self._told.append(tell)

    async def mount_file(self, image: int) -> MountedTree:
        self._check()
        if not stat.S_ISREG(os.fstat(image).st_mode):
            raise MountRefused("not a regular file")
        self._last += 1
        return self._shown(self._last)

    async def open_volume(self) -> OpenVolume:
        self._check()
        self._last += 1
        ours, theirs = socket.socketpair()
        self.servers[self._last] = ours
        return OpenVolume(self._last, theirs.detach())

    async def mount_volume(self, volume_id: int) -> MountedTree:
        self._check()
        if volume_id not in self.servers or volume_id in self.mounts:
            raise MountRefused("no such volume")
        return self._shown(volume_id)

    async def unmount(self, mount_id: int) -> None:
        root, server = self.mounts.pop(mount_id, None), self.servers.pop(mount_id, None)
        if root is not None:
            os.close(root)
        if server is not None:
            server.close()

    async def abort_volume(self, volume_id: int) -> None:
        if volume_id in self.servers:
            self.aborted.add(volume_id)

    def lose(self) -> None:
        """As a jail that died."""
        for root in self.mounts.values():
            os.close(root)
        for server in self.servers.values():
            server.close()
        self.mounts, self.servers = {}, {}
        for tell in self._told:
            tell()

    def _check(self) -> None:
        if self.unavailable:
            raise MountsUnavailable(self.unavailable)
        if self.refuses:
            raise MountRefused(self.refuses)

    def _shown(self, mount_id: int) -> MountedTree:
        root = os.open(self.folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self.mounts[mount_id] = root
        return MountedTree(mount_id, root)
