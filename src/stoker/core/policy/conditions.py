"""Condition blocks of policies: every operator of IAM, set operators, IfExists. Pure.

A request's context holds each key in lower case, with one value or several.
"""

import base64
import binascii
import ipaddress
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final

import msgspec

from stoker.core.policy.patterns import Lookup, has_variables, literal, matches, matches_arn, resolved

Values = str | tuple[str, ...]
Context = Mapping[str, Values]

FOR_ANY: Final = "ForAnyValue:"
FOR_ALL: Final = "ForAllValues:"
IF_EXISTS: Final = "IfExists"


class Condition(msgspec.Struct, frozen=True):
    """One key under one operator."""

    operator: str
    """Without set operator, IfExists and negation."""
    key: str
    """In lower case."""
    values: tuple[str, ...]
    negated: bool = False
    quantifier: str = ""
    if_exists: bool = False
    with_variables: bool = True


def single(context: Context) -> Lookup:
    """The values of policy variables: only keys with one value have one."""

    def lookup(key: str) -> str | None:
        value = context.get(key)
        return value if isinstance(value, str) else None

    return lookup


def read_operator(text: str) -> tuple[str, bool, str, bool] | None:
    """(operator, negated, set operator, IfExists) of a name such as ForAnyValue:StringNotLikeIfExists."""
    quantifier = next((each for each in (FOR_ANY, FOR_ALL) if text.lower().startswith(each.lower())), "")
    name = text[len(quantifier) :].lower()
    if_exists = name.endswith(IF_EXISTS.lower())
    name = name.removesuffix(IF_EXISTS.lower())
    if name == "null":
        return None if quantifier or if_exists else ("null", False, "", False)
    negated = name in _NEGATED
    name = _NEGATED.get(name, name)
    return (name, negated, quantifier, if_exists) if name in _OPERATORS else None


def holds(condition: Condition, context: Context) -> bool:
    """Whether the request satisfies the condition.

    Raises:
        UnresolvedVariable: the condition compares with a variable that the request has no value for.
    """
    given = context.get(condition.key)
    if condition.operator == "null":
        return any((given is None) == (value.lower() == "true") for value in condition.values)
    if given is None:
        # ForAnyValue of nothing holds for no value, negated or not.
        plainly_negated = condition.negated and condition.quantifier != FOR_ANY
        return condition.if_exists or plainly_negated or condition.quantifier == FOR_ALL
    values = (given,) if isinstance(given, str) else given
    compare = _OPERATORS[condition.operator]
    wanted = _wanted(condition, context)

    def one(value: str) -> bool:
        return any(compare(want, value) for want in wanted) != condition.negated

    # Without a set operator AWS asks that some value matches, and for negated ones that none does.
    if condition.quantifier == FOR_ALL or (condition.negated and not condition.quantifier):
        return all(one(value) for value in values)
    return any(one(value) for value in values)


def _wanted(condition: Condition, context: Context) -> tuple[str, ...]:
    if not condition.with_variables or not any(map(has_variables, condition.values)):
        return condition.values
    lookup = single(context)
    return tuple(resolved(value, lookup) for value in condition.values)


def _equals(want: str, have: str) -> bool:
    return literal(want) == literal(have)


def _equals_ignoring_case(want: str, have: str) -> bool:
    return literal(want).lower() == literal(have).lower()


def _numeric(compare: Callable[[float, float], bool]) -> Callable[[str, str], bool]:
    def compared(want: str, have: str) -> bool:
        try:
            return compare(float(have), float(want))
        except ValueError:
            return False

    return compared


def moment_of(text: str) -> float:
    """Seconds since the epoch, from those or from ISO 8601. Raises ValueError."""
    try:
        return float(text)
    except ValueError:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _date(compare: Callable[[float, float], bool]) -> Callable[[str, str], bool]:
    def compared(want: str, have: str) -> bool:
        try:
            return compare(moment_of(have), moment_of(want))
        except (ValueError, OverflowError):
            return False

    return compared


def _address(want: str, have: str) -> bool:
    try:
        address = ipaddress.ip_address(have)
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped  # a listener for both kinds shows IPv4 callers so
        return address in ipaddress.ip_network(want, strict=False)
    except ValueError:
        return False


def _binary(want: str, have: str) -> bool:
    try:
        return base64.b64decode(want, validate=True) == base64.b64decode(have, validate=True)
    except (binascii.Error, ValueError):
        return False


_OPERATORS: Final[dict[str, Callable[[str, str], bool]]] = {
    "null": _equals,
    "stringequals": _equals,
    "stringequalsignorecase": _equals_ignoring_case,
    "stringlike": matches,
    "arnequals": matches_arn,
    "arnlike": matches_arn,
    "bool": _equals_ignoring_case,
    "binaryequals": _binary,
    "ipaddress": _address,
    "numericequals": _numeric(lambda have, want: have == want),
    "numericlessthan": _numeric(lambda have, want: have < want),
    "numericlessthanequals": _numeric(lambda have, want: have <= want),
    "numericgreaterthan": _numeric(lambda have, want: have > want),
    "numericgreaterthanequals": _numeric(lambda have, want: have >= want),
    "dateequals": _date(lambda have, want: have == want),
    "datelessthan": _date(lambda have, want: have < want),
    "datelessthanequals": _date(lambda have, want: have <= want),
    "dategreaterthan": _date(lambda have, want: have > want),
    "dategreaterthanequals": _date(lambda have, want: have >= want),
}
_NEGATED: Final = {
    "stringnotequals": "stringequals",
    "stringnotequalsignorecase": "stringequalsignorecase",
    "stringnotlike": "stringlike",
    "arnnotequals": "arnequals",
    "arnnotlike": "arnlike",
    "numericnotequals": "numericequals",
    "datenotequals": "dateequals",
    "notipaddress": "ipaddress",
}
