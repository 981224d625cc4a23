"""Writes a folder, or the root of a mounted image, as an EROFS image. Links are kept and never followed."""

import os
import stat
from pathlib import Path
from typing import Final

from stoker.core.errors import StokerError
from stoker.packaging.erofs.image import build_image
from stoker.packaging.erofs.nodes import Node, folder

BLOCK_BYTES: Final = 4096
"""The page of every guest's kernel: smaller ones need Linux 6.4."""

DEPTH_MAX: Final = 128
FILES_MAX: Final = 500_000
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class FolderRefused(StokerError):
    """The folder cannot become an image."""


class _Walk:
    def __init__(self, *, keep_owners: bool) -> None:
        self.keep_owners = keep_owners
        self.files: dict[int, tuple[str, ...]] = {}
        """Where the content of each node is, by the node's identity; the tree keeps the nodes."""
        self.linked: dict[tuple[int, int], Node] = {}
        self.count = 0

    def node(self, status: os.stat_result, parent: int, name: str, parts: tuple[str, ...]) -> Node | None:
        """None for what no image holds: sockets and devices."""
        self.count += 1
        if self.count > FILES_MAX or len(parts) > DEPTH_MAX:
            raise FolderRefused(f"more than {FILES_MAX} files, or deeper than {DEPTH_MAX} folders")
        known = self.linked.get((status.st_dev, status.st_ino))
        if known is not None:
            return known
        uid, gid = (status.st_uid, status.st_gid) if self.keep_owners else (0, 0)
        node = Node(mode=status.st_mode, uid=uid, gid=gid, mtime_s=int(status.st_mtime))
        if stat.S_ISLNK(status.st_mode):
            node.link = os.readlink(os.fsencode(name), dir_fd=parent)
            node.size_bytes = len(node.link)
        elif stat.S_ISREG(status.st_mode):
            node.size_bytes = self.readable_bytes(status, parent, name)
            self.files[id(node)] = parts
            if status.st_nlink > 1:
                self.linked[(status.st_dev, status.st_ino)] = node
        elif stat.S_ISDIR(status.st_mode):
            node.children = self.below(status, parent, name, parts)
        else:
            return None
        return node

    def readable_bytes(self, status: os.stat_result, parent: int, name: str) -> int:
        """What is root's alone in an image may be closed to us as it is to every function: it stays empty.

        Raises:
            PermissionError: it is another's.
        """
        if status.st_mode & 0o004:
            return status.st_size
        try:
            os.close(os.open(name, _FILE, dir_fd=parent))
        except PermissionError:
            if not self.keep_owners or status.st_uid:
                raise
            return 0
        return status.st_size

    def below(
        self, status: os.stat_result, parent: int, name: str, parts: tuple[str, ...]
    ) -> dict[bytes, Node]:
        """Likewise for a folder."""
        try:
            fd = os.open(name, _FOLDER, dir_fd=parent)
        except PermissionError:
            if not self.keep_owners or status.st_uid:
                raise
            return {}
        return self.children(fd, parts)

    def children(self, fd: int, parts: tuple[str, ...]) -> dict[bytes, Node]:
        try:
            found: dict[bytes, Node] = {}
            for name in sorted(os.listdir(fd)):
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                node = self.node(status, fd, name, (*parts, name))
                if node is not None:
                    found[os.fsencode(name)] = node
            return found
        finally:
            os.close(fd)


def write_folder_image(source: Path | int, image: int, *, keep_owners: bool = False) -> int:
    """Write the tree below a folder (its path, or an O_PATH descriptor) into the empty file ``image``.

    Without ``keep_owners`` everything is root's. Returns the image's bytes.

    Raises:
        FolderRefused, NotRepresentable, OSError
    """
    opened = os.open(".", _FOLDER, dir_fd=source) if isinstance(source, int) else os.open(source, _FOLDER)
    try:
        walk = _Walk(keep_owners=keep_owners)
        status = os.fstat(opened)
        root = folder(stat.S_IMODE(status.st_mode), mtime_s=int(status.st_mtime))
        root.children = walk.children(os.dup(opened), ())
        return _write(root, walk.files, opened, image)
    finally:
        os.close(opened)


def _write(root: Node, files: dict[int, tuple[str, ...]], opened: int, image: int) -> int:
    layout = build_image(root, block_bytes=BLOCK_BYTES)
    os.ftruncate(image, layout.size_bytes)
    os.pwrite(image, layout.head, 0)
    for node in layout.files:
        _copy(opened, files[id(node)], image, node.address, node.size_bytes)
    return layout.size_bytes


def _copy(root: int, parts: tuple[str, ...], image: int, address: int, size_bytes: int) -> None:
    file = _open_below(root, parts)
    try:
        copied = 0
        while copied < size_bytes:
            data = os.pread(file, min(1 << 20, size_bytes - copied), copied)
            if not data:
                raise FolderRefused(f"{'/'.join(parts)} became shorter while it was read")
            os.pwrite(image, data, address + copied)
            copied += len(data)
    finally:
        os.close(file)


def _open_below(root: int, parts: tuple[str, ...]) -> int:
    """Step by step: a link that took a folder's place meanwhile must not lead elsewhere."""
    at = os.dup(root)
    try:
        for part in parts[:-1]:
            below = os.open(part, _FOLDER, dir_fd=at)
            os.close(at)
            at = below
        return os.open(parts[-1], _FILE, dir_fd=at)
    finally:
        os.close(at)
