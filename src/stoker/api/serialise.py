"""From the typed record of an answer to status, headers and body. Pure."""

from typing import Any, Final

import msgspec

from stoker.api.errors import JSON, JSON_1_1
from stoker.api.generate import field_name
from stoker.api.model import Operation, Output
from stoker.http.messages import Headers

NO_CONTENT: Final = 204

_encode = msgspec.json.Encoder().encode


class Answer(msgspec.Struct, frozen=True):
    """What is sent."""

    status: int
    headers: Headers
    body: bytes


def serialise_response(operation: Operation, response: Any, request_id: str) -> Answer:
    """The answer of a REST operation; ``response`` is its record, or None where it has none.

    Raises:
        TypeError: the handler returned a record of another operation.
    """
    expected = operation.response_type
    if expected is None:
        response = None
    elif not isinstance(response, expected):
        raise TypeError(f"{operation.name} answers {expected.__name__}, not {type(response).__name__}")
    headers: Headers = [(b"x-amzn-requestid", request_id.encode())]
    if response is None or operation.status == NO_CONTENT:
        return Answer(operation.status, headers, b"")
    output = operation.output
    if output.is_plain:
        headers.append((b"content-type", JSON))
        return Answer(operation.status, headers, _encode(response))
    return _with_locations(operation, output, response, headers)


def _with_locations(operation: Operation, output: Output, response: Any, headers: Headers) -> Answer:
    outside = {member for _, member in output.headers}
    status = operation.status
    if output.status is not None:
        outside.add(output.status)
        status = getattr(response, field_name(output.status)) or status
    for name, member in output.headers:
        value = getattr(response, field_name(member))
        if value is not None:
            headers.append((name.lower(), str(value).encode()))
    if status == NO_CONTENT:
        return Answer(status, headers, b"")
    headers.append((b"content-type", JSON))
    if output.payload is not None:
        return Answer(status, headers, bytes(getattr(response, field_name(output.payload)) or b""))
    members = {n: v for n, v in msgspec.to_builtins(response).items() if n not in outside}
    return Answer(status, headers, _encode(members))


def serialise_json_response(response: Any, request_id: str) -> Answer:
    """The answer of an operation of the JSON 1.1 protocol; a record or None."""
    headers: Headers = [(b"x-amzn-requestid", request_id.encode()), (b"content-type", JSON_1_1)]
    return Answer(200, headers, b"" if response is None else _encode(response))
