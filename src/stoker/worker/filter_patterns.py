"""Filter patterns of CloudWatch Logs as predicates over messages: terms, or comparisons of JSON fields. Pure.

Source: "Filter pattern syntax" in the CloudWatch Logs user guide. Regular expressions and space-delimited
patterns are refused by name.
"""

import re
from collections.abc import Callable

from stoker.worker.json_patterns import compile_json

PATTERN_MAX_CHARACTERS = 1024

Predicate = Callable[[str], bool]


class UnsupportedPattern(ValueError):
    """The pattern is wrong, or of a kind that is not built; the text says which."""


_TERM = re.compile(r'\s*([-?]?)(?:"((?:[^"\\]|\\.)*)"|([^\s"]+))')


def compile_pattern(pattern: str | None) -> Predicate:
    """What a pattern asks of a message. An empty pattern takes every message.

    Raises:
        UnsupportedPattern: it cannot be understood.
    """
    text = (pattern or "").strip()
    if len(text) > PATTERN_MAX_CHARACTERS:
        raise UnsupportedPattern(f"The filter pattern is longer than {PATTERN_MAX_CHARACTERS} characters")
    if not text:
        return _everything
    if text.startswith("{"):
        try:
            return compile_json(text)
        except ValueError as error:
            raise UnsupportedPattern(f"Invalid filter pattern: {error}") from error
    if text.startswith("["):
        raise UnsupportedPattern("Space-delimited filter patterns are not supported")
    if text.startswith("%"):
        raise UnsupportedPattern("Regular expressions in filter patterns are not supported")
    return _terms(text)


def _everything(message: str) -> bool:
    return True


def _terms(text: str) -> Predicate:
    required: list[str] = []
    excluded: list[str] = []
    optional: list[str] = []
    at = 0
    while at < len(text):
        match = _TERM.match(text, at)
        if match is None:
            raise UnsupportedPattern(f"Invalid filter pattern: unbalanced quotation mark in {text!r}")
        sign, quoted, bare = match.groups()
        term: str = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else bare
        {"": required, "-": excluded, "?": optional}[sign].append(term)
        at = match.end()
        while at < len(text) and text[at].isspace():
            at += 1
    if optional and not required and not excluded:
        return lambda message: any(term in message for term in optional)
    # As on AWS: optional terms beside others are ignored.
    return lambda message: (
        all(term in message for term in required) and not any(term in message for term in excluded)
    )
