"""Compiles botocore's models into the tables that serve requests; the models themselves are not kept.

Everything that depends on how a service describes itself is decided here, once, at start.
"""

from typing import Any, Final

import msgspec

from stoker.api.generate import load_model, select_operations
from stoker.api.shapes import Compiler, Rule
from stoker.services import iam_types, lambda_types, logs_types, sts_types

Model = dict[str, Any]

LAMBDA: Final = "lambda"
LOGS: Final = "logs"
IAM: Final = "iam"
STS: Final = "sts"

_TYPES: Final[dict[str, Any]] = {LAMBDA: lambda_types, LOGS: logs_types, IAM: iam_types, STS: sts_types}

REQUEST_MAX_BYTES: Final = 6_291_456
"""Of every operation without a limit of its own."""
CODE_REQUEST_MAX_BYTES: Final = 70_167_211
"""Of those that carry a zip file: 50 MB in base64, and the rest of the request."""
_CODE_OPERATIONS: Final = frozenset({"CreateFunction", "UpdateFunctionCode", "PublishLayerVersion"})


class Parameter(msgspec.Struct, frozen=True):
    """An input member outside the body: where it stands and what it decodes to."""

    wire: str
    """The name in the URI template, query string or header (then lower-case)."""
    member: str
    kind: str
    """A type of the model; of a list, that of its elements."""
    many: bool = False


class Output(msgspec.Struct, frozen=True):
    """Where members of an answer go that are not in its JSON body."""

    status: str | None = None
    headers: tuple[tuple[bytes, str], ...] = ()
    payload: str | None = None
    """The member that is the whole body. All names are attributes of the record."""

    @property
    def is_plain(self) -> bool:
        """The record as JSON is the whole answer."""
        return not (self.status or self.headers or self.payload)


class Operation(msgspec.Struct, eq=False):
    """One operation: how its request is read and how its answer is written."""

    service: str
    name: str
    method: bytes
    uri: str
    status: int
    rule: Rule
    request_type: type[msgspec.Struct]
    response_type: type[msgspec.Struct] | None
    output: Output
    uri_parameters: tuple[Parameter, ...] = ()
    query_parameters: tuple[Parameter, ...] = ()
    header_parameters: tuple[Parameter, ...] = ()
    payload: str | None = None
    """The input member that is the whole body, if one is."""
    payload_is_blob: bool = False
    reads_json: bool = False
    outside_body: tuple[str, ...] = ()
    """Members that a body must not bring along, because they have their place elsewhere in the request."""
    body_max_bytes: int = REQUEST_MAX_BYTES
    answer_rule: Rule | None = None
    """What its answer consists of, where that must be known to write it (XML)."""
    answer_wrapper: str = ""


class ErrorShape(msgspec.Struct, frozen=True):
    """How a modelled error looks: its status, the spelling of its message, and members sent as headers."""

    status: int
    message: str
    members: frozenset[str]
    headers: dict[str, bytes]


class Service(msgspec.Struct, eq=False):
    """One service, compiled."""

    name: str
    operations: dict[str, Operation]
    known: frozenset[str]
    """All operations that the service has, served or not."""
    errors: dict[str, ErrorShape]
    target_prefix: str
    namespace: str = ""
    """Of its XML; empty for services that speak JSON."""

    @property
    def speaks_xml(self) -> bool:
        """The query protocol: forms in, XML out."""
        return bool(self.namespace)


def compile_service(name: str) -> Service:
    """The tables of one service."""
    model = load_model(name)
    compiler = Compiler(model["shapes"])
    types = _TYPES[name]
    operations: dict[str, Operation] = {}
    for operation in select_operations(name, model):
        request_type = types.INPUT[operation]
        assert request_type is not None, f"{operation} has no input"
        operations[operation] = _operation(
            name, model, compiler, operation, request_type, types.OUTPUT[operation]
        )
    return Service(
        name,
        operations,
        frozenset(model["operations"]),
        {_error_code(n, s): _error(s) for n, s in model["shapes"].items() if s.get("exception")},
        model["metadata"].get("targetPrefix", ""),
        model["metadata"].get("xmlNamespace", ""),
    )


def _operation(
    service: str,
    model: Model,
    compiler: Compiler,
    name: str,
    request_type: type[msgspec.Struct],
    response_type: type[msgspec.Struct] | None,
) -> Operation:
    description = model["operations"][name]
    shapes = model["shapes"]
    shape = shapes[description["input"]["shape"]]
    payload = shape.get("payload")
    in_body = [m for m in shape["members"].values() if "location" not in m]
    return Operation(
        service,
        name,
        description["http"]["method"].encode(),
        description["http"]["requestUri"],
        description["http"].get("responseCode", 200),
        compiler.rule(description["input"]["shape"]),
        request_type,
        response_type,
        _output(shapes, description.get("output")),
        _parameters(shapes, shape, "uri"),
        _parameters(shapes, shape, "querystring"),
        _parameters(shapes, shape, "header"),
        payload,
        payload is not None and shapes[shape["members"][payload]["shape"]]["type"] == "blob",
        payload is None and bool(in_body),
        tuple(name for name, m in shape["members"].items() if "location" in m),
        CODE_REQUEST_MAX_BYTES if name in _CODE_OPERATIONS else REQUEST_MAX_BYTES,
        compiler.rule(description["output"]["shape"]) if "output" in description else None,
        description.get("output", {}).get("resultWrapper", ""),
    )


def _parameters(shapes: Model, shape: Model, location: str) -> tuple[Parameter, ...]:
    found: list[Parameter] = []
    for member, reference in shape["members"].items():
        if reference.get("location") != location:
            continue
        target = shapes[reference["shape"]]
        many = target["type"] == "list"
        kind = shapes[target["member"]["shape"]]["type"] if many else target["type"]
        wire: str = reference.get("locationName", member)
        found.append(Parameter(wire.lower() if location == "header" else wire, member, kind, many))
    return tuple(found)


def _output(shapes: Model, reference: Model | None) -> Output:
    if reference is None:
        return Output()
    shape = shapes[reference["shape"]]
    status: str | None = None
    headers: list[tuple[bytes, str]] = []
    for member, target in shape["members"].items():
        if target.get("location") == "statusCode":
            status = member
        elif target.get("location") == "header":
            headers.append((target["locationName"].encode(), member))
    return Output(status, tuple(headers), shape.get("payload"))


def _error_code(name: str, shape: Model) -> str:
    """Query services spell their errors without "Exception" (``NoSuchEntity``)."""
    return shape.get("error", {}).get("code", name)


def _error(shape: Model) -> ErrorShape:
    members = shape["members"]
    fallback = 500 if shape.get("fault") else 400
    return ErrorShape(
        shape.get("error", {}).get("httpStatusCode", fallback),
        "Message" if "Message" in members else "message",
        frozenset(m for m, reference in members.items() if "location" not in reference),
        {m: r["locationName"].encode() for m, r in members.items() if r.get("location") == "header"},
    )
