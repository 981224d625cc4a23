"""Merges trees by hard links: a merged tree costs its directories, its files are those of the trees it is of.

Works on open directories and never follows a link: the names come from hostile archives that were checked.
"""

import errno
import os
import shutil
import stat
from collections.abc import Sequence

from stoker.packaging.bytecode_tree import CACHE

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_COPIED = frozenset({errno.EMLINK, errno.EXDEV, errno.EPERM, errno.ENOTSUP})
"""A file with too many links already, or a file system without links."""


def merge(trees: Sequence[int], into: int) -> None:
    """Put every tree (a descriptor) into the empty directory ``into``, later ones over earlier ones.

    A directory stands with what every tree has in it; anything else replaces what was there. Whatever is a
    link in one tree and a directory in another is what the later one says.

    Raises:
        OSError: the host failed, or a tree went away.
    """
    for tree in trees:
        _merge(tree, into)


def _merge(source: int, target: int) -> None:
    names, folders = _listed(source)
    for name in names:
        _place(source, target, name)
    for name in folders:
        below = os.open(name, _DIRECTORY, dir_fd=source)
        try:
            beside = _folder(target, name)
            try:
                _merge(below, beside)
            finally:
                os.close(beside)
        finally:
            os.close(below)
    os.fchmod(target, 0o755)
    status = os.fstat(source)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def _listed(folder: int) -> tuple[list[str], list[str]]:
    """Everything but directories, and directories."""
    names: list[str] = []
    folders: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            (folders if entry.is_dir(follow_symlinks=False) else names).append(entry.name)
    return names, folders


def _place(source: int, target: int, name: str) -> None:
    try:
        _link(source, target, name)
    except FileExistsError:
        _clear(target, name)
        _link(source, target, name)
        if name.endswith(".py"):
            _drop_bytecode(target, name)


def _link(source: int, target: int, name: str) -> None:
    try:
        os.link(name, name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
    except OSError as problem:
        if problem.errno not in _COPIED:
            raise
        _copy(source, target, name)


def _copy(source: int, target: int, name: str) -> None:
    status = os.stat(name, dir_fd=source, follow_symlinks=False)
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        return
    with (
        os.fdopen(os.open(name, _FILE, dir_fd=source), "rb") as read,
        os.fdopen(os.open(name, _NEW_FILE, 0o600, dir_fd=target), "wb") as written,
    ):
        shutil.copyfileobj(read, written)
        written.flush()
        os.fchmod(written.fileno(), stat.S_IMODE(status.st_mode))
        os.utime(written.fileno(), ns=(status.st_atime_ns, status.st_mtime_ns))


def _folder(target: int, name: str) -> int:
    """The directory ``name`` below ``target``, open; made where there is none."""
    try:
        os.mkdir(name, 0o700, dir_fd=target)
    except FileExistsError:
        if not stat.S_ISDIR(os.stat(name, dir_fd=target, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=target)
            os.mkdir(name, 0o700, dir_fd=target)
    return os.open(name, _DIRECTORY, dir_fd=target)


def _clear(target: int, name: str) -> None:
    if stat.S_ISDIR(os.stat(name, dir_fd=target, follow_symlinks=False).st_mode):
        shutil.rmtree(name, dir_fd=target)
    else:
        os.unlink(name, dir_fd=target)


def _drop_bytecode(target: int, source: str) -> None:
    """Byte-code that an earlier tree has for the source that was replaced: an import may not check it.

    The later tree's own byte-code comes afterwards: its directories are merged behind its files.
    """
    try:
        cache = os.open(CACHE, _DIRECTORY, dir_fd=target)
    except OSError:
        return
    try:
        stem = source.removesuffix("py")
        for name in os.listdir(cache):
            if name.startswith(stem) and name.endswith(".pyc"):
                _clear(cache, name)
    finally:
        os.close(cache)
