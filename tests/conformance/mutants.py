"""Strange values for each member that the model of an operation knows, however deep. Pure and in fixed order."""

import copy
import string
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from tests.conformance.raw import model

Path = tuple[str | int, ...]

DEPTH_MAX = 6
MISSING = object()

NESTED: Any = []
for _ in range(80):
    NESTED = [NESTED]

ANYTHING: tuple[Any, ...] = (
    MISSING,
    None,
    True,
    -1,
    1.5,
    2**63,
    "",
    "a\0b",
    [],
    {},
    [None],
    {"Unknown": {"a": 1}},
)
"""What every member is given."""
AT_THE_TOP: tuple[Any, ...] = (
    *(0, 2**31, -(2**63) - 1, 1e308, 10**400, False, " ", "\n", "null", "-1", "%00", "../..", "a" * 70_000),
    *(
        "\u202e\U0001f600ü",
        "\ud800",
        "arn:aws:lambda",
        "$LATEST",
        "'; --",
        "\U000e0041",
        NESTED,
        {"": ""},
        [[{}]],
    ),
)
"""What members that are not inside others are given as well, where the operation may write."""
READS = ("Get", "List", "Describe", "Filter")


def mutants(service: str, operation: str, base: dict[str, Any]) -> Iterator[tuple[Path, Any, dict[str, Any]]]:
    """The path of a member, the value it has instead of its own, and all members then."""
    shapes = model(service)["shapes"]
    shape = model(service)["operations"][operation]["input"]["shape"]
    for path, name in _members(shapes, shape, (), frozenset()):
        values = (*ANYTHING, *_of_its_kind(shapes, name))
        if len(path) == 1 and not operation.startswith(READS):
            values = (*values, *AT_THE_TOP)
        for value in values:
            members = _changed(base, path, value)
            if members is not None:
                yield path, value, members
    yield ("Unknown",), 1, {**base, "Unknown": {"Member": [1]}, "__proto__": {}}


def _members(
    shapes: dict[str, Any], name: str, path: Path, above: frozenset[str]
) -> Iterator[tuple[Path, str]]:
    """All members below a shape, with their shapes."""
    if path:
        yield path, name
    shape = shapes[name]
    if name in above or len(path) >= DEPTH_MAX:
        return
    match shape["type"]:
        case "structure":
            for member, reference in shape["members"].items():
                yield from _members(shapes, reference["shape"], (*path, member), above | {name})
        case "list":
            yield from _members(shapes, shape["member"]["shape"], (*path, 0), above | {name})
        case "map":
            yield from _members(shapes, shape["value"]["shape"], (*path, "key"), above | {name})


def _changed(base: dict[str, Any], path: Path, value: Any) -> dict[str, Any] | None:
    """The members with another value at ``path``, made on the way where the base has nothing; None: as before."""
    members: Any = copy.deepcopy(base)
    place = members
    for step, following in pairwise(path):
        place = _below(place, step, following)
    last = path[-1]
    if value is MISSING:
        if isinstance(place, list) or last not in place:
            return None
        del place[last]
    elif isinstance(place, list):
        place[:1] = [value]
    else:
        place[last] = value
    return members


def _below(place: Any, step: str | int, following: str | int) -> Any:
    empty: Any = [] if isinstance(following, int) else {}
    if isinstance(place, list):
        if not place:
            place.append(empty)
        elif not isinstance(place[0], type(empty)):
            place[0] = empty
        return place[0]
    if not isinstance(place.get(step), type(empty)):
        place[step] = empty
    return place[step]


def _of_its_kind(shapes: dict[str, Any], name: str) -> Iterator[Any]:
    """Values of a shape's type at and just over its bounds."""
    shape = shapes[name]
    low, high = shape.get("min"), shape.get("max")
    match shape["type"]:
        case "integer" | "long":
            yield from (1, 2, 7)
            yield from (bound + step for bound in (low, high) if bound is not None for step in (-1, 0, 1))
        case "double" | "float":
            yield from (0.0, 0.5, 1, -0.1, 1e-320)
        case "boolean":
            yield from ("true", "TRUE", 0)
        case "timestamp":
            yield from (0, -1e18, 1e18, "yesterday", "2026-01-01T00:00:00Z", 253402300800)
        case "blob":
            yield from ("====", "not base64!", "YQ", "YWJj", "UEsDBA==")
        case "string":
            yield from _texts(shape, low, high)
        case "list":
            yield from _lists(shapes, shape, low, high)
        case "map":
            yield from ({"": "x"}, {"a b": "x"}, {"aws:x": "y"}, {"k": None}, {"k": []}, {"k" * 300: "v"})
            yield {f"k{n}": "v" for n in range((high or 60) + 1)}
        case _:
            return


def _texts(shape: dict[str, Any], low: int | None, high: int | None) -> Iterator[str]:
    yield from ("x", "x y", "ü", "x\n", "x:y", "*")
    if low:
        yield "x" * (low - 1)
    if high and high < 200_000:
        yield from ("x" * high, "x" * (high + 1))
    for value in shape.get("enum", ())[:4]:
        yield from (value, value.swapcase())


def _lists(shapes: dict[str, Any], shape: dict[str, Any], low: int | None, high: int | None) -> Iterator[Any]:
    element = shapes[shape["member"]["shape"]]
    sample: Any = "x" if element["type"] == "string" else {}
    if element.get("enum"):
        sample = element["enum"][0]
    yield from ([sample, sample], [sample, None], [1, sample], "x", [string.printable])
    if high is not None and high < 2000:
        yield [f"x{n}" if sample == "x" else sample for n in range(high + 1)]
    if low:
        yield [sample] * (low - 1)
