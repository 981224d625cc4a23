"""Container images: what ``control`` admits, ``packaging`` keeps in chunks and a worker mounts lazily."""

from collections.abc import Callable
from typing import Protocol

import msgspec

from stoker.core.errors import StokerError
from stoker.services.volumes import MountedTree


def image_code(account: str, digest: str) -> str:
    """What an image is called among all code: by account, whose key opens it, and digest."""
    return f"{account}/{digest}"


def image_of_code(name: str) -> tuple[str, str] | None:
    """(account, digest) of what ``image_code`` named; None for the CodeSha256 of an archive."""
    account, separator, digest = name.partition("/sha256:")
    return (account, f"sha256:{digest}") if separator else None


class ImageUser(msgspec.Struct, frozen=True):
    """Who a process of the image runs as, in numbers, resolved from the image's own /etc/passwd and group."""

    uid: int
    gid: int
    home: str = "/"


class ImageConfiguration(msgspec.Struct, frozen=True, kw_only=True):
    """How an image wants to be started; a function's ImageConfig overrides it member by member."""

    entry_point: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    working_directory: str | None = None
    environment: dict[str, str] = {}
    user: ImageUser | None = None
    """None: the image names none, or root; Lambda's own default user then."""


class ResolvedImage(msgspec.Struct, frozen=True, kw_only=True):
    """What an ImageUri named at one moment."""

    uri: str
    """As the caller wrote it: REGISTRY/NAME:TAG or REGISTRY/NAME@DIGEST."""
    resolved_uri: str
    """REGISTRY/NAME@sha256:…, of the manifest for one architecture."""
    digest: str
    """``sha256:`` and 64 hexadecimal digits, of that manifest."""


class ImageArtifact(msgspec.Struct, frozen=True, kw_only=True):
    """An image that was checked, flattened and stored."""

    digest: str
    account: str
    """Whose key opens its manifest: chunks are shared between accounts, manifests never."""
    size_bytes: int
    """Of the flattened file system image."""
    configuration: ImageConfiguration


class ImageProgress(msgspec.Struct, frozen=True):
    """How far an admission has come, in bytes of the layers as the registry sends them."""

    done_bytes: int
    total_bytes: int
    phase: str
    """``downloading``, ``flattening`` or ``storing``."""


class ImageRefused(StokerError):
    """The image cannot be used. ``kind`` is one of KINDS; the message is for whoever deploys."""

    KINDS = ("missing", "denied", "unreachable", "invalid", "too_big", "architecture", "media_type")

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class ImageMissing(StokerError):
    """No image of that digest is stored for that account."""


class ImageStore(Protocol):
    """Images by (account, digest). Hostile layers are parsed outside this process."""

    async def resolve(self, uri: str, architecture: str) -> ResolvedImage:
        """Ask the registry, or the images imported here, what ``uri`` names now.

        Args:
            architecture: Lambda's: ``x86_64`` or ``arm64``.

        Raises:
            ImageRefused: kind says why.
        """
        ...

    async def admit(
        self,
        image: ResolvedImage,
        account: str,
        *,
        kms_key_arn: str | None = None,
        progress: Callable[[ImageProgress], None] | None = None,
    ) -> ImageArtifact:
        """Fetch what is not here yet, flatten, store; idempotent. Nothing half done is ever visible.

        Raises:
            ImageRefused: kind says why; nothing refers to what was stored.
        """
        ...

    async def artifact(self, account: str, digest: str) -> ImageArtifact | None:
        """What is known of an image that was admitted."""
        ...

    async def mounted(self, account: str, digest: str) -> MountedTree:
        """Mount the image, or share the mount there is; nothing is downloaded ahead.

        It stays until ``leave`` was called as often as this.

        Raises:
            ImageMissing: it is not here; nothing has to be left.
            MountRefused: this host cannot mount it; nothing has to be left.
        """
        ...

    def leave(self, account: str, digest: str) -> None:
        """A sandbox with that mount is gone."""
        ...

    async def forget(self, account: str, digest: str) -> None:
        """No version names the image any more: its manifest goes, its chunks when nothing else needs them."""
        ...

    async def stored(self) -> list[tuple[str, str]]:
        """(account, digest) of everything kept here, for sweeping what no version names."""
        ...
