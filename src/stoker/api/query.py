"""The query protocol of IAM and STS: forms in, XML out, driven by the model. Pure.

``Tags.member.1.Key=a`` names a member by its path; lists count from 1.
"""

import base64
import re
from datetime import UTC, datetime
from typing import Any, Final, cast
from urllib.parse import parse_qsl

import msgspec

from stoker.api.errors import not_implemented
from stoker.api.model import Operation, Service
from stoker.api.parse import build_record, read_scalar
from stoker.api.query_errors import xml_text
from stoker.api.serialise import Answer
from stoker.api.shapes import Rule
from stoker.api.validate import serialization_error
from stoker.core.errors import ServiceError
from stoker.http.messages import Headers

XML: Final = b"text/xml"

PAIRS_MAX: Final = 10_000
DEPTH_MAX: Final = 16

_SCOPE: Final = re.compile(
    rb"(?:Credential=|X-Amz-Credential=)[^,&\s]*?(?:/|%2F)(iam|sts)(?:/|%2F)aws4_request"
)

Tree = dict[str, Any]


def named_service(authorization: bytes | None, query: bytes) -> str | None:
    """``iam`` or ``sts`` when that is what a request to / says it is signed for; unverified."""
    match = _SCOPE.search(authorization or query)
    return None if match is None else match[1].decode()


def read_form(form: bytes) -> dict[str, str]:
    """The pairs of a form; the last of a name wins.

    Raises:
        ServiceError: not UTF-8, or without end.
    """
    try:
        text = form.decode("ascii")
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=PAIRS_MAX)
    except ValueError:
        raise serialization_error("The request is no form, or one without end.") from None
    return dict(pairs)


def find_query_operation(service: Service, form: dict[str, str]) -> Operation:
    """The operation that ``Action`` names.

    Raises:
        ServiceError: MissingAction, InvalidAction, or NotImplemented for what only AWS has.
    """
    name = form.get("Action")
    if name is None:
        raise ServiceError("MissingAction", "The request must contain the parameter Action.")
    operation = service.operations.get(name)
    if operation is not None:
        return operation
    if name in service.known:
        raise not_implemented(service.name, name)
    raise ServiceError("InvalidAction", f"Could not find operation {name} for version {form.get('Version')}")


def parse_query_request(operation: Operation, form: dict[str, str]) -> msgspec.Struct:
    """The request record.

    Raises:
        ServiceError: MalformedInput, ValidationError.
    """
    tree: Tree = {}
    for name, value in form.items():
        _plant(tree, name.split("."), value)
    return build_record(operation, _structure(tree, operation.rule), "ValidationError")


def _plant(tree: Tree, path: list[str], value: str) -> None:
    if len(path) > DEPTH_MAX:
        raise serialization_error("The input is nested too deeply.")
    for step in path[:-1]:
        below = tree.setdefault(step, {})
        if not isinstance(below, dict):
            raise serialization_error(f"{'.'.join(path)} is both a value and a structure.")
        tree = cast("Tree", below)
    if isinstance(tree.get(path[-1]), dict):
        raise serialization_error(f"{'.'.join(path)} is both a value and a structure.")
    tree[path[-1]] = value


def _structure(tree: Any, rule: Rule) -> dict[str, Any]:
    if not isinstance(tree, dict):
        raise serialization_error("Unexpected value where a structure is expected")
    known = cast("Tree", tree)
    return {each.wire: _value(known[each.wire], each.rule) for each in rule.members if each.wire in known}


def _value(tree: Any, rule: Rule) -> Any:
    if rule.kind == "structure":
        return _structure(tree, rule)
    if rule.kind == "list":
        return _list(tree, cast("Rule", rule.element))
    if not isinstance(tree, str):
        raise serialization_error("Start of structure or map found where not expected.")
    return read_scalar(rule.kind, tree)


def _list(tree: Any, element: Rule) -> list[Any]:
    if tree == "":
        return []
    members = cast("Tree", tree).get("member") if isinstance(tree, dict) else None
    if not isinstance(members, dict):
        raise serialization_error("A list is given as member.1, member.2 and so on.")
    items = cast("Tree", members)
    if not all(position.isdecimal() and position.isascii() and len(position) < 6 for position in items):
        raise serialization_error("A list is given as member.1, member.2 and so on.")
    return [_value(items[position], element) for position in sorted(items, key=int)]


# --- the way out


def serialise_query_response(
    service: Service, operation: Operation, response: Any, request_id: str
) -> Answer:
    """The answer of an operation; ``response`` is its record, or None where it has none.

    Raises:
        TypeError: the handler returned a record of another operation.
    """
    result = ""
    if operation.answer_rule is not None:
        expected = operation.response_type
        if expected is None or not isinstance(response, expected):
            raise TypeError(f"{operation.name} must answer with its own record")
        inner = _members(msgspec.to_builtins(response), operation.answer_rule)
        result = f"<{operation.answer_wrapper}>{inner}</{operation.answer_wrapper}>"
    text = (
        f'<{operation.name}Response xmlns="{service.namespace}">{result}'
        f"<ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata></{operation.name}Response>"
    )
    return Answer(200, _headers(request_id), text.encode())


def _headers(request_id: str) -> Headers:
    return [(b"x-amzn-requestid", request_id.encode()), (b"content-type", XML)]


def _members(value: dict[str, Any], rule: Rule) -> str:
    return "".join(
        f"<{each.wire}>{_written(value[each.wire], each.rule)}</{each.wire}>"
        for each in rule.members
        if value.get(each.wire) is not None
    )


def _written(value: Any, rule: Rule) -> str:
    match rule.kind:
        case "structure":
            return _members(value, rule)
        case "list":
            element = cast("Rule", rule.element)
            return "".join(f"<member>{_written(item, element)}</member>" for item in value)
        case "boolean":
            return "true" if value else "false"
        case "timestamp":
            return datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        case "blob":
            return base64.b64encode(value).decode() if isinstance(value, bytes) else xml_text(value)
        case _:
            return xml_text(str(value))
