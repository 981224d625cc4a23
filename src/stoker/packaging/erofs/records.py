"""The records of EROFS as bytes: superblock, inodes, folder entries, extended attributes. Pure.

Source: the kernel's fs/erofs/erofs_fs.h. Nothing is used that a kernel since 5.15 does not know, but blocks
smaller than a page, which need 6.4.
"""

import stat
import struct
from collections.abc import Sequence

from stoker.core.errors import StokerError
from stoker.packaging.erofs.crc32c import crc32c
from stoker.packaging.erofs.nodes import UNPLACED, Node

SUPERBLOCK_OFFSET = 1024
SUPERBLOCK_BYTES = 128
SLOT_BYTES = 32
"""Inodes are numbered in units of this."""

BLOCK_SIZES = (512, 1024, 2048, 4096)
NAME_MAX_BYTES = 255
XATTRS_MAX_BYTES = 64 * 1024

COMPACT_BYTES = 32
EXTENDED_BYTES = 64

FLAT_PLAIN = 0
FLAT_INLINE = 2
CHUNK_BASED = 4

_MAGIC = 0xE0F5E1E2
_HAS_CHECKSUM = 0x1
_HAS_MTIME = 0x2
_CHUNKED_FILES = 0x4
_SUPERBLOCK = struct.Struct("<IIIBBHQQIIII16s16sIHHHBBIQB23x")
_COMPACT = struct.Struct("<HHHHIIIIHHI")
_EXTENDED = struct.Struct("<HHHHQIIIIQII16x")
_ENTRY = struct.Struct("<QHBx")
ENTRY_BYTES = _ENTRY.size
_XATTR_HEADER_BYTES = 12
_XATTR = struct.Struct("<BBH")

_TYPES = {stat.S_IFREG: 1, stat.S_IFDIR: 2, stat.S_IFIFO: 5, stat.S_IFSOCK: 6, stat.S_IFLNK: 7}
"""Devices are not in it: no image of ours has any."""
_XATTR_PREFIXES = (
    ("user.", 1),
    ("system.posix_acl_access", 2),
    ("system.posix_acl_default", 3),
    ("trusted.", 4),
    ("security.", 6),
)


class NotRepresentable(StokerError):
    """EROFS, or this writer, has no way to say that."""


def superblock(
    *,
    block_bytes: int,
    metadata_start: int,
    root: Node,
    inodes: int,
    blocks: int,
    build_time_s: int,
    uuid: bytes,
    chunked: bool,
    rest: bytes = b"",
) -> bytes:
    """The superblock with its checksum. ``rest`` is what follows it in its own block, if anything."""
    fields = [
        _MAGIC,
        0,
        _HAS_CHECKSUM | _HAS_MTIME,
        block_bytes.bit_length() - 1,
        0,
        (root.inode - metadata_start) // SLOT_BYTES,
        inodes,
        build_time_s,
        0,
        min(blocks, 0xFFFF_FFFF),
        metadata_start // block_bytes,
        0,
        uuid,
        bytes(16),
        _CHUNKED_FILES if chunked else 0,
        *(0,) * 8,
    ]
    covered_bytes = block_bytes - SUPERBLOCK_OFFSET if block_bytes > SUPERBLOCK_OFFSET else block_bytes
    covered = (_SUPERBLOCK.pack(*fields) + rest)[:covered_bytes].ljust(covered_bytes, b"\0")
    fields[1] = crc32c(covered)
    return _SUPERBLOCK.pack(*fields)


def is_compact(node: Node, build_time_s: int) -> bool:
    """Whether the small inode, which has no time of its own, can say everything. ``names`` is not looked at
    for files: no archive that is let in has so many links to one."""
    return (
        node.mtime_s == build_time_s
        and node.mtime_ns == 0
        and node.size_bytes <= 0xFFFF_FFFF
        and node.uid <= 0xFFFF
        and node.gid <= 0xFFFF
        and not node.is_folder
    )


def inode(
    node: Node, *, build_time_s: int, size_bytes: int, layout: int, where: int, number: int, xattrs: bytes
) -> bytes:
    """``where`` is the number of the first block of the data, or the format of the chunks."""
    count = (len(xattrs) - _XATTR_HEADER_BYTES) // 4 + 1 if xattrs else 0
    if is_compact(node, build_time_s):
        if node.names > 0xFFFF:
            raise NotRepresentable(f"a file has {node.names} names")
        return (
            _COMPACT.pack(
                layout << 1,
                count,
                node.mode,
                node.names,
                size_bytes,
                0,
                where,
                number,
                node.uid,
                node.gid,
                0,
            )
            + xattrs
        )
    return (
        _EXTENDED.pack(
            layout << 1 | 1,
            count,
            node.mode,
            0,
            size_bytes,
            where,
            number,
            node.uid,
            node.gid,
            node.mtime_s & 0xFFFF_FFFF_FFFF_FFFF,
            node.mtime_ns,
            node.names,
        )
        + xattrs
    )


def xattrs_of(node: Node) -> bytes:
    """Header and entries, a multiple of four bytes; nothing for a file without any.

    Raises:
        NotRepresentable: a name outside the known namespaces, or too much of them.
    """
    if not node.xattrs:
        return b""
    pieces = [bytes(_XATTR_HEADER_BYTES)]
    for name, value in sorted(node.xattrs):
        index, suffix = _split_xattr_name(name)
        if len(suffix) > NAME_MAX_BYTES or len(value) > 0xFFFF:
            raise NotRepresentable(f"the extended attribute {name[:100]!r} is too long")
        entry = _XATTR.pack(len(suffix), index, len(value)) + suffix + value
        pieces.append(entry + bytes(-len(entry) % 4))
    packed = b"".join(pieces)
    if len(packed) > XATTRS_MAX_BYTES:
        raise NotRepresentable(f"a file has {len(packed)} bytes of extended attributes")
    return packed


def _split_xattr_name(name: str) -> tuple[int, bytes]:
    for prefix, index in _XATTR_PREFIXES:
        if name.startswith(prefix) and (prefix.endswith(".") == (len(name) > len(prefix))):
            return index, name[len(prefix) :].encode("utf-8", "surrogateescape")
    raise NotRepresentable(f"the extended attribute {name[:100]!r} is in no known namespace")


def type_of(node: Node) -> int:
    """The file type that a folder's entry carries."""
    try:
        return _TYPES[stat.S_IFMT(node.mode)]
    except KeyError:
        raise NotRepresentable(f"mode {node.mode:o} is none that an image of ours has") from None


def entry_blocks(names: Sequence[bytes], block_bytes: int) -> list[tuple[int, int]]:
    """How sorted names, ``.`` and ``..`` among them, fill blocks: (first, one past the last) of each.

    Raises:
        NotRepresentable: a name is empty or too long.
    """
    blocks: list[tuple[int, int]] = []
    first = used = 0
    for position, name in enumerate(names):
        needed = ENTRY_BYTES + len(name)
        if not 0 < len(name) <= NAME_MAX_BYTES:
            raise NotRepresentable(f"a name of {len(name)} bytes")
        if used + needed > block_bytes:
            blocks.append((first, position))
            first, used = position, 0
        used += needed
    blocks.append((first, len(names)))
    return blocks


def entries(numbered: Sequence[tuple[bytes, int, int]], block_bytes: int) -> bytes:
    """A folder's content: (name, inode number, type), sorted; all blocks but the last are filled up."""
    names = [name for name, _, _ in numbered]
    blocks: list[bytes] = []
    for first, end in entry_blocks(names, block_bytes):
        offset = (end - first) * ENTRY_BYTES
        heads: list[bytes] = []
        for name, number, kind in numbered[first:end]:
            heads.append(_ENTRY.pack(number, offset, kind))
            offset += len(name)
        blocks.append(b"".join(heads + names[first:end]))
    return b"".join([block.ljust(block_bytes, b"\0") for block in blocks[:-1]] + blocks[-1:])


def chunk_map(node: Node, block_bytes: int) -> tuple[int, bytes]:
    """The format word and the block numbers of a file in pieces.

    Raises:
        NotRepresentable: the pieces are no power of two blocks, or not as many as the size says.
    """
    bits = (node.chunk_bytes // block_bytes).bit_length() - 1
    assert node.chunks is not None
    if node.chunk_bytes != block_bytes << bits or not 0 <= bits < SLOT_BYTES:
        raise NotRepresentable(f"pieces of {node.chunk_bytes} bytes")
    if len(node.chunks) != -(-node.size_bytes // node.chunk_bytes):
        raise NotRepresentable(f"{len(node.chunks)} pieces of {node.chunk_bytes} for {node.size_bytes} bytes")
    return bits, struct.pack(f"<{len(node.chunks)}I", *node.chunks)


def block_number(address: int, block_bytes: int) -> int:
    """The block at an address; data that is nowhere (an empty file's) is at the first.

    Raises:
        NotRepresentable: not at the start of a block.
    """
    if address == UNPLACED:
        return 0
    number, beside = divmod(address, block_bytes)
    if beside or number >= 0xFFFF_FFFF:
        raise NotRepresentable(f"data at {address}")
    return number
