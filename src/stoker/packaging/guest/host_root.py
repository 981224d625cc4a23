"""A runtime root made of the host's own interpreters, what they load, and a few programs beside them.

Reads the host only. The model is what a container sees of it (native/jail/template.c).
"""

import os
import stat
from pathlib import Path

from stoker.core.errors import StokerError
from stoker.packaging.erofs.image import build_image
from stoker.packaging.erofs.nodes import Node, folder
from stoker.packaging.guest.elf import needs_of
from stoker.packaging.guest.folder_image import BLOCK_BYTES

PROGRAMS = (
    "bash", "cat", "cp", "cut", "date", "dirname", "basename", "echo", "env", "false", "find", "grep", "head",
    "id", "ln", "ls", "mkdir", "mktemp", "mv", "printf", "readlink", "rm", "rmdir", "sed", "sh", "sleep",
    "sort", "stat", "tail", "test", "touch", "tr", "true", "uname", "uniq", "wc", "xargs", "curl", "openssl",
    "node", "nodejs", "python3.8", "python3.9", "python3.10", "python3.11", "python3.12", "python3.13",
    "python3.14",
    "python3",
)  # fmt: skip
"""Those of them that the host has, from /usr/bin and /usr/local/bin."""

FOLDERS = (
    "/etc/ssl/certs", "/etc/alternatives", "/usr/share/zoneinfo", "/usr/share/ca-certificates",
    "/usr/share/nodejs", "/usr/lib/locale/C.utf8",
    *(f"/usr/lib/python3.{minor}" for minor in range(8, 15)),
    *(f"/usr/local/lib/python3.{minor}" for minor in range(8, 15)),
)  # fmt: skip
FILES = (
    "/etc/os-release",
    "/etc/ssl/openssl.cnf",
    "/etc/protocols",
    "/etc/services",
    "/etc/mime.types",
    "/etc/gai.conf",
)
EMPTY = (
    "/etc", "/var/empty", "/var/task/lib", "/var/runtime/lib", "/var/codecache", "/var/lang/lib", "/opt/lib",
    "/home", "/run", "/sys", "/proc", "/dev", "/tmp", "/root",
)  # fmt: skip
LIBRARY_FOLDERS = (
    "/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/usr/local/lib", "/lib",
    "/usr/lib",
)  # fmt: skip
LOADED_LATER = ("libgcc_s.so.1", "libnss_files.so.2", "libnss_dns.so.2")
TEXTS = {
    "/etc/passwd": "root:x:0:0:root:/root:/sbin/nologin\n"
    "sbx_user1051:x:993:990::/home/sbx_user1051:/sbin/nologin\n"
    "nobody:x:65534:65534:nobody:/:/sbin/nologin\n",
    "/etc/group": "root:x:0:\nsbx_user1051:x:990:\nnobody:x:65534:\n",
    "/etc/nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\n"
    "protocols: files\nservices: files\nethers: files\nrpc: files\n",
}
LINKS = {"/etc/localtime": "/usr/share/zoneinfo/UTC", "/etc/mtab": "/proc/self/mounts"}
LEFT_OUT = frozenset(
    {"__pycache__", "test", "idlelib", "ensurepip", "lib2to3", "dist-packages", "turtledemo"}
)
"""Below Python's own library: what no function needs, or what would differ from one build to the next."""

FILE_BYTES_MAX = 512 * 1024 * 1024


class HostUnusable(StokerError):
    """A root cannot be made of this host."""


class _Root:
    def __init__(self) -> None:
        self.root = folder()
        self.contents: dict[int, Path | bytes] = {}
        self._seen: set[str] = set()
        self._libraries: set[str] = set()

    def folder_at(self, path: str) -> Node:
        node = self.root
        for part in Path(path).parts[1:]:
            assert node.children is not None
            node = node.children.setdefault(part.encode(), folder())
            if node.children is None:
                raise HostUnusable(f"{path} leads through what is no folder")
        return node

    def text(self, path: str, content: bytes) -> None:
        node = Node(mode=stat.S_IFREG | 0o644, size_bytes=len(content))
        self.contents[id(node)] = content
        self._put(path, node)

    def link(self, path: str, target: str) -> None:
        link = target.encode()
        self._put(path, Node(mode=stat.S_IFLNK | 0o777, link=link, size_bytes=len(link)))

    def take(self, path: str) -> None:
        """A file of the host under its name; links on the way to it, and at its end, are taken as links."""
        if path in self._seen:
            return
        self._seen.add(path)
        above, name = os.path.split(path)
        real_above = self._take_way(above)
        if real_above != above:
            self.take(f"{real_above}/{name}")
            return
        status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode):
            target = os.readlink(path)
            self.link(path, target)
            led_to = os.path.normpath(os.path.join(above, target))
            if os.path.lexists(led_to) and not os.path.isdir(led_to):
                self.take(led_to)
        elif stat.S_ISREG(status.st_mode) and status.st_size <= FILE_BYTES_MAX:
            self._take_file(path, status)

    def _take_way(self, above: str) -> str:
        """Merged hosts have /lib as a link to usr/lib: it is one here too. Where the folder really is."""
        at = ""
        for part in Path(above).parts[1:]:
            at = f"{at}/{part}"
            if os.path.islink(at):
                if at not in self._seen:
                    self._seen.add(at)
                    self.link(at, os.readlink(at))
                at = os.path.realpath(at)
        return at

    def _take_file(self, path: str, status: os.stat_result) -> None:
        node = Node(
            mode=stat.S_IFREG | (0o755 if status.st_mode & 0o111 else 0o644), size_bytes=status.st_size
        )
        self.contents[id(node)] = Path(path)
        self._put(path, node)
        with open(path, "rb") as file:
            if file.read(4) != b"\x7fELF":
                return
        needs = needs_of(Path(path).read_bytes())
        if needs is None:
            return
        if needs.loader:
            self.take(needs.loader)
        origin = os.path.dirname(path)
        folders = [each.replace("$ORIGIN", origin) for each in needs.folders]
        for library in needs.libraries:
            self.library(library, folders)

    def library(self, name: str, folders: list[str]) -> None:
        if name in self._libraries:
            return
        self._libraries.add(name)
        for above in (*folders, *LIBRARY_FOLDERS):
            if os.path.exists(f"{above}/{name}"):
                self.take(f"{above}/{name}")
                return

    def tree(self, path: str) -> None:
        for above, folders, files in os.walk(path):
            folders[:] = sorted(each for each in folders if each not in LEFT_OUT)
            self.folder_at(self._take_way(above))
            for name in sorted([*files, *(each for each in folders if os.path.islink(f"{above}/{each}"))]):
                self.take(f"{above}/{name}")

    def _put(self, path: str, node: Node) -> None:
        above, name = os.path.split(path)
        children = self.folder_at(above).children
        assert children is not None
        children[name.encode()] = node


def write_host_root(image: int) -> int:
    """Write the root into the empty file ``image``; returns its bytes.

    Raises:
        HostUnusable, OSError
    """
    made = _Root()
    for path in EMPTY:
        made.folder_at(path)
    _take_from_host(made)
    for path, content in TEXTS.items():
        made.text(path, content.encode())
    for path, target in LINKS.items():
        made.link(path, target)
    layout = build_image(made.root, block_bytes=BLOCK_BYTES)
    os.ftruncate(image, layout.size_bytes)
    os.pwrite(image, layout.head, 0)
    for node in layout.files:
        content = made.contents[id(node)]
        data = content if isinstance(content, bytes) else content.read_bytes()
        if len(data) != node.size_bytes:
            raise HostUnusable(f"{content!s} changed while it was read")
        os.pwrite(image, data, node.address)
    return layout.size_bytes


def _take_from_host(made: _Root) -> None:
    programs = [f"{above}/{name}" for above in ("/usr/bin", "/usr/local/bin") for name in PROGRAMS]
    for path in (*programs, "/bin/sh", *FILES):
        if os.path.exists(path):
            made.take(path)
    for path in FOLDERS:
        if os.path.isdir(path):
            made.tree(path)
    for name in LOADED_LATER:
        made.library(name, [])
