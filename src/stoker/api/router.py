"""Method and path to operation, over the URI templates of the model. Pure.

Paths are matched as they came, still percent-encoded: an escaped slash stays part of its segment, and empty
or dot segments match nothing.
"""

from collections.abc import Iterable

import msgspec

from stoker.api.model import Operation


class Match(msgspec.Struct, frozen=True):
    """The operation, and its URI parameters by template name, still percent-encoded."""

    operation: Operation
    parameters: dict[str, bytes]


class _Leaf(msgspec.Struct, eq=False):
    operation: Operation
    names: tuple[str, ...]
    literal: bytes
    """What a template demands of the query (``find=LayerVersion``); empty for most."""


class _Node(msgspec.Struct, eq=False):
    literals: dict[bytes, "_Node"]
    variable: "_Node | None"
    leaves: dict[bytes, list[_Leaf]]


def _new_node() -> _Node:
    return _Node({}, None, {})


class Router:
    """A tree of path segments; literals go before variables."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        self._root = _new_node()
        for operation in operations:
            self._add(operation)

    def _add(self, operation: Operation) -> None:
        path, _, literal = operation.uri.partition("?")
        node = self._root
        names: list[str] = []
        for segment in path.strip("/").split("/"):
            if segment.startswith("{"):
                names.append(segment.strip("{}+"))
                node.variable = node.variable or _new_node()
                node = node.variable
            else:
                node = node.literals.setdefault(segment.encode(), _new_node())
        leaves = node.leaves.setdefault(operation.method, [])
        leaves.append(_Leaf(operation, tuple(names), literal.encode()))
        leaves.sort(key=lambda leaf: not leaf.literal)

    def match(self, method: bytes, path: bytes, query: bytes) -> Match | None:
        """The operation for a request, or None. One trailing slash is allowed, as older clients send it."""
        if not path.startswith(b"/"):
            return None
        segments = path[1:].removesuffix(b"/").split(b"/")
        values: list[bytes] = []
        leaves = _find(self._root, segments, 0, method, values)
        for leaf in leaves:
            if not leaf.literal or leaf.literal in query.split(b"&"):
                return Match(leaf.operation, dict(zip(leaf.names, values, strict=True)))
        return None


def _find(
    node: _Node, segments: list[bytes], position: int, method: bytes, values: list[bytes]
) -> list[_Leaf]:
    if position == len(segments):
        return node.leaves.get(method, [])
    segment = segments[position]
    literal = node.literals.get(segment)
    if literal is not None:
        found = _find(literal, segments, position + 1, method, values)
        if found:
            return found
    if node.variable is not None and segment not in (b"", b".", b".."):
        values.append(segment)
        found = _find(node.variable, segments, position + 1, method, values)
        if found:
            return found
        values.pop()
    return []
