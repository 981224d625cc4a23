"""Wildcards of policies (``*``, ``?``), ARNs with wildcards, and policy variables. Pure.

Patterns come from users and match in time linear in pattern and text: no regular expression with more than
one repetition is ever made of them.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final

PATTERN_CACHE_SIZE: Final = 4096

ARN_FIELDS: Final = 6

# Stars and question marks that mean themselves: values of variables, ${*} and ${?}.
_LITERAL: Final = str.maketrans({"*": "\ue000", "?": "\ue001"})
_VARIABLE: Final = re.compile(r"\$\{([^{}]*)\}")
_SPECIAL: Final = {"*": "\ue000", "?": "\ue001", "$": "$"}
_WITH_DEFAULT: Final = re.compile(r"\s*([^,\s]+)\s*(?:,\s*'([^']*)'\s*)?")

Lookup = Callable[[str], str | None]
"""The request's value of a context key, by its name in lower case; None: it has none, or several."""


class UnresolvedVariable(Exception):
    """A policy names a variable that the request has no value for: its statement does not apply."""


def matches(pattern: str, text: str, *, ignore_case: bool = False) -> bool:
    """Whether the whole text is what the pattern says."""
    if pattern == "*":
        return True
    if ignore_case:
        pattern, text = pattern.lower(), text.lower()
    if "*" in text or "?" in text:
        text = text.translate(_LITERAL)
    if "*" not in pattern and "?" not in pattern:
        return pattern == text
    first, *rest = pattern.split("*")
    if not rest:
        return len(first) == len(text) and _find(first, text, 0) == 0
    last = rest.pop()
    end = len(text) - len(last)
    if end < len(first) or _find(first, text[: len(first)], 0) != 0 or _find(last, text[end:], 0) != 0:
        return False
    position = len(first)
    for piece in rest:
        found = _find(piece, text[:end], position)
        if found < 0:
            return False
        position = found + len(piece)
    return True


def matches_arn(pattern: str, arn: str) -> bool:
    """As ``matches``, each of an ARN's six fields by itself; those a pattern leaves out may be anything."""
    if pattern == "*":
        return True
    if not pattern.startswith("arn:"):
        # Such as arn* or *:function:x, which nothing says how to cut.
        return "*" in pattern and matches(pattern, arn)
    wanted = pattern.split(":", ARN_FIELDS - 1)
    given = arn.split(":", ARN_FIELDS - 1)
    if len(given) < ARN_FIELDS:
        return False
    return all(matches(want, have) for want, have in zip(wanted, given, strict=False))


def has_variables(pattern: str) -> bool:
    """Whether the pattern must go through ``resolved`` first."""
    return "${" in pattern


def resolved(pattern: str, lookup: Lookup) -> str:
    """The pattern with its variables replaced by what the request has, wildcards in which mean themselves.

    Raises:
        UnresolvedVariable: it has no single value and the pattern no default for it.
    """

    def value(match: "re.Match[str]") -> str:
        inside = match[1]
        if inside in _SPECIAL:
            return _SPECIAL[inside]
        parts = _WITH_DEFAULT.fullmatch(inside)
        if parts is None:
            raise UnresolvedVariable(inside)
        found = lookup(parts[1].lower())
        if found is None:
            found = parts[2]
        if found is None:
            raise UnresolvedVariable(inside)
        return found.translate(_LITERAL)

    return _VARIABLE.sub(value, pattern)


def literal(pattern: str) -> str:
    """The pattern as text of which every character means itself."""
    return pattern.translate(_LITERAL)


def _find(piece: str, text: str, start: int) -> int:
    if "?" not in piece:
        return text.find(piece, start)
    found = _compiled(piece).search(text, start)
    return -1 if found is None else found.start()


@lru_cache(maxsize=PATTERN_CACHE_SIZE)
def _compiled(piece: str) -> "re.Pattern[str]":
    return re.compile("".join("." if letter == "?" else re.escape(letter) for letter in piece), re.DOTALL)
