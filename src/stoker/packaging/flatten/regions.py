"""Where the data of a layer's files lies: a region that the layer alone decides, whatever is above or below.

Sorted by path. A file over a chunk's size has chunks of its own; smaller ones never cross a chunk's end; and
before some files, chosen by a hash of the path about every RESYNC_BYTES, a chunk ends early: what changed
before such a place moves nothing after it. A chunk that ends early costs nothing: its zeros are
not stored.
"""

import hashlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec

from stoker.packaging.chunks.sealing import CHUNK_BYTES
from stoker.packaging.erofs.nodes import HOLE, Node
from stoker.packaging.flatten.sparse import Segment

RESYNC_BYTES: Final = 2 * 1024**2
PAGE_BYTES: Final = 4096
PAGE_ALIGNED_FROM_BYTES: Final = 64 * 1024
"""A file of this size begins with a page, for reads without copying across; smaller ones with a block."""
PIECES_MAX: Final = 65_536
"""Of a sparse file: its map has a word for each."""

Write = tuple[int, int, int]
"""Address in the image, offset in the layer's tar, bytes."""


class Stored(msgspec.Struct, frozen=True, gc=False):
    """A file of this layer: its path as the layer has it, and where its bytes are in the tar.

    There are many, in memory all at once: only a sparse file has more than an offset.
    """

    path: bytes
    node: Node
    source: int
    pieces: tuple[Segment, ...] | None = None

    @property
    def segments(self) -> tuple[Segment, ...]:
        return ((0, self.source, self.node.size_bytes),) if self.pieces is None else self.pieces


def stored_file(path: bytes, node: Node, segments: tuple[Segment, ...], sparse: bool) -> Stored:
    """What is kept of an entry with data."""
    return Stored(path, node, 0, segments) if sparse else Stored(path, node, segments[0][1])


def lay_out(files: Sequence[Stored], start: int, block_bytes: int) -> int:
    """Give every file its address; returns the end of the region, a chunk's end. ``files`` are sorted."""
    position = start
    for file in files:
        node = file.node
        if file.pieces is not None and _is_worth_a_map(file):
            position = _map_pieces(file, _aligned(position, CHUNK_BYTES), block_bytes)
        elif node.size_bytes > CHUNK_BYTES:
            node.address = _aligned(position, CHUNK_BYTES)
            position = _aligned(node.address + node.size_bytes, CHUNK_BYTES)
        else:
            node.address = _small(file.path, node.size_bytes, position, block_bytes)
            position = node.address + _aligned(node.size_bytes, block_bytes)
    return _aligned(position, CHUNK_BYTES)


def _small(path: bytes, size_bytes: int, position: int, block_bytes: int) -> int:
    alignment = PAGE_BYTES if size_bytes >= PAGE_ALIGNED_FROM_BYTES else block_bytes
    position = _aligned(position, alignment)
    if position % CHUNK_BYTES + size_bytes > CHUNK_BYTES or _begins_a_chunk(path, size_bytes):
        return _aligned(position, CHUNK_BYTES)
    return position


def _begins_a_chunk(path: bytes, size_bytes: int) -> bool:
    """By the size's magnitude alone, so that a file that grows a little does not change its mind."""
    draw = int.from_bytes(hashlib.sha256(path).digest()[:4], "big")
    return draw * RESYNC_BYTES * 3 // 2 < (1 << size_bytes.bit_length()) << 32


def _is_worth_a_map(file: Stored) -> bool:
    data_bytes = sum(length for _, _, length in file.segments)
    return file.node.size_bytes > CHUNK_BYTES and data_bytes * 5 < file.node.size_bytes * 4


def _map_pieces(file: Stored, start: int, block_bytes: int) -> int:
    """Only pieces with data in them get a place; returns where the last ends, at a chunk's end."""
    node = file.node
    piece_bytes = PAGE_BYTES
    while node.size_bytes > piece_bytes * PIECES_MAX:
        piece_bytes *= 2
    pieces = array("I", [HOLE]) * -(-node.size_bytes // piece_bytes)
    position = start
    for offset, _, length in file.segments:
        for piece in range(offset // piece_bytes, (offset + length - 1) // piece_bytes + 1):
            if pieces[piece] == HOLE:
                pieces[piece] = position // block_bytes
                position += piece_bytes
    node.chunk_bytes, node.chunks = piece_bytes, pieces
    return _aligned(position, CHUNK_BYTES)


def writes(files: Iterable[Stored], block_bytes: int) -> Iterator[Write]:
    """Everything to be copied into the region, in rising order of addresses."""
    for file in files:
        node = file.node
        if node.chunks is None:
            for offset, source, length in file.segments:
                yield node.address + offset, source, length
            continue
        for offset, source, length in file.segments:
            done = 0
            while done < length:
                piece, inside = divmod(offset + done, node.chunk_bytes)
                part = min(length - done, node.chunk_bytes - inside)
                yield node.chunks[piece] * block_bytes + inside, source + done, part
                done += part


def _aligned(position: int, unit: int) -> int:
    return -(-position // unit) * unit
