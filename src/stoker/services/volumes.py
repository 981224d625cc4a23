"""Read-only file system images that a worker mounts: from a file, or lazily from a volume of our own.

The images come from our own builder and are authenticated before a byte reaches the kernel. Mounting needs
root, so the jail does it; whoever asks gets descriptors, never paths.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from stoker.core.errors import StokerError


class MountRefused(StokerError):
    """The host could not mount the image; nothing is left of the attempt."""


class MountsUnavailable(MountRefused):
    """This host mounts no images (an ordinary user, an old kernel); the message says what would bring it."""


class MountedTree(msgspec.Struct, frozen=True):
    """A mounted image's root folder, to be named as the source of a sandbox's mount.

    ``folder`` is an O_PATH descriptor that belongs to the mount; files below it can be opened with
    ``dir_fd=folder``. Nobody but the mounter closes it.
    """

    mount_id: int
    folder: int


MountSource = Path | MountedTree
"""What can be mounted into a sandbox: a folder of the host, or the root of an image that the jail mounted."""


def below(source: MountSource, name: str) -> tuple[Path, int | None]:
    """Path and ``dir_fd`` of ``name`` below a source, as the functions of ``os`` take them."""
    return (Path(name), source.folder) if isinstance(source, MountedTree) else (source / name, None)


class OpenVolume(msgspec.Struct, frozen=True):
    """A volume that nobody serves yet. ``device`` is an open /dev/fuse that belongs to the caller, who hands
    it to the process that serves the volume's one file, and closes it."""

    volume_id: int
    device: int


class ImageMounter(Protocol):
    """Mounts EROFS images. What it mounted is gone when the jail restarts."""

    def on_lost(self, tell: Callable[[], None]) -> None:
        """Have ``tell`` called whenever everything that was mounted is gone, its descriptors with it."""
        ...

    @property
    def volumes_unavailable(self) -> str | None:
        """The same for ``open_volume``."""
        ...

    @property
    def unavailable(self) -> str | None:
        """Why this host mounts no images, and what would bring it; None when it does."""
        ...

    async def mount_file(self, image: int) -> MountedTree:
        """Mount the image in an open regular file, whose name may be gone; the descriptor stays the caller's.

        Raises:
            MountRefused, MountsUnavailable
        """
        ...

    async def open_volume(self) -> OpenVolume:
        """Make a volume of one file; how big that is, its server says.

        Raises:
            MountRefused, MountsUnavailable
        """
        ...

    async def mount_volume(self, volume_id: int) -> MountedTree:
        """Mount the image in a volume that is being served by now; the mount has the volume's id.

        A volume whose image cannot be mounted is gone afterwards.

        Raises:
            MountRefused, MountsUnavailable
        """
        ...

    async def unmount(self, mount_id: int) -> None:
        """Let go of a volume or a mount, with the volume below; sandboxes keep it until they end.

        Nothing happens when there is none.
        """
        ...

    async def abort_volume(self, volume_id: int) -> None:
        """Let every read of a volume fail at once, now and for ever: its server hangs or is gone. The mount
        stays until ``unmount``."""
        ...
