"""From a function's answer to the HTTP response of its URL: payload format 2.0. Pure.

An object with ``statusCode`` is the response; anything else is the body of a 200 (recorded answers of AWS).
"""

import base64
import binascii
from typing import Any, Final, cast

import msgspec

from stoker.core.errors import StokerError
from stoker.http.messages import Headers

JSON: Final = b"application/json"
BODILESS: Final = frozenset((204, 304))

REMAPPED: Final = frozenset((b"connection", b"content-length", b"date", b"www-authenticate"))
"""AWS keeps these of a function's headers under ``x-amzn-remapped-`` and answers with its own."""
DROPPED: Final = frozenset(
    (b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade")
)

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class InvalidAnswer(StokerError):
    """The function's answer is no response; the client gets 502."""


class UrlResponse(msgspec.Struct, frozen=True):
    """What is sent."""

    status: int
    headers: Headers
    body: bytes


BAD_GATEWAY: Final = UrlResponse(502, [(b"content-type", JSON)], b"Internal Server Error")
"""For function errors, time-outs and answers that are no response."""


def url_response(payload: bytes) -> UrlResponse:
    """The response that a function's payload stands for.

    Raises:
        InvalidAnswer: it names a status, header, cookie or body that cannot be sent.
    """
    try:
        answer: Any = _decode(payload)
    except (msgspec.DecodeError, RecursionError):
        # Custom runtimes may answer with what is no JSON.
        return UrlResponse(200, [(b"content-type", JSON)], payload)
    if isinstance(answer, dict) and "statusCode" in answer:
        return _shaped(cast("dict[str, Any]", answer))
    return UrlResponse(200, [(b"content-type", JSON)], _body(answer))


def _shaped(answer: dict[str, Any]) -> UrlResponse:
    status = _status(answer["statusCode"])
    headers = _headers(answer.get("headers"))
    if not any(name == b"content-type" for name, _ in headers):
        headers.append((b"content-type", JSON))
    headers += [(b"set-cookie", cookie) for cookie in _cookies(answer.get("cookies"))]
    body = answer.get("body")
    encoded = answer.get("isBase64Encoded")
    if encoded not in (None, True, False):
        raise InvalidAnswer("isBase64Encoded is not a boolean")
    content = b"" if body is None else _body(body)
    if encoded:
        content = _decoded(content)
    return UrlResponse(status, headers, b"" if status in BODILESS else content)


def _body(value: Any) -> bytes:
    """A string as it is, anything else as JSON without white space."""
    try:
        return value.encode() if isinstance(value, str) else _encode(value)
    except UnicodeEncodeError as problem:
        raise InvalidAnswer("the body is not Unicode text") from problem


def _decoded(content: bytes) -> bytes:
    try:
        return base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError) as problem:
        raise InvalidAnswer("the body is not base64") from problem


def _status(value: Any) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) == 3:
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 200 <= value <= 599:
        raise InvalidAnswer("statusCode is not that of a response")
    return value


def _headers(value: Any) -> Headers:
    if value is None:
        return []
    if not isinstance(value, dict):
        raise InvalidAnswer("headers is not an object")
    headers: Headers = []
    for name, content in cast("dict[str, Any]", value).items():
        lowered = _field(name).lower()
        if lowered in DROPPED:
            continue
        if lowered in REMAPPED:
            lowered = b"x-amzn-remapped-" + lowered
        headers.append((lowered, _field(content)))
    return headers


def _cookies(value: Any) -> list[bytes]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise InvalidAnswer("cookies is not a list")
    return [_field(cookie) for cookie in cast("list[Any]", value)]


def _field(value: Any) -> bytes:
    if isinstance(value, bool):
        return b"true" if value else b"false"
    if isinstance(value, int | float):
        return str(value).encode()
    if not isinstance(value, str):
        raise InvalidAnswer("a header or cookie is no string")
    try:
        encoded = value.encode()
    except UnicodeEncodeError as problem:
        raise InvalidAnswer("a header or cookie is not Unicode text") from problem
    if any(forbidden in encoded for forbidden in (b"\r", b"\n", b"\0")):
        raise InvalidAnswer("a header or cookie holds CR, LF or NUL")
    return encoded
