"""A whole small image at once: superblock, all metadata, then the data of every file. Pure."""

import msgspec

from stoker.packaging.erofs.metadata import SUPERBLOCK_END, Metadata, walk
from stoker.packaging.erofs.nodes import Node
from stoker.packaging.erofs.records import SUPERBLOCK_OFFSET


class Image(msgspec.Struct, frozen=True):
    """``head`` is everything before the data. ``files`` are those with data, each at its ``address`` from
    then on; the builder writes the data there, zeros between, and makes the file ``size_bytes`` long."""

    head: bytes
    files: tuple[Node, ...]
    size_bytes: int


def build_image(root: Node, *, block_bytes: int, build_time_s: int = 0) -> Image:
    """Lay out a tree of which only the data is missing; the same tree gives the same bytes.

    Raises:
        NotRepresentable: what EROFS has no way to say.
    """
    metadata = Metadata(root, start=0, block_bytes=block_bytes, build_time_s=build_time_s)
    nodes = list(walk(root))
    metadata.add_section(nodes)
    files = tuple(node for node in nodes if node.is_file and node.size_bytes and node.chunks is None)
    data_start = end = -(-metadata.end // block_bytes) * block_bytes
    for file in files:
        file.address = end
        end += -(-file.size_bytes // block_bytes) * block_bytes
    head = bytearray(data_start)
    for address, piece in metadata.pieces():
        head[address : address + len(piece)] = piece
    head[SUPERBLOCK_OFFSET:SUPERBLOCK_END] = metadata.superblock(end, rest=bytes(head[SUPERBLOCK_END:]))
    return Image(bytes(head), files, end)
