"""Where every inode and every folder's entries lie, and their bytes. Data is placed by whoever calls.

Laid out in sections: a later section never moves what an earlier one placed, so that images which begin with
the same sections have the same bytes there, but for the inodes of folders that a later section adds to.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence

from stoker.packaging.erofs import records
from stoker.packaging.erofs.nodes import UNPLACED, Node
from stoker.packaging.erofs.records import SLOT_BYTES

SUPERBLOCK_END = records.SUPERBLOCK_OFFSET + records.SUPERBLOCK_BYTES
ROOT_REACH_BYTES = 0xFFFF * SLOT_BYTES
"""The root's number has 16 bits: it must lie this near the start of the metadata."""


class Metadata:
    """The metadata of one image, from ``start`` on. Call ``add_section`` once or oftener, then ``pieces``,
    then ``superblock``; data addresses may be set until ``pieces``.

    Files whose ``mtime_s`` is ``build_time_s`` take half the room.

    Raises, all of it: NotRepresentable.
    """

    def __init__(self, root: Node, *, start: int, block_bytes: int, build_time_s: int = 0) -> None:
        if block_bytes not in records.BLOCK_SIZES or start % block_bytes:
            raise records.NotRepresentable(f"blocks of {block_bytes} bytes, metadata from {start}")
        self._root = root
        self._start = start
        self._block_bytes = block_bytes
        self._build_time_s = build_time_s
        self._cursor = max(start, SUPERBLOCK_END)
        self._inodes: list[Node] = []
        self._blocks: list[tuple[int, Node]] = []
        self._chunked = False
        self._digest = hashlib.sha256()

    @property
    def end(self) -> int:
        """Where the metadata ends so far, in bytes from the image's start."""
        return self._cursor

    def add_section(
        self, new: Iterable[Node], changed: Iterable[Node] = (), *, at: int | None = None
    ) -> None:
        """Place the inodes that are new, in that order; the root comes first of all.

        ``changed`` are folders of earlier sections whose names were added to or taken from: their entries
        find room in this one. Sizes, links, attributes, names and ``chunks``' length must be final for a
        ``new`` inode, but for what a later ``changed`` says. ``at``: leave a gap up to there.
        """
        if at is not None:
            self._cursor = max(self._cursor, at)
        apart: list[tuple[Node, int]] = []
        for node in new:
            self._place(node, apart)
        apart.extend((node, self._content_bytes(node)) for node in changed)
        for node, size_bytes in apart:
            self._cursor = _aligned(self._cursor, self._block_bytes)
            node.entries = self._cursor
            self._blocks.append((self._cursor, node))
            self._cursor += _aligned(size_bytes, self._block_bytes)
        if self._root.inode == UNPLACED or self._root.inode - self._start > ROOT_REACH_BYTES:
            raise records.NotRepresentable("the root is not at the start of the metadata")

    def _place(self, node: Node, apart: list[tuple[Node, int]]) -> None:
        head_bytes = records.COMPACT_BYTES if self._is_compact(node) else records.EXTENDED_BYTES
        head_bytes += len(records.xattrs_of(node))
        if node.chunks is not None:
            head_bytes += 4 * len(node.chunks)
            self._chunked = True
        content_bytes = self._content_bytes(node)
        whole_bytes = head_bytes + content_bytes
        position = _aligned(self._cursor, SLOT_BYTES)
        if content_bytes and whole_bytes > self._block_bytes:
            apart.append((node, content_bytes))
            whole_bytes = head_bytes
        elif content_bytes and position % self._block_bytes + whole_bytes > self._block_bytes:
            # What lies beside its inode may not cross the end of a block.
            position = _aligned(position, self._block_bytes)
        node.inode = position
        self._inodes.append(node)
        self._cursor = position + whole_bytes

    def _content_bytes(self, node: Node) -> int:
        """The bytes of a folder's entries or a link's target: what belongs to the metadata."""
        if node.children is None:
            return len(node.link)
        names = _names(node)
        blocks = records.entry_blocks(names, self._block_bytes)
        first, _ = blocks[-1]
        last_bytes = sum(map(len, names[first:])) + records.ENTRY_BYTES * (len(names) - first)
        return (len(blocks) - 1) * self._block_bytes + last_bytes

    def _is_compact(self, node: Node) -> bool:
        return records.is_compact(node, self._build_time_s)

    def pieces(self) -> Iterator[tuple[int, bytes]]:
        """Every piece of metadata with its address, in rising order; what is between them is zeros."""
        self._refer()
        yield from self._pieces_in_order()

    def _pieces_in_order(self) -> Iterator[tuple[int, bytes]]:
        blocks = iter(self._blocks)
        block = next(blocks, None)
        for position, node in enumerate(self._inodes):
            while block is not None and block[0] < node.inode:
                yield self._counted(block[0], self._content_of(block[1], block[0]))
                block = next(blocks, None)
            yield self._counted(node.inode, self._inode(node, position + 1))
        while block is not None:
            yield self._counted(block[0], self._content_of(block[1], block[0]))
            block = next(blocks, None)

    def _counted(self, address: int, piece: bytes) -> tuple[int, bytes]:
        self._digest.update(address.to_bytes(8, "little"))
        self._digest.update(piece)
        return address, piece

    def _refer(self) -> None:
        """Count every node's names and tell folders where their parents are."""
        for node in self._inodes:
            node.names = 2 if node.is_folder else 0
            # Stays so for what nothing refers to: files that a later section hides keep their room.
            node.parent = node.inode
        waiting = [self._root]
        while waiting:
            parent = waiting.pop()
            for child in (parent.children or {}).values():
                if child.children is None:
                    child.names += 1
                    continue
                parent.names += 1
                child.parent = parent.inode
                waiting.append(child)

    def _inode(self, node: Node, number: int) -> bytes:
        xattrs = records.xattrs_of(node)
        layout, where, beside = self._whereabouts(node)
        size_bytes = node.size_bytes if node.is_file else self._content_bytes(node)
        packed = records.inode(
            node,
            build_time_s=self._build_time_s,
            size_bytes=size_bytes,
            layout=layout,
            where=where,
            number=number,
            xattrs=xattrs,
        )
        return packed + beside

    def _whereabouts(self, node: Node) -> tuple[int, int, bytes]:
        """Data layout, its word in the inode, and what follows the inode."""
        if node.chunks is not None:
            bits, numbers = records.chunk_map(node, self._block_bytes)
            return records.CHUNK_BASED, bits, numbers
        if node.is_file:
            return records.FLAT_PLAIN, records.block_number(node.address, self._block_bytes), b""
        if node.entries != UNPLACED:
            return records.FLAT_PLAIN, records.block_number(node.entries, self._block_bytes), b""
        content = self._content(node)
        return (records.FLAT_INLINE if content else records.FLAT_PLAIN), 0, content

    def _content_of(self, node: Node, address: int) -> bytes:
        """Blocks that a later section left behind are zeros."""
        return self._content(node) if node.entries == address else b""

    def _content(self, node: Node) -> bytes:
        if node.children is None:
            return node.link
        children = node.children
        numbered: list[tuple[bytes, int, int]] = []
        for name in _names(node):
            if name == b".":
                numbered.append((name, self._number(node.inode), 2))
            elif name == b"..":
                numbered.append((name, self._number(node.parent), 2))
            else:
                child = children[name]
                numbered.append((name, self._number(child.inode), records.type_of(child)))
        return records.entries(numbered, self._block_bytes)

    def _number(self, inode: int) -> int:
        if inode == UNPLACED:
            raise records.NotRepresentable("a folder holds what was never placed")
        return (inode - self._start) // SLOT_BYTES

    def superblock(self, size_bytes: int, *, rest: bytes = b"") -> bytes:
        """The superblock of an image of that size, once all pieces were taken: its UUID is their digest.

        ``rest`` is what the image holds after the superblock, in the block where that ends.
        """
        return records.superblock(
            block_bytes=self._block_bytes,
            metadata_start=self._start,
            root=self._root,
            inodes=sum(1 for node in self._inodes if node.names),
            blocks=size_bytes // self._block_bytes,
            build_time_s=self._build_time_s,
            uuid=_uuid(self._digest.digest()),
            chunked=self._chunked,
            rest=rest,
        )


def walk(root: Node) -> Iterator[Node]:
    """Every node below and with ``root``, once, in an order that names alone decide: folders before what is
    in them."""
    seen: set[int] = set()
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        yield node
        if node.children:
            waiting.extend(node.children[name] for name in sorted(node.children, reverse=True))


def _names(node: Node) -> Sequence[bytes]:
    assert node.children is not None
    return sorted((b".", b"..", *node.children))


def _aligned(position: int, unit: int) -> int:
    return -(-position // unit) * unit


def _uuid(digest: bytes) -> bytes:
    """A UUID (version 8: made from content) out of a digest."""
    uuid = bytearray(digest[:16])
    uuid[6] = uuid[6] & 0x0F | 0x80
    uuid[8] = uuid[8] & 0x3F | 0x80
    return bytes(uuid)
