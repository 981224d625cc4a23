"""Files without names, on a disk or in memory: gone with their last descriptor, also after a kill."""

import os
import tempfile
from pathlib import Path


def open_nameless(folder: Path) -> int:
    """An empty file on the disk of ``folder``, open for reading and writing; the caller closes it."""
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        return os.dup(file.fileno())


def open_in_memory() -> int:
    """The same in memory: for what is small, since making a file waits for the disk's journal."""
    return os.memfd_create("stoker", os.MFD_CLOEXEC)


def moved_to_disk(memory: int, folder: Path) -> int:
    """A file on the disk of ``folder`` with what was in memory, which is closed.

    Raises:
        OSError: there is no room; the one in memory stays open.
    """
    file = open_nameless(folder)
    try:
        left_bytes = os.lseek(memory, 0, os.SEEK_END)
        os.lseek(memory, 0, os.SEEK_SET)
        while left_bytes:
            left_bytes -= os.sendfile(file, memory, None, left_bytes)
    except BaseException:
        os.close(file)
        raise
    os.close(memory)
    return file
