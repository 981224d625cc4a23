"""Paths of an image, taken apart and bounded. Pure."""

from functools import lru_cache

from stoker.packaging.flatten import limits
from stoker.packaging.flatten.limits import invalid

Parts = tuple[bytes, ...]


@lru_cache(maxsize=2)
def parts_of(path: bytes) -> Parts:
    """The names on the way from the image's root; an absolute path means the same.

    Raises:
        LayerRefused: it goes up, or is longer or deeper than any that a kernel takes.
    """
    if len(path) > limits.PATH_MAX_BYTES or b"\0" in path:
        raise invalid(f"a path of {len(path)} bytes")
    parts = tuple(part for part in path.split(b"/") if part not in (b"", b"."))
    if b".." in parts:
        raise invalid(f"the path {path[:100]!r} goes up")
    if len(parts) > limits.DEPTH_MAX:
        raise invalid(f"a path {len(parts)} folders deep")
    if parts and max(map(len, parts)) > limits.NAME_MAX_BYTES:
        raise invalid("a name longer than a kernel takes")
    return parts
