"""Writes a checked plan below an open directory. Never resolves a link: they are made last, in a fresh tree.

Directories become 0755, files 0644, or 0755 when any execute bit was set: the sandbox runs under another uid,
and archives from Python's ``writestr`` say 0600. Set-uid, set-gid and sticky bits are dropped.
"""

import calendar
import os
import zipfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager

from stoker.packaging.archive import READ_ERRORS, ArchiveRefused, Member, Plan

CHUNK_BYTES = 256 * 1024
FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
NEW_FILE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def unpack(archive: zipfile.ZipFile, plan: Plan, root: int) -> int:
    """Make everything the plan lists below the directory ``root`` (a descriptor); returns bytes written.

    Raises:
        ArchiveRefused: a member is not what the directory of the archive says.
        OSError: the host could not write.
    """
    for parts in plan.directories:
        with _parent(root, parts) as parent:
            os.mkdir(parts[-1], 0o755, dir_fd=parent)
            _chmod(parts[-1], parent)
    written_bytes = 0
    for member in plan.files:
        with _parent(root, member.parts) as parent:
            written_bytes += _write_file(archive, member, parent)
    for member in plan.links:
        with _parent(root, member.parts) as parent:
            target = link_target(archive, member)
            os.symlink(target, member.parts[-1], dir_fd=parent)
            written_bytes += len(target)
    _set_directory_times(plan, root)
    os.fchmod(root, 0o755)
    return written_bytes


@contextmanager
def _parent(root: int, parts: tuple[str, ...]) -> Generator[int]:
    """The directory that holds ``parts``, opened one name at a time so that no link can be in the way."""
    descriptor = os.dup(root)
    try:
        for part in parts[:-1]:
            below = os.open(part, FOLDER_FLAGS, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
        yield descriptor
    finally:
        os.close(descriptor)


def _chmod(name: str, parent: int) -> None:
    descriptor = os.open(name, FOLDER_FLAGS, dir_fd=parent)
    try:
        os.fchmod(descriptor, 0o755)
    finally:
        os.close(descriptor)


def _write_file(archive: zipfile.ZipFile, member: Member, parent: int) -> int:
    descriptor = os.open(member.parts[-1], NEW_FILE_FLAGS, 0o600, dir_fd=parent)
    try:
        size_bytes = 0
        for chunk in content_of(archive, member):
            size_bytes += len(chunk)
            _write_all(descriptor, chunk)
        if size_bytes != member.info.file_size:
            raise ArchiveRefused("malformed", f"{member.path!r} is shorter than it says")
        os.fchmod(descriptor, 0o755 if member.executable else 0o644)
        time_s = seconds_of(member.info.date_time)
        os.utime(descriptor, (time_s, time_s))
        return size_bytes
    finally:
        os.close(descriptor)


def content_of(archive: zipfile.ZipFile, member: Member) -> Iterator[bytes]:
    """What a member holds, a piece at a time.

    Raises:
        ArchiveRefused: it is damaged.
    """
    try:
        with archive.open(member.info) as stream:
            while chunk := stream.read(CHUNK_BYTES):
                yield chunk
    except READ_ERRORS as problem:
        raise ArchiveRefused("malformed", f"{member.path!r}: {problem}") from problem


def _write_all(descriptor: int, chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        view = view[os.write(descriptor, view) :]


def link_target(archive: zipfile.ZipFile, member: Member) -> bytes:
    """What a symbolic link says; raises as ``content_of``."""
    target = b"".join(content_of(archive, member))
    if not target or b"\0" in target:
        raise ArchiveRefused("malformed", f"{member.path!r} links to nothing")
    return target


def _set_directory_times(plan: Plan, root: int) -> None:
    for parts in reversed(plan.directories):
        if parts not in plan.times:
            continue
        time_s = seconds_of(plan.times[parts])
        with _parent(root, (*parts, "")) as folder:
            os.utime(folder, (time_s, time_s))


def seconds_of(moment: tuple[int, int, int, int, int, int]) -> int:
    """A zip's local time without a zone, taken as UTC; nonsense in it becomes the format's epoch."""
    year, month, day, hour, minute, second = moment
    if not (1 <= month <= 12 and 1 <= day <= 31 and hour < 24 and minute < 60 and second < 62):
        year, month, day, hour, minute, second = 1980, 1, 1, 0, 0, 0
    return calendar.timegm((year, month, day, hour, minute, second))
