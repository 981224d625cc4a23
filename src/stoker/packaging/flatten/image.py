"""One image out of layers: data as the layers come, metadata at the end. Decides where everything lies.

Address space: the superblock's chunk; metadata up to DATA_START, a section for each layer; then the layers'
data, lowest first. So neither data nor metadata of a layer is elsewhere because of what is above it.
"""

import stat
from typing import Final

import msgspec

from stoker.packaging.chunks.sealing import CHUNK_BYTES
from stoker.packaging.erofs.metadata import Metadata
from stoker.packaging.erofs.nodes import Node, folder
from stoker.packaging.erofs.records import SUPERBLOCK_OFFSET
from stoker.packaging.flatten.limits import LayerRefused
from stoker.packaging.flatten.regions import Stored, lay_out, stored_file, writes
from stoker.packaging.flatten.tar import TarReader
from stoker.packaging.flatten.tree import Tree
from stoker.packaging.flatten.users import AccountFiles, User
from stoker.packaging.flatten.writing import ChunkWriter

BLOCK_BYTES: Final = 512
METADATA_START: Final = CHUNK_BYTES
DATA_START: Final = 256 * CHUNK_BYTES
"""Room for the metadata of as many files as an image may have; what is not needed of it is a hole."""

SECTION_SHARES_CHUNK_BYTES: Final = 32 * 1024
"""A layer's metadata begins a chunk of its own unless the one before fills less than this of its last."""

_FOLDERS_AS_SUCH: Final = (b"dev", b"proc", b"sys", b"tmp")
"""What a sandbox mounts over; a link or a file there would send the mount elsewhere."""
_FOLDERS: Final = (b"opt", b"run", b"var/task", b"var/runtime", b"var/lang")
_FILES_AS_SUCH: Final = (b"etc/hostname", b"etc/hosts", b"etc/resolv.conf")


class Finished(msgspec.Struct, frozen=True):
    """An image whose every chunk was handed over."""

    size_bytes: int
    files: int
    user: User | None


class ImageWriter:
    """``add_layer`` for each layer, lowest first, then ``finish``; chunks go to ``chunks`` on the way.

    The same layers give the same chunks, everywhere. Raises LayerRefused.
    """

    def __init__(self, chunks: ChunkWriter, *, block_bytes: int = BLOCK_BYTES) -> None:
        self._chunks = chunks
        self._block_bytes = block_bytes
        self._tree = Tree()
        self._metadata = Metadata(self._tree.root, start=METADATA_START, block_bytes=block_bytes)
        self._accounts = AccountFiles()
        self._end = DATA_START
        self._files = 0

    def add_layer(self, descriptor: int, size_bytes: int) -> None:
        """Merge the tar in ``descriptor`` and write its files' data."""
        stored: list[Stored] = []
        for entry in TarReader(descriptor, size_bytes):
            node = self._tree.apply(entry)
            if node is not None:
                self._accounts.offer(entry.path, node, descriptor, entry.segments)
                stored.append(stored_file(self._tree.new[-1][0], node, entry.segments, entry.sparse))
        stored.sort(key=lambda file: file.path)
        self._end = lay_out(stored, self._end, self._block_bytes)
        self._close_section()
        for address, offset, length in writes(stored, self._block_bytes):
            self._chunks.copy(address, descriptor, offset, length)
        self._chunks.flush()

    def finish(self, user: str) -> Finished:
        """Add what a sandbox needs to find, write the metadata, and say who ``user`` is."""
        for path in _FOLDERS_AS_SUCH:
            there = self._tree.root.children or {}
            if path not in there or not there[path].is_folder:
                self._tree.replace(path, folder(0o1777 if path == b"tmp" else 0o755))
        for path in _FOLDERS:
            self._tree.add_missing(path, folder())
        for path in _FILES_AS_SUCH:
            there = self._tree.find(path, follow_last=False)
            if there is None or not there.is_file:
                self._tree.replace(path, Node(mode=stat.S_IFREG | 0o644))
        self._close_section()
        resolved = self._accounts.resolve(user, self._tree.find)
        for address, piece in self._metadata.pieces():
            self._chunks.put(address, piece)
        self._chunks.flush()
        self._chunks.put(SUPERBLOCK_OFFSET, self._metadata.superblock(self._end))
        self._chunks.flush()
        return Finished(self._end, self._files, resolved)

    def _close_section(self) -> None:
        tree, metadata = self._tree, self._metadata
        filled_bytes = metadata.end % CHUNK_BYTES
        gap_bytes = CHUNK_BYTES - filled_bytes if filled_bytes >= SECTION_SHARES_CHUNK_BYTES else 0
        # Folders first, with their entries: they are all that a later layer changes in place.
        new = sorted(tree.new, key=lambda each: (each[1] is not tree.root, each[0]))
        changed = sorted(tree.changed.values(), key=lambda node: node.inode)
        if new or changed:
            folders = (node for _, node in new if node.is_folder)
            metadata.add_section(folders, changed, at=metadata.end + gap_bytes)
            metadata.add_section(node for _, node in new if not node.is_folder)
        if metadata.end > DATA_START:
            raise LayerRefused("too_big", "the image has too many files with too long names")
        self._files += len(new)
        tree.end_layer()
