"""Layers merged into one tree, in order: whiteouts, hard links, what replaces what. Touches no file system.

Parents that are symbolic links are followed as a container runtime does, within the image: there is no way
out of a tree that is made of these nodes alone.
"""

import stat

from stoker.packaging.erofs.nodes import Node, folder
from stoker.packaging.erofs.records import xattrs_of
from stoker.packaging.flatten import limits, tar
from stoker.packaging.flatten.limits import LayerRefused, invalid
from stoker.packaging.flatten.paths import Parts, parts_of

WHITEOUT = b".wh."
OPAQUE = b".wh..wh..opq"
_AUFS_OWN = b".wh..wh."

_TYPES = {
    tar.FILE: stat.S_IFREG,
    tar.FOLDER: stat.S_IFDIR,
    tar.SYMLINK: stat.S_IFLNK,
    tar.FIFO: stat.S_IFIFO,
}


class Tree:
    """The image so far. ``apply`` every entry of a layer, take ``new`` and ``changed``, ``end_layer``."""

    def __init__(self) -> None:
        self.root = folder(0o755)
        self.new: list[tuple[bytes, Node]] = [(b"", self.root)]
        """Inodes of this layer with their paths."""
        self.changed: dict[int, Node] = {}
        """Folders of earlier layers whose names this layer changed, by identity."""
        self._layer = 1
        """A node of this layer has it for its mark."""
        self.root.mark = 1
        self._listed: set[int] = set()
        self._linked: dict[tuple[int, bytes], dict[bytes, Node]] = {}
        self._entries = self._names_bytes = self._xattrs_bytes = 0
        self._apparent_bytes = 0
        self._recent: tuple[Parts, Node] | None = None
        """The folder that the last entry went into, as long as nothing else but new names changed."""

    def end_layer(self) -> None:
        """What was new is not any more."""
        self._recent = None
        self.new, self.changed = [], {}
        self._listed, self._linked = set(), {}
        self._layer += 1

    def apply(self, entry: tar.Entry) -> Node | None:
        """Take one entry in; the file's new node when it has data.

        Raises:
            LayerRefused: what no image may be, or more than one may be.
        """
        self._count(entry)
        parts = parts_of(entry.path)
        name = parts[-1] if parts else b""
        if name.startswith(WHITEOUT):
            self._whiteout(parts, name)
            return None
        if entry.kind == tar.DEVICE:
            if parts[:1] != (b"dev",):
                raise invalid(f"{entry.path[:100]!r} is a device")
            return None
        if not parts:
            if entry.kind != tar.FOLDER:
                raise invalid("the root is not a folder")
            self._attributes(self.root, entry)
            return None
        parent = self._parent(parts)
        if entry.kind == tar.HARDLINK:
            self._link(parent, name, entry)
            return None
        if entry.kind == tar.FOLDER:
            self._folder(parent, parts, entry)
            return None
        node = self._made(entry)
        self._put(parent, name, node, b"/".join(parts))
        return node if entry.kind == tar.FILE and entry.size_bytes else None

    def find(self, path: bytes, *, follow_last: bool = True) -> Node | None:
        """What is at a path, links on the way followed; None: nothing, or too many links."""
        try:
            return self._walk(parts_of(path), make=False, follow_last=follow_last)
        except LayerRefused:
            return None

    def add_missing(self, path: bytes, node: Node) -> None:
        """Put a node where nothing is, parents too."""
        parts = parts_of(path)
        parent = self._parent(parts)
        assert parent.children is not None
        if parts[-1] not in parent.children:
            self._put(parent, parts[-1], node, path)

    def replace(self, path: bytes, node: Node) -> None:
        """Put a node in the place of whatever is there."""
        parts = parts_of(path)
        self._put(self._parent(parts), parts[-1], node, path)

    def _count(self, entry: tar.Entry) -> None:
        self._entries += 1
        self._names_bytes += len(entry.path) + len(entry.link)
        self._xattrs_bytes += sum(len(name) + len(value) for name, value in entry.xattrs)
        self._apparent_bytes += entry.size_bytes
        if self._entries > limits.ENTRIES_MAX:
            raise LayerRefused("too_big", f"the image has over {limits.ENTRIES_MAX} files")
        if self._apparent_bytes > limits.UNCOMPRESSED_MAX_BYTES:
            raise LayerRefused(
                "too_big", f"the image has over {limits.UNCOMPRESSED_MAX_BYTES} bytes of files"
            )
        if self._names_bytes > limits.NAMES_TOTAL_MAX_BYTES:
            raise LayerRefused("too_big", "the names of the image's files are too long, all together")
        if self._xattrs_bytes > limits.XATTRS_TOTAL_MAX_BYTES:
            raise LayerRefused("too_big", "the image's extended attributes are too much, all together")

    def _made(self, entry: tar.Entry) -> Node:
        link = b""
        if entry.kind == tar.SYMLINK:
            link = entry.link
            if not 0 < len(link) <= limits.LINK_MAX_BYTES or b"\0" in link:
                raise invalid(f"{entry.path[:100]!r} is a link of {len(link)} bytes")
        return Node(
            mode=_TYPES[entry.kind] | (0o777 if entry.kind == tar.SYMLINK else entry.mode),
            uid=entry.uid,
            gid=entry.gid,
            mtime_s=entry.mtime_s,
            mtime_ns=entry.mtime_ns,
            size_bytes=entry.size_bytes,
            link=link,
            xattrs=entry.xattrs,
            children={} if entry.kind == tar.FOLDER else None,
        )

    def _put(self, parent: Node, name: bytes, node: Node, path: bytes) -> None:
        self.new.append((path, node))
        node.mark = self._layer
        assert parent.children is not None
        if name in parent.children:
            self._recent = None
        parent.children[name] = node
        self._touch(parent)

    def _touch(self, parent: Node) -> None:
        if parent.mark != self._layer:
            self.changed[id(parent)] = parent

    def _link(self, parent: Node, name: bytes, entry: tar.Entry) -> None:
        target = self._walk(parts_of(entry.link), make=False, follow_last=False)
        if target is None or target.is_folder:
            raise invalid(f"{entry.path[:100]!r} is a hard link to {entry.link[:100]!r}, which is no file")
        assert parent.children is not None
        self._recent = None
        parent.children[name] = target
        self._linked[id(parent.children), name] = parent.children
        self._touch(parent)

    def _folder(self, parent: Node, parts: Parts, entry: tar.Entry) -> None:
        assert parent.children is not None
        there = parent.children.get(parts[-1])
        if there is None or not there.is_folder:
            self._put(parent, parts[-1], self._made(entry), entry.path)
            return
        if there.mark == self._layer or len(xattrs_of(there)) == len(xattrs_of(_with_xattrs(entry))):
            self._attributes(there, entry)
            return
        # Its inode would not fit where the earlier one lies: a new one takes over what is in it.
        moved = self._made(entry)
        moved.children = there.children
        self._put(parent, parts[-1], moved, entry.path)

    def _attributes(self, node: Node, entry: tar.Entry) -> None:
        self._listed.add(id(node))
        if node is self.root and node.mark != self._layer:
            # The root's inode is where it is; attributes of another length do not fit there.
            if len(xattrs_of(node)) == len(xattrs_of(_with_xattrs(entry))):
                node.xattrs = entry.xattrs
        else:
            node.xattrs = entry.xattrs
        node.mode = stat.S_IFDIR | entry.mode
        node.uid, node.gid = entry.uid, entry.gid
        node.mtime_s, node.mtime_ns = entry.mtime_s, entry.mtime_ns

    def _whiteout(self, parts: Parts, name: bytes) -> None:
        self._recent = None
        parent = self._walk(parts[:-1], make=False, follow_last=True)
        if name == OPAQUE:
            if parent is not None and parent.is_folder:
                self._prune(parent)
            return
        if name.startswith(_AUFS_OWN):
            return
        hidden = name[len(WHITEOUT) :]
        if hidden in (b"", b".", b".."):
            raise invalid(f"a whiteout of {hidden!r}")
        if parent is None or parent.children is None or hidden not in parent.children:
            return
        if not self._stays(parent.children, hidden):
            del parent.children[hidden]
            self._touch(parent)

    def _prune(self, node: Node) -> None:
        """Take what earlier layers put there away, and leave what this one did."""
        waiting = [node]
        order: list[Node] = []
        while waiting:
            each = waiting.pop()
            order.append(each)
            waiting.extend(child for child in (each.children or {}).values() if child.is_folder)
        for each in reversed(order):
            assert each.children is not None
            gone = [name for name in each.children if not self._is_of_this_layer(each.children, name)]
            for name in gone:
                del each.children[name]
            if gone:
                self._touch(each)

    def _stays(self, children: dict[bytes, Node], name: bytes) -> bool:
        node = children[name]
        if node.is_folder:
            self._prune(node)
        return self._is_of_this_layer(children, name)

    def _is_of_this_layer(self, children: dict[bytes, Node], name: bytes) -> bool:
        node = children[name]
        return (
            node.mark == self._layer
            or id(node) in self._listed
            or (id(children), name) in self._linked
            or bool(node.children)
        )

    def _parent(self, parts: Parts) -> Node:
        if self._recent is not None and self._recent[0] == parts[:-1]:
            return self._recent[1]
        node = self._walk(parts[:-1], make=True, follow_last=True)
        assert node is not None
        if not node.is_folder:
            raise invalid(f"{b'/'.join(parts)[:100]!r} is below what is no folder")
        self._recent = (parts[:-1], node)
        return node

    def _walk(self, parts: Parts, *, make: bool, follow_last: bool) -> Node | None:
        """From the root down, links followed as if the root were the whole world.

        ``make``: folders that are missing, or hidden by a file of an earlier layer.
        """
        trail = [self.root]
        waiting = list(reversed(parts))
        links = 0
        while waiting:
            name = waiting.pop()
            if name == b"..":
                trail = trail[:-1] or trail
                continue
            node = self._step(trail, name, make=make)
            if node is None:
                return None
            if stat.S_ISLNK(node.mode) and (waiting or follow_last):
                links += 1
                if links > limits.LINKS_FOLLOWED_MAX or len(waiting) > limits.PATH_MAX_BYTES:
                    raise invalid(f"too many links on the way to {b'/'.join(parts)[:100]!r}")
                trail = trail[:1] if node.link.startswith(b"/") else trail
                waiting.extend(each for each in reversed(node.link.split(b"/")) if each not in (b"", b"."))
                continue
            trail.append(node)
            if len(trail) > 2 * limits.DEPTH_MAX:
                raise invalid(f"{b'/'.join(parts)[:100]!r} is too deep")
        return trail[-1]

    def _step(self, trail: list[Node], name: bytes, *, make: bool) -> Node | None:
        children = trail[-1].children
        node = None if children is None else children.get(name)
        if children is None:
            if not make:
                return None
            raise invalid(f"{name[:100]!r} is below what is no folder")
        if node is not None and (node.is_folder or stat.S_ISLNK(node.mode) or not make):
            return node
        if not make:
            return None
        if node is not None and (node.mark == self._layer or (id(children), name) in self._linked):
            raise invalid(f"{name[:100]!r} is a file and a folder")
        if len(name) > limits.NAME_MAX_BYTES:
            raise invalid(f"a name of {len(name)} bytes")
        made = folder()
        self._put(trail[-1], name, made, name)
        return made


def _with_xattrs(entry: tar.Entry) -> Node:
    return Node(mode=stat.S_IFDIR, xattrs=entry.xattrs)
