"""What an image may be, and how one that is more is refused. Pure."""

from typing import Final

from stoker.core.errors import StokerError

UNCOMPRESSED_MAX_BYTES: Final = 10 * 1024**3
"""Lambda's limit on a container image, all its layers together."""

LAYERS_MAX: Final = 127
ENTRIES_MAX: Final = 400_000
"""Of all layers together; a CUDA stack has under 200,000."""
NAME_MAX_BYTES: Final = 255
PATH_MAX_BYTES: Final = 4095
DEPTH_MAX: Final = 128
LINK_MAX_BYTES: Final = 4095
LINKS_FOLLOWED_MAX: Final = 40
"""As the kernel's own limit."""

EXTENSION_MAX_BYTES: Final = 1024 * 1024
"""One pax header, long name or long link target."""
EXTENSIONS_MAX: Final = 16
"""Of those before one entry."""
XATTRS_MAX: Final = 64
XATTRS_MAX_BYTES: Final = 64 * 1024
XATTRS_TOTAL_MAX_BYTES: Final = 16 * 1024**2
NAMES_TOTAL_MAX_BYTES: Final = 64 * 1024**2
"""All names and link targets of an image: what has to be in memory."""
SEGMENTS_MAX: Final = 100_000
"""Pieces of data in one sparse file."""

RATIO_MAX: Final = 1_200
"""How much more a compressed layer may hold than it weighs: deflate reaches 1,032."""
RATIO_FROM_BYTES: Final = 64 * 1024**2
GZIP_MEMBERS_MAX: Final = 500_000
"""An eStargz layer has one for each file."""


class LayerRefused(StokerError):
    """The image cannot be used. ``kind`` is one of ImageRefused: ``invalid``, ``too_big``, ``media_type``."""

    def __init__(self, kind: str, why: str) -> None:
        super().__init__(f"{kind}: {why}")
        self.kind = kind
        self.why = why


def invalid(why: str) -> LayerRefused:
    """It is not what it says it is, or wants what no image may."""
    return LayerRefused("invalid", why)
