"""Every operation that is served, each of its members made strange: never a failure of the server, never a
write refused and yet made, and every refusal as the protocol has it."""

from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conformance.mutants import mutants
from tests.conformance.raw import model
from tests.conformance.rows import NAME, ROWS
from tests.conformance.world import World, operations

EXAMPLES = 100
DEPTH_MAX = 4
PROBLEMS_SHOWN = 12


def test_every_operation_that_is_served_has_a_row() -> None:
    rows = {(service, operation) for service, table in ROWS.items() for operation in table}
    assert rows == set(operations())


@pytest.mark.parametrize(("service", "operation"), operations(), ids=map("-".join, operations()))
def test_each_member_made_strange(world: World, service: str, operation: str) -> None:
    problems: list[str] = []
    for path, value, members in mutants(service, operation, ROWS[service][operation].members):
        problem = world.ask(service, operation, members)
        if problem is not None:
            shown = repr(value)[:60]
            problems.append(f"{'.'.join(map(str, path))} = {shown}: {problem[:400]}")
    assert not problems, "\n" + "\n".join(problems[:PROBLEMS_SHOWN]) + f"\n{len(problems)} in all"


STRANGE_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**65), 2**65)
    | st.floats(allow_nan=True)
    | st.text(max_size=20)
    | st.text("abAZ09$:/*-_.%", max_size=90)
)
STRANGE = st.recursive(
    STRANGE_SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@cache
def shaped(service: str, name: str, depth: int = 0) -> st.SearchStrategy[Any]:
    """Values of a shape: of its kind, or anything. Kept, because making them takes longer than drawing."""
    shape = model(service)["shapes"][name]
    if depth > DEPTH_MAX:
        return STRANGE
    match shape["type"]:
        case "structure":
            members = {n: shaped(service, each["shape"], depth + 1) for n, each in shape["members"].items()}
            kind: st.SearchStrategy[Any] = st.fixed_dictionaries({}, optional=members)
        case "list":
            kind = st.lists(shaped(service, shape["member"]["shape"], depth + 1), max_size=3)
        case "map":
            element = shaped(service, shape["value"]["shape"], depth + 1)
            kind = st.dictionaries(st.text(max_size=9), element, max_size=3)
        case "integer" | "long":
            kind = st.integers(shape.get("min", -5) - 1, shape.get("max", 2000) + 1)
        case "boolean":
            kind = st.booleans()
        case _:
            kind = st.sampled_from(shape.get("enum", ["x", NAME, "1"])) | st.text(max_size=40)
    return kind | STRANGE_SCALARS


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, str, dict[str, Any]]:
    """An operation and its members, some of them strange together."""
    service, operation = draw(st.sampled_from(operations()))
    shapes = model(service)["shapes"]
    known = shapes[model(service)["operations"][operation]["input"]["shape"]]["members"]
    members = dict(ROWS[service][operation].members)
    for member in draw(st.lists(st.sampled_from(sorted(known) or ["None"]), min_size=1, max_size=4)):
        if member in known:
            members[member] = draw(shaped(service, known[member]["shape"]))
    return service, operation, members


def test_several_members_made_strange(world: World) -> None:
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(requests())
    def check(request: tuple[str, str, dict[str, Any]]) -> None:
        assert world.ask(*request) is None

    check()
