"""Is a payload JSON, and if not, how AWS says so: the wording is that of Jackson, which Lambda parses with.

msgspec finds the fault at the speed of C; only then is its place looked at to word it.
"""

import base64
import binascii
import json
import re
from typing import Final, NoReturn

import msgspec

from stoker.core.errors import ServiceError

SCAN_MAX_BYTES: Final = 64 * 1024
"""How far an unfinished payload is searched for the bracket that was not closed."""

CLIENT_CONTEXT_MAX_BYTES: Final = 3583

_skim = msgspec.json.Decoder(msgspec.Raw).decode
_OFFSET: Final = re.compile(r"\(byte (\d+)\)$")
_WORD: Final = re.compile(rb"[A-Za-z0-9_$]+")
# A literal that broke off, with whatever else stands there instead of its rest.
_LAST_WORD: Final = re.compile(rb"([A-Za-z_$][A-Za-z0-9_$]*)[^\s\[\]{},:\"]*\Z")
_TOKENS: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\]]|"', re.DOTALL)
_SOURCE: Final = "[Source: REDACTED (`StreamReadFeature.INCLUDE_SOURCE_IN_LOCATION` disabled); "
_ACCEPTED: Final = "(JSON String, Number, Array, Object or token 'null', 'true' or 'false')"


class _Fault(Exception):
    """What is wrong, and the offset that Jackson would have reached."""

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.message = message
        self.offset = offset


def check_payload(payload: bytes) -> None:
    """Raise InvalidRequestContentException unless ``payload`` is empty or one JSON value in UTF-8."""
    if not payload:
        return
    try:
        _skim(payload)
        if not payload.isascii():
            payload.decode()
        return
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if b"\\u" in payload and _is_json_nevertheless(payload):
            return
        fault = _fault(payload, error)
    raise ServiceError(
        "InvalidRequestContentException",
        "Could not parse request body into json: Could not parse payload into json: "
        f"{fault.message}\n at {_place(payload, fault.offset)}",
        fields={"Type": "User"},
    )


def _no_constant(_: str) -> NoReturn:
    raise ValueError


def _is_json_nevertheless(payload: bytes) -> bool:
    """Escapes of lone surrogates are JSON by its grammar, which msgspec alone refuses."""
    try:
        json.loads(payload, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return False
    return True


def _place(payload: bytes, offset: int) -> str:
    line = payload.count(b"\n", 0, offset) + 1
    column = offset - (payload.rfind(b"\n", 0, offset) + 1) + 1
    return f"{_SOURCE}line: {line}, column: {column}]"


def _fault(payload: bytes, error: Exception) -> _Fault:
    try:
        if isinstance(error, RecursionError):
            limit = "(1000, from `StreamReadConstraints.getMaxNestingDepth()`)"
            return _Fault(f"Document nesting depth (1001) exceeds the maximum allowed {limit}", 0)
        if isinstance(error, UnicodeDecodeError):
            _utf8_fault(payload, 0)
        match = _OFFSET.search(str(error))
        if match is None:
            return _truncated(payload)
        return _malformed(payload, int(match[1]), str(error))
    except _Fault as fault:
        return fault


def _utf8_fault(payload: bytes, start: int) -> None:
    """Raise the fault if what follows ``start`` is not UTF-8."""
    try:
        payload[start:].decode()
    except UnicodeDecodeError as error:
        offset = start + error.start
        byte = payload[offset]
        if error.reason == "invalid start byte":
            raise _Fault(f"Invalid UTF-8 start byte 0x{byte:x}", offset + 1) from None
        bad = min(start + error.end, len(payload) - 1)
        raise _Fault(f"Invalid UTF-8 middle byte 0x{payload[bad]:x}", bad + 1) from None


def _character(code: int) -> str:
    if code < 0x20 or 0x7F <= code < 0xA0:
        return f"((CTRL-CHAR, code {code}))"
    return f"('{chr(code)}' (code {code}))"


def _malformed(payload: bytes, offset: int, reason: str) -> _Fault:
    code = payload[min(offset, len(payload) - 1)]
    shown = _character(code)
    if "expected ':'" in reason:
        words = f"Unexpected character {shown}: was expecting a colon to separate field name and value"
    elif "expected ','" in reason:
        name = "Object" if "'}'" in reason else "Array"
        words = f"Unexpected character {shown}: was expecting comma to separate {name} entries"
    elif "expected '\"'" in reason or "trailing comma in object" in reason:
        words = f"Unexpected character {shown}: was expecting double-quote to start field name"
    elif "escaped character" in reason:
        words = f"Unrecognized character escape {shown[1:-1]}"
    elif "invalid number" in reason or payload[offset - 1 : offset] == b"-":
        return _bad_number(payload, offset, shown)
    elif code < 0x20 and _inside_string(payload, offset):
        words = (
            f"Illegal unquoted character {shown}: has to be escaped using backslash to be included in "
            "string value"
        )
    else:
        return _bad_value(payload, offset, shown)
    return _Fault(words, offset)


def _inside_string(payload: bytes, offset: int) -> bool:
    # White space between tokens never gets here: a control character that does is inside a string, unless it
    # is one that JSON has no place for at all.
    return b'"' in payload[:offset]


def _bad_number(payload: bytes, offset: int, shown: str) -> _Fault:
    before = payload[offset - 1 : offset]
    if before == b"0" and payload[offset : offset + 1].isdigit():
        return _Fault("Invalid numeric value: Leading zeroes not allowed", offset)
    if offset >= len(payload):
        return _Fault("Unexpected end-of-input in a Number value", offset)
    if before == b"-":
        return _Fault(
            f"Unexpected character {shown} in numeric value: Expected digit (0-9) to follow minus sign, for "
            "valid numeric value",
            offset,
        )
    return _Fault(f"Unexpected character {shown} in numeric value", offset)


def _bad_value(payload: bytes, offset: int, shown: str) -> _Fault:
    start = offset
    while start > 0 and payload[start - 1 : start].isalnum():
        start -= 1
    word = _WORD.match(payload, start)
    if word is None:
        return _Fault(f"Unexpected character {shown}: expected a valid value {_ACCEPTED}", offset)
    _utf8_fault(payload[: word.end() + 4], word.end())
    text = word[0][:256].decode()
    return _Fault(f"Unrecognized token '{text}': was expecting {_ACCEPTED}", word.end())


def _truncated(payload: bytes) -> _Fault:
    """Nothing wrong but the end: an unfinished word, string, object or array."""
    end = len(payload)
    if not payload.strip():
        return _Fault("No content to map due to end-of-input", end)
    if end > SCAN_MAX_BYTES:
        return _Fault("Unexpected end-of-input", end)
    open_brackets, in_string = _open_at_end(payload)
    if in_string:
        _utf8_fault(payload, 0)
        return _Fault("Unexpected end-of-input in VALUE_STRING", end)
    word = _LAST_WORD.search(payload)
    if word is not None and word[1] not in (b"true", b"false", b"null"):
        return _bad_value(payload, word.start(), "")
    if not open_brackets:
        return _Fault("Unexpected end-of-input", end)
    bracket, start = open_brackets[-1]
    name = "Object" if bracket == b"{" else "Array"
    marker = f"(start marker at {_place(payload, start)})"
    return _Fault(f"Unexpected end-of-input: expected close marker for {name} {marker}", end)


def _open_at_end(payload: bytes) -> tuple[list[tuple[bytes, int]], bool]:
    """Brackets still open at the end, with their offsets, and whether a string is."""
    open_brackets: list[tuple[bytes, int]] = []
    for token in _TOKENS.finditer(payload):
        text = token[0]
        if text == b'"':
            return open_brackets, True
        if text in b"{[":
            open_brackets.append((text, token.start()))
        elif text in b"}]" and open_brackets:
            open_brackets.pop()
    return open_brackets, False


def check_client_context(value: bytes) -> None:
    """Raise InvalidRequestContentException unless ``value`` is base64 of a JSON object, within the limit."""
    if len(value) > CLIENT_CONTEXT_MAX_BYTES:
        raise _bad_context(f"Client context must be at most {CLIENT_CONTEXT_MAX_BYTES} bytes.")
    try:
        decoded = json.loads(base64.b64decode(value, validate=True))
    except (binascii.Error, ValueError, RecursionError):
        decoded = None
    if not isinstance(decoded, dict):
        raise _bad_context("Client context must be a valid Base64-encoded JSON object.")


def _bad_context(message: str) -> ServiceError:
    return ServiceError("InvalidRequestContentException", message, fields={"Type": "User"})
