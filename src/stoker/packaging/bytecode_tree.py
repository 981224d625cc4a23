"""Which sources of a tree have no usable byte-code, and putting it beside them. Never follows a link.

Byte-code that was uploaded and that the interpreter would use stays; what it would ignore is replaced.
"""

import os
import stat
import struct
import zipfile
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

import msgspec

from stoker.packaging.archive import DEPTH_MAX, NAME_MAX_BYTES, PATH_MAX_BYTES

SOURCES_MAX: Final = 20_000
SOURCE_MAX_BYTES: Final = 4 * 1024**2
BYTECODE_MAX_BYTES: Final = 128 * 1024**2
"""Byte-code of one tree; sources beyond these limits are compiled where they are imported."""

CACHE: Final = "__pycache__"
_HEAD: Final = struct.Struct("<4sIII")
"""Of a ``.pyc``: magic number, flags, and with flags 0 time and size of the source (PEP 552)."""

_UNCHECKED_HASH: Final = 1
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Dialect(msgspec.Struct, frozen=True):
    """What byte-code belongs to: an interpreter's tag in file names (``cpython-311``) and its magic."""

    tag: str
    magic: bytes


class Source(msgspec.Struct, frozen=True):
    """A Python file of the tree."""

    folder: str
    """Below the tree; empty for the tree itself."""
    name: str

    @property
    def path(self) -> str:
        return f"{self.folder}/{self.name}" if self.folder else self.name

    def target(self, dialect: Dialect) -> str:
        """Name of its byte-code in the cache folder beside it."""
        return f"{self.name.removesuffix('.py')}.{dialect.tag}.pyc"


def sources_without_bytecode(tree: int, dialect: Dialect) -> list[Source]:
    """Regular ``.py`` files below the directory ``tree`` (a descriptor) that an import would compile.

    Raises:
        OSError: the host could not read.
    """
    found: list[Source] = []
    for walked, folders, names, descriptor in os.fwalk(".", dir_fd=tree):
        cache = _cache_of(descriptor) if CACHE in folders else None
        folders[:] = [name for name in folders if name != CACHE]
        folder = walked.removeprefix(".").removeprefix("/")
        try:
            for name in names:
                source = Source(folder, name)
                if _is_source(descriptor, name) and not _is_usable(descriptor, cache, source, dialect):
                    found.append(source)
        finally:
            if cache is not None:
                os.close(cache)
        if len(found) > SOURCES_MAX:
            return found[:SOURCES_MAX]
    return found


def _cache_of(folder: int) -> int | None:
    try:
        return os.open(CACHE, _DIRECTORY, dir_fd=folder)
    except OSError:  # an uploaded link or file
        return None


def _is_source(folder: int, name: str) -> bool:
    if not name.endswith(".py") or name == ".py":
        return False
    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    return stat.S_ISREG(status.st_mode) and status.st_size <= SOURCE_MAX_BYTES


def _is_usable(folder: int, cache: int | None, source: Source, dialect: Dialect) -> bool:
    """What importlib decides: right magic and, unless hashed, the time and size of the source."""
    if cache is None:
        return False
    try:
        file = os.open(source.target(dialect), _FILE, dir_fd=cache)
    except OSError:
        return False
    try:
        head = os.read(file, _HEAD.size)
    except OSError:
        return False
    finally:
        os.close(file)
    if len(head) < _HEAD.size:
        return False
    magic, flags, time_s, size_bytes = _HEAD.unpack(head)
    if magic != dialect.magic:
        return False
    status = os.stat(source.name, dir_fd=folder, follow_symlinks=False)
    now = (int(status.st_mtime) & 0xFFFFFFFF, status.st_size & 0xFFFFFFFF)
    return flags != 0 or (time_s, size_bytes) == now


def place(tree: int, out: int, sources: list[Source], dialect: Dialect) -> int:
    """Move ``<number>`` of the directory ``out`` to where an import finds it; returns how many are there now.

    The files come from a process that read hostile input: each is checked, and none is followed anywhere.
    """
    placed = 0
    left_bytes = BYTECODE_MAX_BYTES
    for number, source in enumerate(sources):
        size_bytes = _checked_size(out, str(number), dialect)
        if size_bytes == 0 or size_bytes > left_bytes:
            continue
        try:
            with _cache_folder(tree, source.folder) as cache:
                os.rename(str(number), source.target(dialect), src_dir_fd=out, dst_dir_fd=cache)
        except OSError:  # an uploaded file or link is in the way, a name is too long, the tree was forgotten
            continue
        placed += 1
        left_bytes -= size_bytes
    return placed


def zip_finished(tree: int, out: int, sources: list[Source], dialect: Dialect, archive: int) -> int:
    """The same into an open, empty zip file, to be laid over the archive the tree shows; returns how many."""
    placed = 0
    left_bytes = BYTECODE_MAX_BYTES
    with os.fdopen(os.dup(archive), "wb") as stream, zipfile.ZipFile(stream, "w") as made:
        for number, source in enumerate(sources):
            size_bytes = _checked_size(out, str(number), dialect)
            if size_bytes == 0 or size_bytes > left_bytes or not _has_place(tree, source, dialect):
                continue
            member = zipfile.ZipInfo(_cached(source, dialect))
            member.external_attr = 0o644 << 16
            file = os.open(str(number), _FILE, dir_fd=out)
            with os.fdopen(file, "rb") as content:
                made.writestr(member, content.read())
            placed += 1
            left_bytes -= size_bytes
    return placed


def _cached(source: Source, dialect: Dialect) -> str:
    beside = f"{source.folder}/{CACHE}" if source.folder else CACHE
    return f"{beside}/{source.target(dialect)}"


def _has_place(tree: int, source: Source, dialect: Dialect) -> bool:
    """Whether nothing that was uploaded is in the way, and the name is one that archives may hold."""
    path = _cached(source, dialect)
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        return False
    if "\\" in path or len(encoded) > PATH_MAX_BYTES or len(source.target(dialect).encode()) > NAME_MAX_BYTES:
        return False
    try:
        if not stat.S_ISDIR(os.stat(os.path.dirname(path), dir_fd=tree, follow_symlinks=False).st_mode):
            return False
        return not stat.S_ISDIR(os.stat(path, dir_fd=tree, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return path.count("/") < DEPTH_MAX


def _checked_size(out: int, name: str, dialect: Dialect) -> int:
    """The size of finished byte-code, made readable for sandboxes; 0 when it is anything else."""
    try:
        file = os.open(name, _FILE, dir_fd=out)
    except OSError:
        return 0
    try:
        status = os.fstat(file)
        head = os.read(file, _HEAD.size) if stat.S_ISREG(status.st_mode) else b""
        if len(head) < _HEAD.size or _HEAD.unpack(head)[:2] != (dialect.magic, _UNCHECKED_HASH):
            return 0
        os.fchmod(file, 0o644)
        return status.st_size
    finally:
        os.close(file)


@contextmanager
def _cache_folder(tree: int, folder: str) -> Generator[int]:
    """The cache folder below ``folder``, made when it is not there; the folder keeps its time."""
    with _opened(tree, folder) as beside:
        status = os.fstat(beside)
        try:
            os.mkdir(CACHE, 0o755, dir_fd=beside)
        except FileExistsError:
            made = False
        else:
            made = True
            os.utime(beside, ns=(status.st_atime_ns, status.st_mtime_ns))
        cache = os.open(CACHE, _DIRECTORY, dir_fd=beside)
        try:
            if made:
                os.fchmod(cache, 0o755)
            yield cache
        finally:
            os.close(cache)


@contextmanager
def _opened(tree: int, folder: str) -> Generator[int]:
    descriptor = os.dup(tree)
    try:
        for part in folder.split("/") if folder else ():
            below = os.open(part, _DIRECTORY, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
        yield descriptor
    finally:
        os.close(descriptor)
