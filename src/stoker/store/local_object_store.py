"""Objects as files below one folder: durable when acknowledged, whole or absent, never through a link.

Not over obstore's LocalStore: that syncs neither files nor folders, follows symbolic links, and a name that
was linked before its bytes reached the disk can come back empty after a power failure.
"""

import asyncio
import contextlib
import errno
import os
import secrets
import stat
from collections.abc import AsyncIterator, Callable, Generator
from pathlib import Path
from typing import TypeVar

from stoker.core.disk import disk_full
from stoker.services.object_store import (
    ObjectMissing,
    ObjectStoreFull,
    ObjectStoreUnavailable,
    Progress,
    StoredObject,
)
from stoker.store.object_files import new_file, write_all
from stoker.store.object_keys import checked_key, prefix_folder

T = TypeVar("T")

COPIED_AT_ONCE_BYTES = 8 * 1024 * 1024
FOLDER_RETRIES = 10
"""Tries to enter a folder that a deletion of its last object takes away at the same time."""

_OBJECTS = "objects"
_STAGING = "staging"
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class LocalObjectStore:
    """The ObjectStore port on a folder that belongs to this process alone.

    Files are written in ``staging``, synced, and only then linked to their names below ``objects``. An object
    and a folder of objects cannot have the same name.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._objects = folder / _OBJECTS
        self._staging = folder / _STAGING

    async def start(self) -> None:
        """Make the folders and remove what a killed process left half written."""
        await self._run("the folder", self._start)

    async def put_new(self, key: str, content: bytes) -> bool:
        checked_key(key)
        return await self._run(key, lambda: self._put_new(key, content))

    async def put(self, key: str, content: bytes) -> None:
        checked_key(key)
        await self._run(key, lambda: self._put(key, content))

    async def put_file(self, key: str, file: Path, progress: Progress | None = None) -> None:
        checked_key(key)
        source = await asyncio.to_thread(os.open, file, os.O_RDONLY | os.O_CLOEXEC)
        with self._staged() as staged, os.fdopen(source, "rb", buffering=0) as stream:
            with new_file(staged) as target:
                await self._run_copy(key, stream.fileno(), target, progress)
                await self._run(key, lambda: os.fsync(target))
            await self._run(key, lambda: self._publish(key, staged, replacing=True))

    async def get(self, key: str) -> bytes:
        checked_key(key)
        return await self._run(key, lambda: self._read(key, 0, None))

    async def get_range(self, key: str, offset: int, size_bytes: int) -> bytes:
        checked_key(key)
        if offset < 0 or size_bytes < 0:
            raise ValueError(f"not a range: {offset}, {size_bytes}")
        return await self._run(key, lambda: self._read(key, offset, size_bytes))

    async def fetch(self, key: str, into: Path, progress: Progress | None = None) -> None:
        checked_key(key)
        source = await self._run(key, lambda: self._open(key))
        try:
            with new_file(into) as target:
                await self._run_copy(key, source, target, progress)
        finally:
            os.close(source)

    async def size_bytes(self, key: str) -> int | None:
        checked_key(key)
        try:
            return await self._run(key, lambda: self._size(key))
        except ObjectMissing:
            return None

    async def list_objects(self, prefix: str) -> AsyncIterator[StoredObject]:
        waiting = [prefix_folder(prefix)]
        while waiting:
            folder = waiting.pop()
            for entry in await self._run(folder, lambda folder=folder: self._entries(folder)):
                if isinstance(entry, str):
                    if entry.startswith(prefix) or prefix.startswith(entry):
                        waiting.append(entry)
                elif entry.key.startswith(prefix):
                    yield entry

    async def delete(self, key: str) -> None:
        checked_key(key)
        await self._run(key, lambda: self._delete(key))

    async def _run(self, key: str, work: Callable[[], T]) -> T:
        """Work on the disk in a thread; it runs to its end even when nobody waits for it any more."""
        try:
            return await asyncio.to_thread(work)
        except OSError as problem:
            raise self._unavailable(key, problem) from problem

    async def _run_copy(self, key: str, source: int, target: int, progress: Progress | None) -> None:
        while True:
            copying = asyncio.ensure_future(self._run(key, lambda: _copy_part(source, target)))
            try:
                copied = await asyncio.shield(copying)
            except asyncio.CancelledError:
                # The descriptors are closed by whoever called, so the thread must be through with them.
                await asyncio.wait([copying])
                raise
            if not copied:
                return
            if progress is not None:
                progress(copied)

    def _unavailable(self, key: str, problem: OSError) -> ObjectStoreUnavailable:
        full = disk_full(problem.errno)
        if full is not None:
            return ObjectStoreFull(full.why, f"objects in {self._folder}")
        return ObjectStoreUnavailable(f"object {key} in {self._folder}: {problem.strerror or problem}")

    def _start(self) -> None:
        for folder in (self._folder, self._objects, self._staging):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for leftover in self._staging.iterdir():
            leftover.unlink()
        _sync(self._folder)
        _sync(self._folder.parent)

    @contextlib.contextmanager
    def _staged(self) -> Generator[Path]:
        """A name for a file that is gone in the end, if it has not moved to its place."""
        staged = self._staging / secrets.token_hex(16)
        try:
            yield staged
        finally:
            staged.unlink(missing_ok=True)

    def _put_new(self, key: str, content: bytes) -> bool:
        if self._is_there(key):
            return False
        with self._staged() as staged:
            _write(staged, content)
            try:
                self._publish(key, staged, replacing=False)
            except FileExistsError:
                return not self._is_there(key)
        return True

    def _put(self, key: str, content: bytes) -> None:
        with self._staged() as staged:
            _write(staged, content)
            self._publish(key, staged, replacing=True)

    def _is_there(self, key: str) -> bool:
        """Whether there is such an object; if so, its name is durable, whoever gave it."""
        try:
            with self._parent(key) as folder:
                facts = os.stat(_name(key), dir_fd=folder, follow_symlinks=False)
                if not stat.S_ISREG(facts.st_mode):
                    raise OSError(errno.EEXIST, "something else than a file has its name")
                os.fsync(folder)
        except FileNotFoundError:
            return False
        return True

    def _publish(self, key: str, staged: Path, *, replacing: bool) -> None:
        for attempt in range(FOLDER_RETRIES):
            with contextlib.suppress(FileNotFoundError), self._parent(key, make=True) as folder:
                if replacing:
                    os.rename(staged, _name(key), dst_dir_fd=folder)
                else:
                    os.link(staged, _name(key), dst_dir_fd=folder, follow_symlinks=False)
                os.fsync(folder)
                return
            if attempt == FOLDER_RETRIES - 1:
                raise OSError(errno.EBUSY, "its folder goes again and again")

    @contextlib.contextmanager
    def _parent(self, key: str, *, make: bool = False) -> Generator[int]:
        """A descriptor of the folder that an object's file is in; every step refuses symbolic links."""
        folder = os.open(self._objects, _FOLDER_FLAGS)
        try:
            for segment in key.split("/")[:-1]:
                below = _enter(folder, segment, make=make)
                os.close(folder)
                folder = below
            yield folder
        finally:
            os.close(folder)

    def _open(self, key: str) -> int:
        try:
            with self._parent(key) as folder:
                descriptor = os.open(_name(key), _READ_FLAGS, dir_fd=folder)
        except FileNotFoundError as problem:
            raise ObjectMissing(key) from problem
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise ObjectMissing(key)
        return descriptor

    def _size(self, key: str) -> int:
        descriptor = self._open(key)
        try:
            return os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)

    def _read(self, key: str, offset: int, size_bytes: int | None) -> bytes:
        descriptor = self._open(key)
        try:
            there = max(0, os.fstat(descriptor).st_size - offset)
            wanted = there if size_bytes is None else min(size_bytes, there)
            content = os.pread(descriptor, wanted, offset)
        finally:
            os.close(descriptor)
        if len(content) != wanted:
            raise OSError(errno.EIO, f"{wanted} bytes were asked for and {len(content)} read")
        return content

    def _entries(self, folder: str) -> list[StoredObject | str]:
        """Objects of one folder, and the folders in it by their prefix."""
        try:
            with self._parent(folder + ".") as descriptor, os.scandir(descriptor) as entries:
                return [found for entry in entries if (found := _found(folder, entry)) is not None]
        except FileNotFoundError:
            return []

    def _delete(self, key: str) -> None:
        try:
            with self._parent(key) as folder:
                os.unlink(_name(key), dir_fd=folder)
                os.fsync(folder)
        except FileNotFoundError:
            return
        self._remove_empty(key)

    def _remove_empty(self, key: str) -> None:
        above = key.rpartition("/")[0]
        while above:
            try:
                with self._parent(above) as folder:
                    os.rmdir(_name(above), dir_fd=folder)
            except OSError:  # there are others in it, or another deletion was first
                return
            above = above.rpartition("/")[0]


def _name(key: str) -> str:
    return key.rpartition("/")[2]


def _enter(folder: int, segment: str, *, make: bool) -> int:
    try:
        return os.open(segment, _FOLDER_FLAGS, dir_fd=folder)
    except FileNotFoundError:
        if not make:
            raise
    with contextlib.suppress(FileExistsError):
        os.mkdir(segment, 0o700, dir_fd=folder)
    os.fsync(folder)
    return os.open(segment, _FOLDER_FLAGS, dir_fd=folder)


def _write(file: Path, content: bytes) -> None:
    with new_file(file) as descriptor:
        write_all(descriptor, content)
        os.fsync(descriptor)


def _copy_part(source: int, target: int) -> int:
    return os.sendfile(target, source, None, COPIED_AT_ONCE_BYTES)


def _found(folder: str, entry: "os.DirEntry[str]") -> StoredObject | str | None:
    if entry.is_dir(follow_symlinks=False):
        return f"{folder}{entry.name}/"
    if not entry.is_file(follow_symlinks=False):
        return None
    try:
        facts = entry.stat(follow_symlinks=False)
    except FileNotFoundError:  # deleted since
        return None
    return StoredObject(folder + entry.name, facts.st_size, facts.st_mtime)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
