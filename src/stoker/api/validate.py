"""Checks decoded input against the model's rules and words what is wrong as AWS words it. Pure.

Two kinds of wrong: a value of another type is a SerializationException, a value of the right type that breaks
constraints is listed in one ValidationException.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final, cast

from stoker.api.shapes import Rule
from stoker.core.errors import ServiceError

SHOWN_VALUE_MAX_CHARACTERS: Final = 16_384
"""Messages echo values, as AWS's do, but not without end."""
VIOLATIONS_MAX: Final = 100
"""Listed in one answer; an input of a million bad elements must not become a million sentences."""
DEPTH_MAX: Final = 64

_SCALAR_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "string": (str,),
    "integer": (int,),
    "long": (int,),
    "float": (int, float),
    "double": (int, float),
    "boolean": (bool,),
    "blob": (str, bytes),
    "timestamp": (int, float),
}
_TARGETS: Final = {
    "string": "a String",
    "integer": "an Integer",
    "long": "a Long",
    "float": "a Float",
    "double": "a Double",
    "boolean": "a Boolean",
    "blob": "a Blob",
    "timestamp": "a Timestamp",
}
_NUMBERS: Final = frozenset(("integer", "long", "float", "double"))
_INTEGER_RANGES: Final = {"integer": 2**31, "long": 2**63}


def check(value: dict[str, Any], rule: Rule, code: str = "ValidationException") -> None:
    """Check the whole input of an operation.

    Raises:
        ServiceError: SerializationException for wrong types, ``code`` for violated constraints.
    """
    violations: list[str] = []
    for violation in _structure(value, rule, "", 0):
        violations.append(violation)
        if len(violations) == VIOLATIONS_MAX:
            break
    if violations:
        count = len(violations)
        noun = "error" if count == 1 else "errors"
        raise ServiceError(code, f"{count} validation {noun} detected: " + "; ".join(violations))


def serialization_error(message: str) -> ServiceError:
    """400 SerializationException: the input cannot be read as what the model says."""
    return ServiceError("SerializationException", message)


def _structure(value: Any, rule: Rule, path: str, depth: int) -> Iterator[str]:
    if not isinstance(value, dict):
        raise serialization_error(_found(value))
    if depth > DEPTH_MAX:
        raise serialization_error("The input is nested too deeply.")
    members = cast("dict[str, Any]", value)
    for member in rule.members:
        inner = members.get(member.wire)
        label = f"{path}.{member.label}" if path else member.label
        if inner is None:
            if member.required:
                yield f"Value null at '{label}' failed to satisfy constraint: Member must not be null"
        else:
            yield from _value(inner, member.rule, label, depth + 1)


def _value(value: Any, rule: Rule, path: str, depth: int) -> Iterator[str]:
    walk = _WALKS.get(rule.kind)
    if walk is not None:
        yield from walk(value, rule, path, depth)
        return
    check_type(value, rule)
    for constraint in broken(value, rule):
        yield _sentence(value, rule.sensitive, path, constraint)


def _list(value: Any, rule: Rule, path: str, depth: int) -> Iterator[str]:
    if not isinstance(value, list):
        raise serialization_error(_found(value))
    items = cast("list[Any]", value)
    element = cast("Rule", rule.element)
    for constraint in _length_broken(len(items), rule):
        yield _sentence(items, element.sensitive, path, constraint)
    if element.kind in _WALKS:
        for position, item in enumerate(items, 1):
            yield from _value(item, element, f"{path}.{position}.member", depth + 1)
    elif _any_broken(items, element):
        yield _sentence(items, element.sensitive, path, f"Member must satisfy constraint: {_all_of(element)}")


def _map(value: Any, rule: Rule, path: str, depth: int) -> Iterator[str]:
    if not isinstance(value, dict):
        raise serialization_error(_found(value))
    entries = cast("dict[str, Any]", value)
    key, element = cast("Rule", rule.key), cast("Rule", rule.element)
    sensitive = rule.sensitive or key.sensitive or element.sensitive
    for constraint in _length_broken(len(entries), rule):
        yield _sentence(entries, sensitive, path, constraint)
    shown = {name: _as_double(item) for name, item in entries.items()} if _is_double(element) else entries
    if _any_broken(list(entries), key):
        words = f"[{', '.join(key.constraints)}]"
        yield _sentence(shown, sensitive, path, f"Map keys must satisfy constraint: {words}")
    if element.kind in _WALKS:
        for name, item in entries.items():
            yield from _value(item, element, f"{path}.{name}.member", depth + 1)
    elif _any_broken(list(entries.values()), element):
        yield _sentence(shown, sensitive, path, f"Map value must satisfy constraint: {_all_of(element)}")


_WALKS: Final[dict[str, Callable[[Any, Rule, str, int], Iterator[str]]]] = {
    "structure": _structure,
    "list": _list,
    "map": _map,
}


def check_type(value: Any, rule: Rule) -> None:
    """Raises SerializationException when a scalar has another type than the model's."""
    kind = rule.kind
    if not isinstance(value, _SCALAR_TYPES[kind]) or (isinstance(value, bool) and kind != "boolean"):
        if isinstance(value, dict | list):
            raise serialization_error(_found(value))
        raise serialization_error(f"{_token(value)} can not be converted to {_TARGETS[kind]}")
    bound = _INTEGER_RANGES.get(kind)
    if bound is not None and not -bound <= value < bound:
        raise serialization_error(f"Value {str(value)[:40]} is out of range for {_TARGETS[kind]}")


def broken(value: Any, rule: Rule) -> Iterator[str]:
    """The constraints of a scalar that ``value`` violates, worded."""
    if not rule.constraints:
        return
    measure = value if rule.kind in _NUMBERS else len(value) if isinstance(value, str | bytes) else None
    words = iter(rule.constraints)
    if rule.maximum is not None:
        word = next(words)
        if measure is not None and measure > rule.maximum:
            yield word
            if isinstance(value, str):
                return
    if rule.minimum is not None:
        word = next(words)
        if measure is not None and measure < rule.minimum:
            yield word
    if rule.pattern is not None:
        word = next(words)
        if rule.pattern.fullmatch(cast("str", value)) is None:
            yield word
    if rule.enum is not None and value not in rule.enum:
        yield next(words)


def _length_broken(length: int, rule: Rule) -> Iterator[str]:
    if rule.maximum is not None and length > rule.maximum:
        yield f"Member must have length less than or equal to {rule.maximum}"
    if rule.minimum is not None and length < rule.minimum:
        yield f"Member must have length greater than or equal to {rule.minimum}"


def _any_broken(items: list[Any], rule: Rule) -> bool:
    found = False
    for item in items:
        if item is None:
            found = True
        else:
            check_type(item, rule)
            found = found or next(broken(item, rule), None) is not None
    return found


def _all_of(element: Rule) -> str:
    words = list(element.constraints)
    if not element.may_be_null:
        words.append("Member must not be null")
    return f"[{', '.join(words)}]"


def _sentence(value: Any, sensitive: bool, path: str, constraint: str) -> str:
    if sensitive:
        return f"Value at '{path}' failed to satisfy constraint: {constraint}"
    shown = _shown(value)[:SHOWN_VALUE_MAX_CHARACTERS]
    return f"Value '{shown}' at '{path}' failed to satisfy constraint: {constraint}"


def _is_double(rule: Rule) -> bool:
    return rule.kind in ("double", "float")


def _as_double(value: Any) -> Any:
    """An integer that was given for a double is shown as ``2.0``, if a double can hold it."""
    exact = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53
    return float(value) if exact else value


def _shown(value: Any) -> str:
    """As Java prints it: ``[a, b]``, ``{k=v}``, ``true``, ``1.0``."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, cast('list[Any]', value)))}]"
    if isinstance(value, dict):
        entries = cast("dict[str, Any]", value).items()
        return f"{{{', '.join(f'{name}={_shown(item)}' for name, item in entries)}}}"
    return str(value)


def _found(value: Any) -> str:
    if isinstance(value, list):
        return "Start of list found where not expected"
    if isinstance(value, dict):
        return "Start of structure or map found where not expected."
    return f"Unexpected {_token(value)} where a structure, map or list is expected"


def _token(value: Any) -> str:
    if isinstance(value, bool):
        return "TRUE_VALUE" if value else "FALSE_VALUE"
    if isinstance(value, str):
        return "STRING_VALUE"
    return "NUMBER_VALUE" if isinstance(value, int) else "DECIMAL_VALUE"
