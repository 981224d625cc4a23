"""What a zip archive says it holds, checked before a byte is unpacked. Reads the directory, writes nothing.

Accepts what Lambda takes (stored and deflated members) and refuses whatever could reach outside the folder,
hide one member behind another, or be more than it says.
"""

import stat
import struct
import zipfile
import zlib
from typing import IO, Final

import msgspec

from stoker.core.errors import StokerError

UNZIPPED_MAX_BYTES: Final = 262_144_000
"""Lambda's limit on a function with its layers, unzipped (250 MB)."""

MEMBERS_MAX: Final = 100_000
NAME_MAX_BYTES: Final = 255
PATH_MAX_BYTES: Final = 4000
"""Leaves room for the /var/task in front of it below PATH_MAX."""
DEPTH_MAX: Final = 100
LINK_MAX_BYTES: Final = 4095

_METHODS: Final = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
_ENCRYPTED_FLAGS: Final = 0x01 | 0x20 | 0x40 | 0x2000
"""Encrypted, compressed patch data, strongly encrypted, directory masked."""
_UTF8_FLAG: Final = 0x800
_LOCAL_HEADER: Final = struct.Struct("<4s22xHH")
_LOCAL_MAGIC: Final = b"PK\x03\x04"
_KNOWN_TYPES: Final = frozenset({0, stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK})

READ_ERRORS: Final = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    ValueError,
    OverflowError,
    NotImplementedError,
    RuntimeError,
    IndexError,
    KeyError,
    AttributeError,
)
"""What the standard library raises on archives that are not what they claim."""


class ArchiveRefused(StokerError):
    """Not an archive that Lambda would take. ``kind`` is ``empty``, ``too_big`` or ``malformed``."""

    def __init__(self, kind: str, why: str) -> None:
        super().__init__(f"{kind}: {why}")
        self.kind = kind
        self.why = why


class Member(msgspec.Struct, frozen=True):
    """One entry with its name taken apart; ``executable`` is whether any execute bit was set."""

    parts: tuple[str, ...]
    info: zipfile.ZipInfo
    executable: bool

    @property
    def path(self) -> str:
        return "/".join(self.parts)


class Plan(msgspec.Struct, frozen=True):
    """Everything to be made, in an order in which nothing is ever written through a link."""

    directories: tuple[tuple[str, ...], ...]
    """Every directory, parents first, those that only members' names imply included."""
    files: tuple[Member, ...]
    links: tuple[Member, ...]
    times: dict[tuple[str, ...], tuple[int, int, int, int, int, int]]
    """Modification times of the directories that the archive names."""
    unpacked_bytes: int


def read_plan(archive: zipfile.ZipFile, stream: IO[bytes], limit_bytes: int = UNZIPPED_MAX_BYTES) -> Plan:
    """Check an opened archive and say what it would make.

    Raises:
        ArchiveRefused: with the first thing that is wrong.
    """
    infos = archive.infolist()
    if not infos:
        raise ArchiveRefused("empty", "no members")
    if len(infos) > MEMBERS_MAX:
        raise _malformed(f"{len(infos)} members")
    total_bytes = sum(info.file_size for info in infos)
    if total_bytes > limit_bytes:
        raise ArchiveRefused("too_big", f"{total_bytes} bytes unzipped")
    for info in infos:
        _check_encoding(info)
    _check_overlap(infos, stream, archive.start_dir)
    return _arrange(infos, total_bytes)


def _arrange(infos: list[zipfile.ZipInfo], total_bytes: int) -> Plan:
    named: set[tuple[str, ...]] = set()
    directories: dict[tuple[str, ...], None] = {}
    times: dict[tuple[str, ...], tuple[int, int, int, int, int, int]] = {}
    files: list[Member] = []
    links: list[Member] = []
    for info in infos:
        kind = _kind(info)
        parts = _parts(info)
        if kind == stat.S_IFDIR:
            directories.update(dict.fromkeys(_chain(parts)))
            if parts:
                times[parts] = info.date_time
            continue
        if not parts or parts in named:
            raise _malformed(f"{info.filename!r} comes twice or has no name")
        named.add(parts)
        directories.update(dict.fromkeys(_chain(parts[:-1])))
        member = Member(parts, info, bool((info.external_attr >> 16) & 0o111))
        (links if kind == stat.S_IFLNK else files).append(member)
    clash = named & directories.keys()
    if clash:
        raise _malformed(f"{'/'.join(min(clash))!r} is a directory and something else")
    return Plan(tuple(sorted(directories)), tuple(files), tuple(links), times, total_bytes)


def _chain(parts: tuple[str, ...]) -> list[tuple[str, ...]]:
    return [parts[: depth + 1] for depth in range(len(parts))]


def _kind(info: zipfile.ZipInfo) -> int:
    """The member's file type: S_IFREG, S_IFDIR or S_IFLNK."""
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in _KNOWN_TYPES:
        raise _malformed(f"{info.filename!r} is a device, socket or pipe")
    if info.orig_filename.endswith("/") or kind == stat.S_IFDIR:
        if info.file_size:
            raise _malformed(f"{info.filename!r} is a directory with content")
        return stat.S_IFDIR
    if kind == stat.S_IFLNK:
        if not 0 < info.file_size <= LINK_MAX_BYTES:
            raise _malformed(f"{info.filename!r} is a link of {info.file_size} bytes")
        return stat.S_IFLNK
    return stat.S_IFREG


def _parts(info: zipfile.ZipInfo) -> tuple[str, ...]:
    name = _name(info)
    encoded = name.encode()
    if "\0" in name or "\\" in name or name.startswith("/") or len(encoded) > PATH_MAX_BYTES:
        raise _malformed(f"the name {name[:100]!r} is not allowed")
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if ".." in parts or len(parts) > DEPTH_MAX or any(len(part.encode()) > NAME_MAX_BYTES for part in parts):
        raise _malformed(f"the name {name[:100]!r} is not allowed")
    return parts


def _name(info: zipfile.ZipInfo) -> str:
    """The stored name: UTF-8 where it is that, even without the flag (Info-ZIP sets none), else CP437."""
    name = info.orig_filename
    if info.flag_bits & _UTF8_FLAG or name.isascii():
        return name
    try:
        return name.encode("cp437").decode()
    except (UnicodeEncodeError, UnicodeDecodeError):
        return name


def _check_encoding(info: zipfile.ZipInfo) -> None:
    if info.flag_bits & _ENCRYPTED_FLAGS:
        raise _malformed(f"{info.filename!r} is encrypted")
    if info.compress_type not in _METHODS:
        raise _malformed(f"{info.filename!r} is compressed by method {info.compress_type}")
    if info.compress_type == zipfile.ZIP_STORED and info.compress_size != info.file_size:
        raise _malformed(f"{info.filename!r} is stored with two sizes")


def _check_overlap(infos: list[zipfile.ZipInfo], stream: IO[bytes], start_of_directory: int) -> None:
    """Members that share bytes make an archive far larger than it is (Fifield's bomb)."""
    end = 0
    for info in sorted(infos, key=lambda info: info.header_offset):
        if info.header_offset < end:
            raise _malformed(f"{info.filename!r} overlaps another member")
        stream.seek(info.header_offset)
        magic, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(stream.read(_LOCAL_HEADER.size))
        if magic != _LOCAL_MAGIC:
            raise _malformed(f"{info.filename!r} has no header")
        end = info.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes + info.compress_size
    if end > start_of_directory:
        raise _malformed("a member reaches into the directory")


def _malformed(why: str) -> ArchiveRefused:
    return ArchiveRefused("malformed", why)
