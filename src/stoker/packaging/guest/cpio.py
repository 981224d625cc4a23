"""Writes cpio archives as kernels read them (newc): deterministic, in the order given. Pure."""

import stat
from collections.abc import Iterable

import msgspec

_END = "TRAILER!!!"


class Entry(msgspec.Struct, frozen=True):
    """One file, folder (its ``mode`` says so) or device (``device``: major and minor)."""

    name: str
    mode: int
    content: bytes = b""
    device: tuple[int, int] = (0, 0)


def archive(entries: Iterable[Entry]) -> bytes:
    """The whole archive; times are 0 and all is root's."""
    written = bytearray()
    for number, entry in enumerate((*entries, Entry(_END, 0)), start=1):
        links = 2 if stat.S_ISDIR(entry.mode) else 1
        name = entry.name.encode() + b"\0"
        fields = (
            number, entry.mode, 0, 0, links, 0, len(entry.content), 0, 0, *entry.device, len(name), 0
        )  # fmt: skip
        written += b"070701" + b"".join(b"%08X" % field for field in fields) + name
        written += bytes(-len(written) % 4)
        written += entry.content
        written += bytes(-len(written) % 4)
    return bytes(written + bytes(-len(written) % 512))
