"""Reads EROFS images back, written from the format's description and not from our writer: a second opinion."""

import mmap
import struct
from collections.abc import Iterator

import msgspec

PREFIXES = {
    1: "user.",
    2: "system.posix_acl_access",
    3: "system.posix_acl_default",
    4: "trusted.",
    6: "security.",
}
HOLE = 0xFFFF_FFFF


class Seen(msgspec.Struct, frozen=True):
    """One name of an image, as a reader sees it."""

    number: int
    mode: int
    uid: int
    gid: int
    mtime_s: int
    mtime_ns: int
    links: int
    content: bytes
    xattrs: dict[str, bytes]


class Reader:
    def __init__(self, image: bytes | mmap.mmap) -> None:
        self.image = image
        (magic, self.checksum, _, bits, _, root, self.inodes) = struct.unpack_from("<IIIBBHQ", image, 1024)
        assert magic == 0xE0F5E1E2
        (self.build_time_s, _, self.blocks, metadata) = struct.unpack_from("<QIII", image, 1024 + 24)
        self.uuid = image[1024 + 48 : 1024 + 64]
        self.block_bytes = 1 << bits
        self.metadata = metadata * self.block_bytes
        self.root = root

    def tree(self) -> dict[str, Seen]:
        return dict(self._walk("", self.root, self.root))

    def _walk(self, path: str, number: int, parent: int) -> Iterator[tuple[str, Seen]]:
        seen = self.inode(number)
        yield path, seen
        if seen.mode & 0o170000 != 0o040000:
            return
        names = list(self._entries(seen.content))
        assert [name for name, _, _ in names] == sorted({name for name, _, _ in names})
        assert (b".", number, 2) in names
        assert (b"..", parent, 2) in names
        for name, child, kind in names:
            if name in (b".", b".."):
                continue
            for below, each in self._walk(f"{path}/{name.decode('latin-1')}", child, number):
                yield below, each
                if below == f"{path}/{name.decode('latin-1')}":
                    assert {0o100000: 1, 0o040000: 2, 0o120000: 7, 0o010000: 5, 0o140000: 6}[
                        each.mode & 0o170000
                    ] == kind

    def _entries(self, content: bytes) -> Iterator[tuple[bytes, int, int]]:
        for start in range(0, len(content), self.block_bytes):
            block = content[start : start + self.block_bytes]
            count = struct.unpack_from("<QH", block)[1] // 12
            heads = [struct.unpack_from("<QHBx", block, 12 * position) for position in range(count)]
            ends = [offset for _, offset, _ in heads[1:]] + [len(block)]
            for (number, offset, kind), end in zip(heads, ends, strict=True):
                yield block[offset:end].split(b"\0")[0], number, kind

    def inode(self, number: int) -> Seen:
        at = self.metadata + number * 32
        form, count, mode = struct.unpack_from("<HHH", self.image, at)
        if form & 1:
            size, where, _, uid, gid, mtime_s, mtime_ns, links = struct.unpack_from(
                "<QIIIIqII", self.image, at + 8
            )
            head = 64
        else:
            links, size, _, where, _, uid, gid = struct.unpack_from("<HIIIIHH", self.image, at + 6)
            mtime_s, mtime_ns, head = self.build_time_s, 0, 32
        xattrs_bytes = 12 + 4 * (count - 1) if count else 0
        xattrs = dict(self._xattrs(self.image[at + head : at + head + xattrs_bytes]))
        after = at + head + xattrs_bytes
        content = self._content(form >> 1, where, size, after)
        return Seen(number, mode, uid, gid, mtime_s, mtime_ns, links, content, xattrs)

    def _content(self, layout: int, where: int, size: int, after: int) -> bytes:
        if layout == 0:
            at = where * self.block_bytes
            return self.image[at : at + size]
        if layout == 2:
            assert size <= self.block_bytes
            assert after // self.block_bytes == (after + size - 1) // self.block_bytes
            return self.image[after : after + size]
        assert layout == 4
        chunk_bytes = self.block_bytes << (where & 31)
        pieces = []
        for position in range(-(-size // chunk_bytes)):
            (block,) = struct.unpack_from("<I", self.image, after + 4 * position)
            wanted = min(chunk_bytes, size - position * chunk_bytes)
            at = block * self.block_bytes
            pieces.append(bytes(wanted) if block == HOLE else self.image[at : at + wanted])
        return b"".join(pieces)

    def _xattrs(self, packed: bytes) -> Iterator[tuple[str, bytes]]:
        at = 12
        while at < len(packed):
            name_bytes, index, value_bytes = struct.unpack_from("<BBH", packed, at)
            name = packed[at + 4 : at + 4 + name_bytes].decode()
            value = packed[at + 4 + name_bytes :][:value_bytes]
            yield PREFIXES[index] + name, value
            at += -(-(4 + name_bytes + value_bytes) // 4) * 4
