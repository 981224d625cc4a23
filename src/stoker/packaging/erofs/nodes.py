"""Files as an image holds them. Knows what a file is, not where it came from."""

import stat
from collections.abc import Sequence

import msgspec

UNPLACED = -1
HOLE = 0xFFFF_FFFF
"""In ``Node.chunks``: nothing is stored there, it reads as zeros. The kernel's own mark."""


class Node(msgspec.Struct, gc=False, kw_only=True):
    """One inode. Hard links are the same Node under several names.

    ``mode`` is a whole ``st_mode``, the file's type in it. A regular file's data is ``size_bytes`` from
    ``address``, or, when ``chunk_bytes`` is set, in pieces of that size: ``chunks`` has the number of the
    first block of each, or HOLE. Addresses are bytes from the image's start, whole blocks. ``children`` are a
    folder's, by name; ``link`` is a symbolic link's target.
    """

    mode: int
    uid: int = 0
    gid: int = 0
    mtime_s: int = 0
    mtime_ns: int = 0
    size_bytes: int = 0
    address: int = UNPLACED
    link: bytes = b""
    xattrs: tuple[tuple[str, bytes], ...] = ()
    children: dict[bytes, "Node"] | None = None
    chunk_bytes: int = 0
    chunks: Sequence[int] | None = None

    mark: int = 0
    """For whoever makes the tree; not in the image."""

    # What the layout fills in.
    inode: int = UNPLACED
    """Address of the inode."""
    entries: int = UNPLACED
    """Address of the blocks with a folder's entries (or a long link's target); UNPLACED: beside the inode."""
    parent: int = UNPLACED
    """Address of the inode of the folder that a folder is in."""
    names: int = 0
    """How many names refer to it (``st_nlink``)."""

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.mode)


def folder(mode: int = 0o755, *, uid: int = 0, gid: int = 0, mtime_s: int = 0) -> Node:
    """An empty folder."""
    return Node(mode=stat.S_IFDIR | mode, uid=uid, gid=gid, mtime_s=mtime_s, children={})
