"""JSON filter patterns, ``{ $.level = "ERROR" && $.size > 3 }``, as predicates over messages. Pure.

A recursive descent over ``||``, ``&&``, parentheses and comparisons; nesting is bounded.
"""

import re
from collections.abc import Callable
from typing import Any

import msgspec

Test = Callable[[Any], bool]

NESTING_MAX = 32

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<symbol>\|\||&&|\(|\)|<=|>=|!=|=|<|>)
      | (?P<selector>\$(?:\.[A-Za-z0-9_@-]+|\[\d+\]|\["[^"]+"\]|\['[^']+'\])*)
      | "(?P<quoted>(?:[^"\\]|\\.)*)"
      | (?P<word>[^\s()<>=!&|"{}]+)
    )""",
    re.VERBOSE,
)
_STEP = re.compile(r"""\.([A-Za-z0-9_@-]+)|\[(\d+)\]|\["([^"]+)"\]|\['([^']+)'\]""")

_MISSING = object()

_NUMBERS: dict[str, Callable[[float, float], bool]] = {
    "=": lambda value, wanted: value == wanted,
    "!=": lambda value, wanted: value != wanted,
    "<": lambda value, wanted: value < wanted,
    ">": lambda value, wanted: value > wanted,
    "<=": lambda value, wanted: value <= wanted,
    ">=": lambda value, wanted: value >= wanted,
}


def compile_json(pattern: str) -> Callable[[str], bool]:
    """The predicate of a pattern in braces; a message that is no JSON object never matches.

    Raises:
        ValueError: the pattern is not understood.
    """
    if not pattern.endswith("}"):
        raise ValueError("a JSON pattern ends with }")
    parser = _Parser(_tokens(pattern[1:-1]))
    test = parser.alternatives(0)
    parser.expect_end()

    def matches(message: str) -> bool:
        try:
            document: Any = msgspec.json.decode(message)
        except (msgspec.DecodeError, RecursionError):
            return False
        return isinstance(document, dict) and test(document)

    return matches


def _tokens(text: str) -> list[tuple[str, str]]:
    tokens: list[tuple[str, str]] = []
    at = 0
    text = text.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise ValueError(f"unexpected {text[at:].strip()[:20]!r}")
        kind = match.lastgroup or ""
        tokens.append((kind, match.group(kind)))
        at = match.end()
    return tokens


class _Parser:
    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self._tokens = tokens
        self._at = 0

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._at] if self._at < len(self._tokens) else ("end", "")

    def _next(self) -> tuple[str, str]:
        token = self._peek()
        self._at += 1
        return token

    def _take(self, symbol: str) -> bool:
        if self._peek() == ("symbol", symbol):
            self._at += 1
            return True
        return False

    def expect_end(self) -> None:
        kind, text = self._peek()
        if kind != "end":
            raise ValueError(f"unexpected {text!r}")

    def alternatives(self, depth: int) -> Test:
        tests = [self._conjunction(depth)]
        while self._take("||"):
            tests.append(self._conjunction(depth))
        return tests[0] if len(tests) == 1 else lambda document: any(test(document) for test in tests)

    def _conjunction(self, depth: int) -> Test:
        tests = [self._operand(depth)]
        while self._take("&&"):
            tests.append(self._operand(depth))
        return tests[0] if len(tests) == 1 else lambda document: all(test(document) for test in tests)

    def _operand(self, depth: int) -> Test:
        if depth > NESTING_MAX:
            raise ValueError("too many parentheses")
        if self._take("("):
            test = self.alternatives(depth + 1)
            if not self._take(")"):
                raise ValueError("a parenthesis is not closed")
            return test
        kind, selector = self._next()
        if kind != "selector":
            raise ValueError(f"a comparison begins with a selector such as $.level, not {selector!r}")
        return self._comparison(_path(selector))

    def _comparison(self, path: list[str | int]) -> Test:
        kind, operator = self._next()
        if kind == "word":
            return self._state(path, operator)
        if kind != "symbol" or operator not in _NUMBERS:
            raise ValueError(f"unexpected {operator!r} after a selector")
        kind, text = self._next()
        if kind == "quoted":
            return _compares_text(path, operator, re.sub(r"\\(.)", r"\1", text))
        if kind != "word":
            raise ValueError(f"a value is missing after {operator!r}")
        if text.startswith("%"):
            raise ValueError("regular expressions are not supported")
        number = _number(text)
        if number is None:
            return _compares_text(path, operator, text)
        compare = _NUMBERS[operator]

        def compares_number(document: Any) -> bool:
            value = _select(document, path)
            return isinstance(value, int | float) and not isinstance(value, bool) and compare(value, number)

        return compares_number

    def _state(self, path: list[str | int], word: str) -> Test:
        """``IS NULL``, ``IS TRUE``, ``IS FALSE``, ``EXISTS``, ``NOT EXISTS``."""
        if word.upper() == "EXISTS":
            return lambda document: _select(document, path) is not _MISSING
        state = f"{word} {self._next()[1]}".upper()
        if state == "NOT EXISTS":
            return lambda document: _select(document, path) is _MISSING
        wanted: dict[str, bool | None] = {"IS NULL": None, "IS TRUE": True, "IS FALSE": False}
        if state not in wanted:
            raise ValueError(f"unexpected {state!r}")
        return lambda document: _select(document, path) is wanted[state]


def _path(selector: str) -> list[str | int]:
    steps: list[str | int] = []
    for name, index, quoted, single in _STEP.findall(selector[1:]):
        steps.append(int(index) if index else name or quoted or single)
    return steps


def _select(document: Any, path: list[str | int]) -> Any:
    value = document
    for step in path:
        if isinstance(step, int):
            value = value[step] if isinstance(value, list) and step < len(value) else _MISSING  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        else:
            value = value.get(step, _MISSING) if isinstance(value, dict) else _MISSING  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return value  # pyright: ignore[reportUnknownVariableType]


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _compares_text(path: list[str | int], operator: str, wanted: str) -> Test:
    if operator not in ("=", "!="):
        raise ValueError(f"{operator!r} compares numbers only")
    # An asterisk stands for any text; the pieces between are looked for in order, without backtracking.
    pieces = wanted.split("*")

    def compares_text(document: Any) -> bool:
        value = _select(document, path)
        if not isinstance(value, str):
            return False
        return _fits(value, pieces) == (operator == "=")

    return compares_text


def _fits(value: str, pieces: list[str]) -> bool:
    if len(pieces) == 1:
        return value == pieces[0]
    first, last = pieces[0], pieces[-1]
    if not value.startswith(first) or not value.endswith(last) or len(value) < len(first) + len(last):
        return False
    at, end = len(first), len(value) - len(last)
    for piece in pieces[1:-1]:
        found = value.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True
