"""Where the members of a tar lie, without unpacking it: a small, strict reader of hostile archives. Blocking.

Knows the ustar, pax and GNU forms as tar, skopeo, umoci and docker write them, and refuses what it does not.
"""

import os
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from stoker.services.images import ImageRefused

MEMBERS_MAX: Final = 20_000
NAME_MAX: Final = 4096
PAX_MAX_BYTES: Final = 64 * 1024
LINKS_MAX: Final = 8
"""Links that lead to links."""
_BLOCK = 512
_REGULAR, _CONTIGUOUS, _OLD_REGULAR = b"0", b"7", b"\0"
_HARD_LINK, _SYMLINK, _FOLDER = b"1", b"2", b"5"
_PAX, _PAX_GLOBAL, _GNU_NAME, _GNU_LINK = b"x", b"g", b"L", b"K"
_SPARSE_MARK = "GNU.sparse."


class Place(msgspec.Struct, frozen=True):
    """Where a member's content is in the archive."""

    offset_bytes: int
    size_bytes: int


class ArchiveIndex:
    """Members by name; of two of one name the last counts."""

    def __init__(self, descriptor: int, stopped: Callable[[], bool] = lambda: False) -> None:
        """Read every header.

        Raises:
            ImageRefused: ``invalid``: it is no tar, it is cut short, or there is no end of it.
        """
        self._descriptor = descriptor
        self._size_bytes = os.fstat(descriptor).st_size
        self._files: dict[str, Place] = {}
        self._links: dict[str, str] = {}
        self._read(stopped)

    def find(self, name: str) -> Place | None:
        """A regular file, links within the archive followed."""
        for _ in range(LINKS_MAX):
            if name in self._files:
                return self._files[name]
            if name not in self._links:
                return None
            name = self._links[name]
        return None

    def content(self, name: str, limit_bytes: int) -> bytes | None:
        """A small file's content; None when there is no such file. Raises ImageRefused (``too_big``)."""
        place = self.find(name)
        if place is None:
            return None
        if place.size_bytes > limit_bytes:
            raise ImageRefused("too_big", f"{name[:100]} in the archive is over {limit_bytes} bytes")
        return os.pread(self._descriptor, place.size_bytes, place.offset_bytes)

    def parts(self, place: Place, part_bytes: int = 1024**2) -> Iterator[bytes]:
        """A file's content in pieces."""
        offset_bytes, end_bytes = place.offset_bytes, place.offset_bytes + place.size_bytes
        while offset_bytes < end_bytes:
            part = os.pread(self._descriptor, min(part_bytes, end_bytes - offset_bytes), offset_bytes)
            if not part:
                raise _broken("it is cut short")
            offset_bytes += len(part)
            yield part

    def _read(self, stopped: Callable[[], bool]) -> None:
        position = 0
        more: dict[str, str] = {}
        for _ in range(MEMBERS_MAX):
            header = os.pread(self._descriptor, _BLOCK, position)
            if stopped() or not header.strip(b"\0"):
                return
            _check(header)
            kind = header[156:157]
            size_bytes = int(more["size"]) if more.get("size", "").isdigit() else _number(header[124:136])
            place = Place(position + _BLOCK, size_bytes)
            position += _BLOCK + -(-size_bytes // _BLOCK) * _BLOCK
            if place.offset_bytes + size_bytes > self._size_bytes:
                raise _broken("it is cut short")
            if kind in (_PAX, _PAX_GLOBAL, _GNU_NAME, _GNU_LINK):
                more |= self._further(kind, place)
                continue
            self._keep(kind, header, place, more)
            more = {}
        raise _broken(f"it has more than {MEMBERS_MAX} members")

    def _further(self, kind: bytes, place: Place) -> dict[str, str]:
        """What headers of their own say about the member behind them."""
        if place.size_bytes > PAX_MAX_BYTES:
            raise _broken("a header is too long")
        content = os.pread(self._descriptor, place.size_bytes, place.offset_bytes)
        if kind == _PAX_GLOBAL:
            return {}
        if kind == _PAX:
            return _pax(content)
        return {"path" if kind == _GNU_NAME else "linkpath": _text(content)}

    def _keep(self, kind: bytes, header: bytes, place: Place, more: dict[str, str]) -> None:
        prefix = _text(header[345:500]) if header[257:263] == b"ustar\0" else ""
        name = more.get("path") or (f"{prefix}/" if prefix else "") + _text(header[:100])
        name = os.path.normpath(name[:NAME_MAX]).lstrip("/")
        if any(key.startswith(_SPARSE_MARK) for key in more) or kind == b"S":
            raise _broken("it has sparse members")
        self._files.pop(name, None)
        self._links.pop(name, None)
        if kind in (_REGULAR, _CONTIGUOUS, _OLD_REGULAR):
            self._files[name] = place
        elif kind in (_HARD_LINK, _SYMLINK):
            target = (more.get("linkpath") or _text(header[157:257]))[:NAME_MAX]
            folder = os.path.dirname(name) if kind == _SYMLINK else ""
            self._links[name] = os.path.normpath(os.path.join(folder, target)).lstrip("/")
        elif kind != _FOLDER:
            raise _broken("it has members that are neither files, links nor folders")


def _check(header: bytes) -> None:
    if len(header) < _BLOCK:
        raise _broken("it is cut short")
    # The checksum's own field counts as spaces.
    if sum(header) - sum(header[148:156]) + 8 * 32 != _number(header[148:156]):
        raise _broken("it is no tar")


def _number(field: bytes) -> int:
    if field[0] & 0x80:
        number = int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    else:
        digits = field.strip(b" \0")
        if not all(digit in b"01234567" for digit in digits):
            raise _broken("it is no tar")
        number = int(digits or b"0", 8)
    if number >= 2**62:
        raise _broken("it is no tar")
    return number


def _pax(content: bytes) -> dict[str, str]:
    """``LENGTH KEY=VALUE\\n`` records."""
    found: dict[str, str] = {}
    while content.strip(b"\0"):
        digits, space, _ = content[:12].partition(b" ")
        if not space or not digits.isdigit() or not len(digits) + 2 < int(digits) <= len(content):
            raise _broken("a header cannot be read")
        record, content = content[len(digits) + 1 : int(digits)], content[int(digits) :]
        key, _, value = record.rstrip(b"\n").partition(b"=")
        found[key.decode(errors="replace")] = value.decode(errors="replace")
    return found


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode(errors="replace")


def _broken(why: str) -> ImageRefused:
    return ImageRefused("invalid", f"the archive cannot be used: {why}")
