"""Filter patterns of event source mappings: which are well-formed. Pure; it matches nothing.

The grammar is that of EventBridge patterns as far as Lambda documents it (filter rule syntax).
"""

from collections.abc import Callable
from typing import Any, Final, cast

import msgspec

DEPTH_MAX: Final = 32

_NUMERIC: Final = frozenset(("=", "<", "<=", ">", ">="))


def is_filter_pattern(text: str | None) -> bool:
    """Whether ``text`` is a pattern that could be matched."""
    if not text:
        return False
    try:
        pattern = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return False
    return isinstance(pattern, dict) and _is_object(cast("dict[str, Any]", pattern), 0)


def _is_object(pattern: dict[str, Any], depth: int) -> bool:
    return depth < DEPTH_MAX and all(_is_field(name, rule, depth + 1) for name, rule in pattern.items())


def _is_field(name: str, rule: Any, depth: int) -> bool:
    if isinstance(rule, dict):
        return _is_object(cast("dict[str, Any]", rule), depth)
    if not isinstance(rule, list) or not rule:
        return False
    rules = cast("list[Any]", rule)
    if name == "$or" and all(isinstance(one, dict) for one in rules):
        return len(rules) > 1 and all(_is_object(one, depth) for one in rules)
    return all(_is_rule(one) for one in rules)


def _is_rule(rule: Any) -> bool:
    if not isinstance(rule, dict):
        return not isinstance(rule, list)
    operators = cast("dict[str, Any]", rule)
    if len(operators) != 1:
        return False
    ((operator, operand),) = operators.items()
    check = _OPERATORS.get(operator)
    return check is not None and check(operand)


def _is_text(operand: Any) -> bool:
    return isinstance(operand, str)


def _is_text_or_caseless(operand: Any) -> bool:
    if isinstance(operand, dict):
        inner = cast("dict[str, Any]", operand)
        return set(inner) == {"equals-ignore-case"} and _is_text(inner["equals-ignore-case"])
    return _is_text(operand)


def _is_number(operand: Any) -> bool:
    return isinstance(operand, int | float) and not isinstance(operand, bool)


def _is_scalar(operand: Any) -> bool:
    return _is_text(operand) or _is_number(operand)


def _is_anything_but(operand: Any) -> bool:
    if isinstance(operand, dict):
        inner = cast("dict[str, Any]", operand)
        return len(inner) == 1 and all(
            name in ("prefix", "suffix", "equals-ignore-case") and _is_text(value)
            for name, value in inner.items()
        )
    if isinstance(operand, list):
        operands = cast("list[Any]", operand)
        return bool(operands) and all(_is_scalar(one) for one in operands)
    return _is_scalar(operand)


def _is_numeric(operand: Any) -> bool:
    if not isinstance(operand, list):
        return False
    parts = cast("list[Any]", operand)
    pairs = list(zip(parts[::2], parts[1::2], strict=False))
    return len(parts) in (2, 4) and all(
        isinstance(sign, str) and sign in _NUMERIC and _is_number(value) for sign, value in pairs
    )


_OPERATORS: Final[dict[str, Callable[[Any], bool]]] = {
    "prefix": _is_text_or_caseless,
    "suffix": _is_text_or_caseless,
    "equals-ignore-case": _is_text,
    "anything-but": _is_anything_but,
    "numeric": _is_numeric,
    "exists": lambda operand: isinstance(operand, bool),
}
