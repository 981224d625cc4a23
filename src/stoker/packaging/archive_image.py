"""Writes checked archives as one read-only file system image, without unpacking them. Runs in a packer.

Several archives are layers: later ones over earlier ones, as unpacking them one after the other would leave.
"""

import os
import stat
import zipfile
from collections.abc import Sequence
from typing import Final

import msgspec

from stoker.packaging.archive import ArchiveRefused, Member, Plan
from stoker.packaging.bytecode_tree import CACHE
from stoker.packaging.erofs.image import build_image
from stoker.packaging.erofs.nodes import Node, folder
from stoker.packaging.unpack import content_of, link_target, seconds_of

BLOCK_BYTES: Final = 512
"""Kernels before 6.4 mount only 4096, which doubles a tree of small files."""

Opened = tuple[zipfile.ZipFile, Plan]
Folder = dict[bytes, Node]


class _Content(msgspec.Struct, frozen=True):
    """Where a file's data comes from."""

    archive: zipfile.ZipFile
    member: Member


class _Tree:
    """The tree of all archives together, and whose data each file has."""

    def __init__(self) -> None:
        self.root = folder()
        self.contents: dict[int, _Content] = {}
        """By the identity of the node, which the tree keeps."""

    def add(self, archive: zipfile.ZipFile, plan: Plan) -> int:
        """Put an archive over what is there; returns the bytes of its links."""
        for parts in plan.directories:
            self._folder(parts).mtime_s = seconds_of(plan.times[parts]) if parts in plan.times else 0
        # Byte-code comes after all sources, so that what a source drops is an earlier archive's.
        for member in sorted(plan.files, key=lambda member: CACHE in member.parts):
            node = Node(
                mode=stat.S_IFREG | (0o755 if member.executable else 0o644),
                mtime_s=seconds_of(member.info.date_time),
                size_bytes=member.info.file_size,
            )
            self.contents[id(node)] = _Content(archive, member)
            self._place(member.parts, node)
        link_bytes = 0
        for member in plan.links:
            target = link_target(archive, member)
            link_bytes += len(target)
            node = Node(
                mode=stat.S_IFLNK | 0o777, mtime_s=seconds_of(member.info.date_time), size_bytes=len(target)
            )
            node.link = target
            self._place(member.parts, node)
        return link_bytes

    def _folder(self, parts: tuple[str, ...]) -> Node:
        node = self.root
        for part in parts:
            children = _children(node)
            below = children.get(part.encode())
            if below is None or not below.is_folder:
                below = children[part.encode()] = folder()
            node = below
        return node

    def _place(self, parts: tuple[str, ...], node: Node) -> None:
        children = _children(self._folder(parts[:-1]))
        name = parts[-1].encode()
        replaced = children.get(name)
        children[name] = node
        if replaced is not None and name.endswith(b".py"):
            _drop_bytecode(children, name)


def write_image(archives: Sequence[Opened], image: int) -> tuple[int, int]:
    """Write the image into the empty file ``image``; returns the unpacked bytes and the image's.

    Raises:
        ArchiveRefused: a member is not what the directory of its archive says.
        NotRepresentable, OSError: the host could not write it.
    """
    tree = _Tree()
    unpacked_bytes = sum(tree.add(*each) for each in archives)
    layout = build_image(tree.root, block_bytes=BLOCK_BYTES)
    os.ftruncate(image, layout.size_bytes)
    _write_at(image, layout.head, 0)
    for node in _files(tree.root):
        unpacked_bytes += _write_file(image, node, tree.contents[id(node)])
    return unpacked_bytes, layout.size_bytes


def _files(node: Node) -> list[Node]:
    found: list[Node] = []
    waiting = [node]
    while waiting:
        for child in _children(waiting.pop()).values():
            if child.is_folder:
                waiting.append(child)
            elif child.is_file:
                found.append(child)
    return found


def _write_file(image: int, node: Node, content: _Content) -> int:
    offset = 0
    for chunk in content_of(content.archive, content.member):
        if offset + len(chunk) > node.size_bytes:
            raise ArchiveRefused("malformed", f"{content.member.path!r} is longer than it says")
        _write_at(image, chunk, node.address + offset)
        offset += len(chunk)
    if offset != node.size_bytes:
        raise ArchiveRefused("malformed", f"{content.member.path!r} is shorter than it says")
    return offset


def _write_at(image: int, content: bytes, offset: int) -> None:
    view = memoryview(content)
    while view:
        written = os.pwrite(image, view, offset)
        view, offset = view[written:], offset + written


def _children(node: Node) -> Folder:
    assert node.children is not None
    return node.children


def _drop_bytecode(children: Folder, source: bytes) -> None:
    """Byte-code that an earlier archive has for the source that was replaced: an import may not check it."""
    cache = children.get(CACHE.encode())
    if cache is None or not cache.is_folder:
        return
    stem = source.removesuffix(b"py")
    names = _children(cache)
    for name in [name for name in names if name.startswith(stem) and name.endswith(b".pyc")]:
        del names[name]
