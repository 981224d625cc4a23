"""Who an image's USER is, in numbers, by the image's own /etc/passwd and /etc/group."""

import os
from collections.abc import Callable, Sequence

import msgspec

from stoker.packaging.erofs.nodes import Node
from stoker.packaging.flatten.limits import invalid
from stoker.packaging.flatten.sparse import Segment

FILE_MAX_BYTES = 1024 * 1024
FILES_MAX = 64
_ID_MAX = 0xFFFF_FFFE
_NAMES = (b"passwd", b"group")


class User(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """As ImageUser, which is what becomes of it."""

    uid: int
    gid: int
    home: str


class AccountFiles:
    """Keeps what may turn out to be /etc/passwd and /etc/group while layers pass by."""

    def __init__(self) -> None:
        self._kept: list[tuple[Node, bytes]] = []

    def offer(self, path: bytes, node: Node, descriptor: int, segments: Sequence[Segment]) -> None:
        """A file of a layer, while its bytes can be read."""
        name = path.rpartition(b"/")[2]
        if name not in _NAMES or not 0 < node.size_bytes <= FILE_MAX_BYTES or len(segments) != 1:
            return
        if len(self._kept) >= FILES_MAX:
            del self._kept[0]
        self._kept.append((node, os.pread(descriptor, node.size_bytes, segments[0][1])))

    def resolve(self, user: str, find: Callable[[bytes], Node | None]) -> User | None:
        """``NAME``, ``UID``, either with ``:GROUP`` or ``:GID``; None for nobody in particular and for root.

        Raises:
            LayerRefused: there is no such user or group.
        """
        if not user:
            return None
        name, _, group = user.partition(":")
        account = _account(self._lines(find(b"/etc/passwd")), name)
        if account is None:
            if not _is_id(name):
                raise invalid(f"the image's user {name[:100]!r} is not in its /etc/passwd")
            account = User(int(name), 0, "/")
        gid = self._group(group, find) if group else account.gid
        return None if account.uid == 0 else User(account.uid, gid, account.home)

    def _group(self, group: str, find: Callable[[bytes], Node | None]) -> int:
        for fields in self._lines(find(b"/etc/group")):
            if len(fields) >= 3 and fields[0] == group and _is_id(fields[2]):
                return int(fields[2])
        if not _is_id(group):
            raise invalid(f"the image's group {group[:100]!r} is not in its /etc/group")
        return int(group)

    def _lines(self, node: Node | None) -> list[list[str]]:
        for kept, content in reversed(self._kept):
            if kept is node:
                return [line.split(":") for line in content.decode("utf-8", "replace").splitlines()]
        return []


def _account(lines: list[list[str]], name: str) -> User | None:
    """By name, or by number for the sake of group and home."""
    numbered = _is_id(name)
    for fields in lines:
        if len(fields) < 6 or not (_is_id(fields[2]) and _is_id(fields[3])):
            continue
        if fields[0] == name or (numbered and int(fields[2]) == int(name)):
            home = fields[5] if fields[5].startswith("/") and len(fields[5]) < 4096 else "/"
            return User(int(fields[2]), int(fields[3]), home)
    return None


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= _ID_MAX
