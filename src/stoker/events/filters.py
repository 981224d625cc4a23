"""Filter criteria of event source mappings, compiled once to predicates over records. Pure.

The grammar is the one that ``control`` accepts: EventBridge patterns as far as Lambda documents them.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, cast

import msgspec

Test = Callable[[Any], bool]
"""Of a value, or of ``MISSING``."""


class _Missing(msgspec.Struct, frozen=True):
    pass


MISSING: Final = _Missing()

_COMPARISONS: Final[dict[str, Callable[[float, float], bool]]] = {
    "=": lambda value, wanted: value == wanted,
    "<": lambda value, wanted: value < wanted,
    "<=": lambda value, wanted: value <= wanted,
    ">": lambda value, wanted: value > wanted,
    ">=": lambda value, wanted: value >= wanted,
}


def compile_filters(patterns: Sequence[str]) -> Test | None:
    """Whether a record matches any of the patterns; None: there are none, everything matches.

    ``patterns`` are well-formed, or ValueError is raised.
    """
    tests = [compile_pattern(msgspec.json.decode(pattern)) for pattern in patterns]
    if not tests:
        return None
    return lambda record: any(test(record) for test in tests)


def compile_text_filter(
    patterns: Sequence[str], member: str
) -> Callable[[dict[str, Any], str | None], bool] | None:
    """Whether a record with a text in ``member`` is kept; None: every one is. A text of None is no text.

    A text that is a JSON object is matched as such by patterns that want an object, one that is none as text
    by those that want text; the other two combinations never match (developer guide, filtering).
    """
    tests = [(_wants_object(pattern, member), cast(Test, compile_filters([pattern]))) for pattern in patterns]
    if not tests:
        return None

    def keeps(record: dict[str, Any], text: str | None) -> bool:
        decoded = MISSING if text is None else _object(text)
        as_object = {**record, member: decoded}
        as_text = {**record, member: text if text is not None and decoded is MISSING else MISSING}
        return any(test(as_object if wants_object else as_text) for wants_object, test in tests)

    return keeps


def _wants_object(pattern: str, member: str) -> bool:
    return not isinstance(msgspec.json.decode(pattern, type=dict[str, Any]).get(member), list)


def _object(text: str) -> Any:
    try:
        decoded: Any = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return MISSING
    return decoded if isinstance(decoded, dict) else MISSING  # pyright: ignore[reportUnknownVariableType]


def compile_pattern(pattern: Any) -> Test:
    """The predicate of one decoded pattern. Raises ValueError for what is none."""
    if not isinstance(pattern, dict):
        raise ValueError("a pattern is an object")
    fields = cast("dict[str, Any]", pattern)
    tests = [_field(name, rule) for name, rule in fields.items()]
    return lambda value: all(test(value) for test in tests)


def _field(name: str, rule: Any) -> Test:
    if (
        name == "$or"
        and isinstance(rule, list)
        and all(isinstance(one, dict) for one in cast("list[Any]", rule))
    ):
        alternatives = [compile_pattern(one) for one in cast("list[Any]", rule)]
        return lambda value: any(test(value) for test in alternatives)
    if isinstance(rule, dict):
        inner = compile_pattern(cast("dict[str, Any]", rule))
        return lambda value: any(inner(one) for one in _elements(_member(value, name)))
    if not isinstance(rule, list) or not rule:
        raise ValueError("a rule is a list")
    tests = [_rule(one) for one in cast("list[Any]", rule)]
    return lambda value: any(test(_member(value, name)) for test in tests)


def _rule(rule: Any) -> Test:
    if not isinstance(rule, dict):
        return _any_of_elements(lambda value: _same(value, rule))
    ((operator, operand),) = cast("dict[str, Any]", rule).items()
    if operator == "exists":
        # Only leaves exist (developer guide of EventBridge, exists matching).
        return lambda value: (value is not MISSING and not isinstance(value, dict)) == operand
    if operator == "anything-but":
        return _anything_but(operand)
    return _any_of_elements(_comparison(operator, operand))


def _anything_but(operand: Any) -> Test:
    """A value is there, and no element of it is among what is barred."""
    if isinstance(operand, dict):
        ((operator, inner),) = cast("dict[str, Any]", operand).items()
        barred = [_comparison(operator, inner)]
    else:
        listed = cast("list[Any]", operand) if isinstance(operand, list) else [operand]
        barred = [_equals(one) for one in listed]

    def matches(value: Any) -> bool:
        if value is MISSING or isinstance(value, dict):
            return False
        return not any(test(one) for one in _elements(value) for test in barred)

    return matches


def _comparison(operator: str, operand: Any) -> Test:
    match operator:
        case "prefix" | "suffix":
            return _affix(operator, operand)
        case "equals-ignore-case":
            folded = str(operand).casefold()
            return lambda value: isinstance(value, str) and value.casefold() == folded
        case "numeric":
            return _numeric(operand)
        case _:
            raise ValueError(f"unknown operator {operator!r}")


def _affix(operator: str, operand: Any) -> Test:
    caseless = isinstance(operand, dict)
    text = str(cast("dict[str, Any]", operand)["equals-ignore-case"]).casefold() if caseless else str(operand)
    begins = operator == "prefix"

    def matches(value: Any) -> bool:
        if not isinstance(value, str):
            return False
        shown = value.casefold() if caseless else value
        return shown.startswith(text) if begins else shown.endswith(text)

    return matches


def _numeric(operand: Any) -> Test:
    parts = cast("list[Any]", operand)
    pairs = [(_COMPARISONS[sign], wanted) for sign, wanted in zip(parts[::2], parts[1::2], strict=True)]
    return lambda value: _is_number(value) and all(compare(value, wanted) for compare, wanted in pairs)


def _equals(wanted: Any) -> Test:
    return lambda value: _same(value, wanted)


def _same(value: Any, wanted: Any) -> bool:
    """JSON's equality: true is not 1."""
    if isinstance(value, bool) or isinstance(wanted, bool):
        return value is wanted
    if _is_number(value) and _is_number(wanted):
        return value == wanted
    return type(value) is type(wanted) and value == wanted


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _any_of_elements(test: Test) -> Test:
    """Of an array, one element is enough."""
    return lambda value: any(test(one) for one in _elements(value))


def _elements(value: Any) -> Sequence[Any]:
    return cast("list[Any]", value) if isinstance(value, list) else (value,)


def _member(value: Any, name: str) -> Any:
    return cast("dict[str, Any]", value).get(name, MISSING) if isinstance(value, dict) else MISSING
