"""A strict reader of tar archives in a file: ustar, pax, GNU's long names and sparse files.

Gives entries with the places of their data, reads no data itself and believes nothing: every size is bounded
before anything is allocated for it.
"""

import os
from collections.abc import Iterator
from typing import Final

import msgspec

from stoker.packaging.flatten import limits
from stoker.packaging.flatten.headers import BLOCK, Header, parse_header
from stoker.packaging.flatten.limits import invalid
from stoker.packaging.flatten.pax import parse_pax
from stoker.packaging.flatten.sparse import Segment, gnu_segments, pax_segments

FILE: Final = "file"
FOLDER: Final = "folder"
SYMLINK: Final = "symlink"
HARDLINK: Final = "hardlink"
FIFO: Final = "fifo"
DEVICE: Final = "device"

_KINDS: Final = {
    b"0": FILE,
    b"\0": FILE,
    b"7": FILE,
    b"S": FILE,
    b"1": HARDLINK,
    b"2": SYMLINK,
    b"3": DEVICE,
    b"4": DEVICE,
    b"5": FOLDER,
    b"6": FIFO,
}
_WINDOW_BYTES: Final = 8 * 1024
"""Read at once for headers: some small files' worth. What it holds of bigger ones is copied for nothing."""
_TIME_MAX_S: Final = 1 << 40


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One member. ``segments`` are the data of a file: where in it, where in the archive, how many bytes."""

    kind: str
    path: bytes
    link: bytes
    mode: int
    uid: int
    gid: int
    mtime_s: int
    mtime_ns: int
    size_bytes: int
    segments: tuple[Segment, ...]
    xattrs: tuple[tuple[str, bytes], ...]
    sparse: bool


class _Extensions(msgspec.Struct):
    """What precedes an entry and belongs to it."""

    pax: dict[str, bytes] = {}
    name: bytes | None = None
    link: bytes | None = None
    count: int = 0


class TarReader:
    """The entries of the archive in ``descriptor``, which is ``size_bytes`` long."""

    def __init__(self, descriptor: int, size_bytes: int) -> None:
        self._descriptor = descriptor
        self._size_bytes = size_bytes
        self._window = b""
        self._window_start = 0
        self._global: dict[str, bytes] = {}

    def __iter__(self) -> Iterator[Entry]:
        """Raises LayerRefused with the first thing that is wrong."""
        position = 0
        extensions = _Extensions()
        while position < self._size_bytes:
            block = self._read(position, BLOCK)
            if not block.strip(b"\0"):
                break
            header = parse_header(block)
            data = position + BLOCK
            if header.kind in b"xgLK":
                self._extend(extensions, header, data)
                position = data + _padded(header.size_bytes)
                continue
            entry, position = self._entry(header, extensions, data)
            extensions = _Extensions()
            yield entry
        if extensions.count:
            raise invalid("a layer ends after an extended header")

    def _read(self, position: int, size_bytes: int) -> bytes:
        start = position - self._window_start
        if start < 0 or start + size_bytes > len(self._window):
            self._window = os.pread(self._descriptor, max(_WINDOW_BYTES, size_bytes), position)
            self._window_start = position
            start = 0
        found = self._window[start : start + size_bytes]
        if len(found) != size_bytes:
            raise invalid("a layer ends within a header")
        return found

    def _extend(self, extensions: _Extensions, header: Header, data: int) -> None:
        extensions.count += 1
        if header.size_bytes > limits.EXTENSION_MAX_BYTES or extensions.count > limits.EXTENSIONS_MAX:
            raise invalid(f"an extended header of {header.size_bytes} bytes, the {extensions.count}th")
        content = self._read(data, header.size_bytes)
        match header.kind:
            case b"x":
                extensions.pax = {**extensions.pax, **parse_pax(content)}
            case b"g":
                self._global = _without_data({**self._global, **parse_pax(content)})
            case b"L":
                extensions.name = content.rstrip(b"\0")
            case _:
                extensions.link = content.rstrip(b"\0")

    def _entry(self, header: Header, extensions: _Extensions, data: int) -> tuple[Entry, int]:
        kind = _KINDS.get(header.kind)
        if kind is None:
            raise invalid(f"an entry of type {header.kind!r}")
        pax = {**self._global, **extensions.pax} if self._global else extensions.pax
        name = pax.get("GNU.sparse.name") or pax.get("path") or extensions.name or header.name
        if kind == FILE and name.endswith(b"/"):
            kind = FOLDER
        stored_bytes = _number(pax, "size", header.size_bytes)
        size_bytes, segments, sparse = stored_bytes, ((0, data, stored_bytes),), False
        if header.kind == b"S":
            sparse = True
            size_bytes, segments, data = gnu_segments(header, data, stored_bytes, self._read)
        elif kind == FILE and any(key.startswith("GNU.sparse.") for key in pax):
            sparse = True
            size_bytes, segments = pax_segments(pax, data, stored_bytes, self._read)
        if kind != FILE:
            # Some writers give links the size of their target; nothing follows them all the same.
            size_bytes, segments, stored_bytes = 0, (), 0
        if data + stored_bytes > self._size_bytes:
            raise invalid("a layer ends within a file")
        mtime_s, mtime_ns = _time(pax, header.mtime_s)
        return (
            Entry(
                kind,
                name,
                pax.get("linkpath") or extensions.link or header.link,
                header.mode & 0o7777,
                _owner(pax, "uid", header.uid),
                _owner(pax, "gid", header.gid),
                mtime_s,
                mtime_ns,
                size_bytes,
                tuple(segment for segment in segments if segment[2])
                if sparse or not size_bytes
                else segments,
                _xattrs(pax) if pax else (),
                sparse,
            ),
            data + _padded(stored_bytes),
        )


def _padded(size_bytes: int) -> int:
    return -(-size_bytes // BLOCK) * BLOCK


def _without_data(pax: dict[str, bytes]) -> dict[str, bytes]:
    """Global headers may set times and owners; a size or a name for every entry is an attack or nonsense."""
    if pax.keys() & {"path", "linkpath", "size"} or any(key.startswith(("GNU.", "SCHILY.")) for key in pax):
        raise invalid("a global header names files")
    return pax


def _number(pax: dict[str, bytes], key: str, otherwise: int) -> int:
    text = pax.get(key)
    if text is None:
        return otherwise
    if not text.isdigit() or len(text) > 19:
        raise invalid(f"{key}={text[:40]!r}")
    return int(text)


def _owner(pax: dict[str, bytes], key: str, otherwise: int) -> int:
    number = _number(pax, key, otherwise)
    if not 0 <= number < 0xFFFF_FFFF:
        raise invalid(f"{key}={number}")
    return number


def _time(pax: dict[str, bytes], otherwise: int) -> tuple[int, int]:
    text = pax.get("mtime")
    if text is None:
        return max(-_TIME_MAX_S, min(otherwise, _TIME_MAX_S)), 0
    whole, _, fraction = text.partition(b".")
    digits = whole.removeprefix(b"-")
    if not digits.isdigit() or len(digits) > 12 or (fraction and not fraction.isdigit()):
        raise invalid(f"mtime={text[:40]!r}")
    nanoseconds = int(fraction[:9].ljust(9, b"0")) if fraction else 0
    if not whole.startswith(b"-"):
        return int(whole), nanoseconds
    return (int(whole) - 1, 10**9 - nanoseconds) if nanoseconds else (int(whole), 0)


def _xattrs(pax: dict[str, bytes]) -> tuple[tuple[str, bytes], ...]:
    """What is kept of extended attributes: a program's own and capabilities. What a union mount or a security
    module would believe (trusted.*, user.overlay.*, security.selinux, ACLs) is not an image's to say."""
    found = [(key[13:], value) for key, value in pax.items() if key.startswith("SCHILY.xattr.")]
    kept = sorted(
        (name, value)
        for name, value in found
        if name == "security.capability"
        or (name.startswith("user.") and not name.startswith("user.overlay."))
    )
    if (
        len(kept) > limits.XATTRS_MAX
        or sum(len(name) + len(value) for name, value in kept) > limits.XATTRS_MAX_BYTES
    ):
        raise invalid("too many extended attributes of one file")
    if any(not 5 < len(name.encode()) <= 5 + limits.NAME_MAX_BYTES for name, _ in kept):
        raise invalid("an extended attribute without a name, or with too long a one")
    return tuple(kept)
