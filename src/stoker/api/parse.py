"""From a routed request to the typed record of its operation. Pure: bytes in, record or error out."""

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, cast
from urllib.parse import unquote_to_bytes

import msgspec

from stoker.api.canonical import split_query
from stoker.api.model import Operation, Parameter
from stoker.api.validate import check, serialization_error
from stoker.http.messages import Headers

_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,19}")

_decode = msgspec.json.Decoder().decode


def parse_request(
    operation: Operation, uri: dict[str, bytes], query: bytes, headers: Headers, body: bytes | memoryview
) -> msgspec.Struct:
    """The request record of a REST operation; ``uri`` holds its path parameters, still percent-encoded.

    Raises:
        ServiceError: SerializationException, ValidationException.
    """
    members = read_body(operation, body)
    for parameter in operation.uri_parameters:
        members[parameter.member] = read_scalar(parameter.kind, _text(unquote_to_bytes(uri[parameter.wire])))
    if query and operation.query_parameters:
        _add_query(operation.query_parameters, query, members)
    for parameter in operation.header_parameters:
        name = parameter.wire.encode()
        value = next((v for n, v in headers if n == name), None)
        if value is not None:
            members[parameter.member] = read_scalar(parameter.kind, _text(value))
    return build_record(operation, members)


def build_record(
    operation: Operation, members: dict[str, Any], code: str = "ValidationException"
) -> msgspec.Struct:
    """Check the gathered members and make the record of them.

    Raises:
        ServiceError: SerializationException, or ``code`` for violated constraints.
    """
    check(members, operation.rule, code)
    try:
        return msgspec.convert(members, operation.request_type)
    except msgspec.ValidationError as error:
        # Types were checked already: what is left is base64 that is none.
        raise serialization_error(str(error)) from None


def read_body(operation: Operation, body: bytes | memoryview) -> dict[str, Any]:
    """The members that the body holds, by their wire names."""
    if operation.payload is not None:
        return _read_payload(operation, operation.payload, body)
    if not operation.reads_json or not len(body):
        return {}
    members = read_json(body)
    for name in operation.outside_body:
        members.pop(name, None)
    return members


def read_json(body: bytes | memoryview) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ServiceError: SerializationException.
    """
    value = _read_value(body)
    if value is None:
        return {}
    if not isinstance(value, dict):
        if isinstance(value, list):
            raise serialization_error("Start of list found where not expected")
        raise serialization_error("Unexpected value where a structure is expected")
    return cast("dict[str, Any]", value)


def _read_payload(operation: Operation, member: str, body: bytes | memoryview) -> dict[str, Any]:
    if not len(body):
        return {}
    if operation.payload_is_blob:
        return {member: bytes(body)}
    return {member: _read_value(body)}


def _read_value(body: bytes | memoryview) -> Any:
    try:
        return _decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise serialization_error("The request body is not valid JSON.") from None


def _add_query(parameters: tuple[Parameter, ...], query: bytes, members: dict[str, Any]) -> None:
    pairs: dict[bytes, list[bytes]] = {}
    for name, value in split_query(query):
        pairs.setdefault(name, []).append(value)
    for parameter in parameters:
        values = pairs.get(parameter.wire.encode())
        if values is None:
            continue
        if parameter.many:
            members[parameter.member] = [read_scalar(parameter.kind, _text(value)) for value in values]
        elif len(values) > 1:
            raise serialization_error(f"Query parameter {parameter.wire} is given {len(values)} times")
        elif values[0] or parameter.kind == "string":
            members[parameter.member] = read_scalar(parameter.kind, _text(values[0]))


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise serialization_error("The request is not valid UTF-8.") from None


def _integer(text: str) -> int:
    # Python's int() also takes white space, underscores and every alphabet's digits.
    if _INTEGER.fullmatch(text) is None:
        raise ValueError(text)
    return int(text)


def _boolean(text: str) -> bool:
    return {"true": True, "false": False}[text.lower()]


def _timestamp(text: str) -> float:
    """Seconds since the epoch, or ISO 8601 as botocore writes it into query strings."""
    try:
        seconds = float(text)
    except ValueError:
        moment = datetime.fromisoformat(text)
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if not math.isfinite(seconds):
        raise ValueError(text)
    return seconds


_READERS: Final[dict[str, Callable[[str], Any]]] = {
    "integer": _integer,
    "long": _integer,
    "boolean": _boolean,
    "timestamp": _timestamp,
    "double": float,
    "float": float,
}
_NAMES: Final = {
    "integer": "an Integer",
    "long": "a Long",
    "boolean": "a Boolean",
    "timestamp": "a Timestamp",
}


def read_scalar(kind: str, text: str) -> Any:
    """The value of a scalar that came as text; SerializationException when it is none of its kind."""
    reader = _READERS.get(kind)
    if reader is None:
        return text
    try:
        return reader(text)
    except (ValueError, KeyError, OverflowError):
        raise serialization_error(
            f"STRING_VALUE can not be converted to {_NAMES.get(kind, 'a Double')}"
        ) from None
