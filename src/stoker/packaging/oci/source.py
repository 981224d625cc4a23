"""The port between images' sources (a registry, an archive) and what flattens them. Nothing here does I/O."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from stoker.packaging.oci.references import Reference

Progress = Callable[[int], None]
"""Told how many more bytes have arrived; may be called from another thread."""


class Descriptor(msgspec.Struct, frozen=True):
    """A blob of an image."""

    media_type: str
    digest: str
    size_bytes: int


class Layer(msgspec.Struct, frozen=True):
    """A layer as it is transferred."""

    blob: Descriptor
    compression: str
    """``none``, ``gzip`` or ``zstd``."""
    diff_id: str
    """The digest that the image's configuration names for the tar inside; whoever unpacks it checks it."""


class ImageManifest(msgspec.Struct, frozen=True, kw_only=True):
    """One image for one architecture; every digest here but the layers' was checked against its bytes."""

    reference: Reference
    """By digest: names the same image for ever."""
    content: bytes
    """The manifest itself; its SHA-256 is ``reference.digest``."""
    config: Descriptor
    config_content: bytes
    """The image's configuration: JSON whose form and sizes nobody has vouched for."""
    layers: tuple[Layer, ...]
    """Lowest first."""

    @property
    def digest(self) -> str:
        """``sha256:`` and 64 hexadecimal digits."""
        assert self.reference.digest is not None
        return self.reference.digest

    @property
    def transfer_bytes(self) -> int:
        """What all layers weigh on their way here."""
        return sum(layer.blob.size_bytes for layer in self.layers)


class ImageSource(Protocol):
    """Where images come from. Neither method blocks the event loop."""

    async def manifest(self, reference: Reference, architecture: str | None) -> ImageManifest:
        """What ``reference`` names now.

        Args:
            architecture: Lambda's, ``x86_64`` or ``arm64``: chooses from an index, and is what the image must
                be for. None with a digest that was resolved before.

        Raises:
            ImageRefused: kind says why.
        """
        ...

    async def blob(
        self, manifest: ImageManifest, blob: Descriptor, into: Path, progress: Progress | None = None
    ) -> None:
        """Write a blob of that image to the new file ``into``; size and digest are checked on the way.

        Nothing is left of the file on failure, nor a moment after a cancellation.

        Raises:
            ImageRefused: kind says why.
            OSError: the file cannot be written.
        """
        ...
