"""Layers for test images, written as tars from dictionaries; the same dictionary gives the same bytes."""

import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"
"""``etc/.wh.passwd`` removes etc/passwd of the layers below; ``etc/.wh..wh..opq`` all they have in etc."""


@dataclass(frozen=True)
class File:
    """A regular file. A ``Path`` is read when the layer is written, so a big one never is in memory whole."""

    content: bytes | str | Path = b""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime_s: int = 0
    xattrs: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class Folder:
    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    mtime_s: int = 0
    xattrs: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class Symlink:
    target: str
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True)
class Hardlink:
    target: str
    """Path of another member, as the tar has it."""


@dataclass(frozen=True)
class Device:
    major: int
    minor: int
    block: bool = False


@dataclass(frozen=True)
class Fifo:
    mode: int = 0o644


Entry = bytes | str | Path | File | Folder | Symlink | Hardlink | Device | Fifo
Layer = Mapping[str, Entry]


def layer_tar(layer: Layer) -> bytes:
    """The tar of a small layer, members in the dictionary's order."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        add_entries(tar, layer)
    return stream.getvalue()


def write_layer_tar(layer: Layer, into: Path) -> Path:
    """The same in a file."""
    with tarfile.open(into, mode="w", format=tarfile.PAX_FORMAT) as tar:
        add_entries(tar, layer)
    return into


def add_entries(tar: tarfile.TarFile, layer: Layer) -> None:
    """Add each entry under its name, which is written as given: hostile names are allowed."""
    for name, entry in layer.items():
        _add(tar, name, File(entry) if isinstance(entry, bytes | str | Path) else entry)


def _add(tar: tarfile.TarFile, name: str, entry: Entry) -> None:
    member = tarfile.TarInfo(name)
    member.mtime = getattr(entry, "mtime_s", 0)
    member.uid, member.gid = getattr(entry, "uid", 0), getattr(entry, "gid", 0)
    member.pax_headers = {f"SCHILY.xattr.{key}": value for key, value in getattr(entry, "xattrs", {}).items()}
    match entry:
        case File(content=Path() as path):
            member.mode, member.size = entry.mode, path.stat().st_size
            with path.open("rb") as stream:
                tar.addfile(member, stream)
            return
        case File(content=content):
            content = content.encode() if isinstance(content, str) else content
            assert isinstance(content, bytes)
            member.mode, member.size = entry.mode, len(content)
            tar.addfile(member, io.BytesIO(content))
            return
        case Folder():
            member.type, member.mode = tarfile.DIRTYPE, entry.mode
        case Symlink():
            member.type, member.linkname, member.mode = tarfile.SYMTYPE, entry.target, 0o777
        case Hardlink():
            member.type, member.linkname = tarfile.LNKTYPE, entry.target
        case Device():
            member.type = tarfile.BLKTYPE if entry.block else tarfile.CHRTYPE
            member.devmajor, member.devminor, member.mode = entry.major, entry.minor, 0o666
        case Fifo():
            member.type, member.mode = tarfile.FIFOTYPE, entry.mode
        case _:
            raise TypeError(f"{name}: {entry!r}")
    tar.addfile(member)
