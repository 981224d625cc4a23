"""Opens what a sandbox is to have mounted: the jail takes descriptors, never paths."""

import fcntl
import os
from collections.abc import Mapping

from stoker.core.errors import SandboxCreateError
from stoker.sandbox.driver import MountPoint, MountSource
from stoker.services.volumes import MountedTree


def open_folders(mounts: Mapping[MountPoint, MountSource]) -> dict[MountPoint, int]:
    """A descriptor for each folder; the caller closes them.

    Raises:
        SandboxCreateError: one is not there, or no folder.
    """
    folders: dict[MountPoint, int] = {}
    for point, source in mounts.items():
        try:
            folders[point] = open_folder(source)
        except OSError as problem:
            for fd in folders.values():
                os.close(fd)
            raise SandboxCreateError(f"{source} for {point.value}: {problem.strerror}") from problem
    return folders


def open_folder(source: MountSource) -> int:
    """A descriptor of one folder; the caller closes it.

    Raises:
        OSError: it is not there, or no folder.
    """
    if isinstance(source, MountedTree):
        return fcntl.fcntl(source.folder, fcntl.F_DUPFD_CLOEXEC, 0)
    return os.open(source, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
