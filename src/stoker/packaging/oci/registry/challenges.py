"""WWW-Authenticate headers, as RFC 9110 11.6.1 has them. Pure."""

import re
from collections.abc import Iterable

import msgspec

HEADER_MAX = 8192
CHALLENGES_MAX = 8

_SCHEME = re.compile(r"[ \t,]*([A-Za-z][A-Za-z0-9._~+-]*)(?:[ \t]+|(?=,)|$)")
_PARAMETER = re.compile(r'[ \t,]*([A-Za-z0-9_-]+)[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s",]+))')
_QUOTED = re.compile(r"\\(.)")


class Challenge(msgspec.Struct, frozen=True):
    """One way to authenticate that a server offers; names in lower case."""

    scheme: str
    parameters: dict[str, str]


def parse_challenges(headers: Iterable[str]) -> list[Challenge]:
    """Every challenge that can be read; what cannot is left out, like a scheme that nobody knows."""
    found: list[Challenge] = []
    for header in headers:
        text = header[:HEADER_MAX]
        position = 0
        while len(found) < CHALLENGES_MAX and (scheme := _SCHEME.match(text, position)):
            parameters, position = _parameters(text, scheme.end())
            found.append(Challenge(scheme[1].lower(), parameters))
    return found


def _parameters(text: str, position: int) -> tuple[dict[str, str], int]:
    parameters: dict[str, str] = {}
    while matched := _PARAMETER.match(text, position):
        quoted, plain = matched[2], matched[3]
        parameters[matched[1].lower()] = plain if quoted is None else _QUOTED.sub(r"\1", quoted)
        position = matched.end()
    return parameters, position
