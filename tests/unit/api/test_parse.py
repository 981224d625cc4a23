"""Every operation's request, as botocore serialises it, arrives as the same values in its record."""

import base64
import json
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.serialize import create_serializer
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from stoker.api.model import compile_service
from stoker.api.parse import parse_request
from stoker.api.router import Router
from stoker.api.shapes import Rule
from stoker.core.errors import ServiceError

LAMBDA = compile_service("lambda")
ROUTER = Router(LAMBDA.operations.values())
MODEL = ServiceModel(Loader().load_service_model("lambda", "service-2"), "lambda")
SERIALIZER = create_serializer("rest-json", include_validation=False)
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)


def strings(rule: Rule) -> st.SearchStrategy[str]:
    low, high = int(rule.minimum or 0), int(min(rule.maximum or 200, 200))
    if rule.enum:
        return st.sampled_from(sorted(rule.enum))
    if rule.pattern is not None:
        return st.from_regex(rule.pattern, fullmatch=True).filter(lambda s: low <= len(s) <= rule_max(rule))
    return st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=low, max_size=high)


def rule_max(rule: Rule) -> float:
    return rule.maximum if rule.maximum is not None else 1000


def few(rule: Rule) -> int:
    return int(min(max(rule.minimum or 0, 2), rule_max(rule)))


def scalars(rule: Rule) -> st.SearchStrategy[Any]:
    low = rule.minimum or 0
    if rule.kind == "string":
        return strings(rule)
    if rule.kind in ("integer", "long"):
        return st.integers(int(low), int(rule.maximum if rule.maximum is not None else 2**31 - 1))
    if rule.kind in ("double", "float"):
        return st.floats(low, rule.maximum if rule.maximum is not None else 1e6)
    if rule.kind == "boolean":
        return st.booleans()
    if rule.kind == "timestamp":
        return st.integers(0, 4_000_000_000).map(float)
    return st.binary(min_size=int(low), max_size=30)


def values(rule: Rule, depth: int = 0) -> st.SearchStrategy[Any]:
    if rule.kind == "structure":
        if depth > 4:
            return st.just({})
        required = {m.wire: values(m.rule, depth + 1) for m in rule.members if m.required}
        optional = {m.wire: values(m.rule, depth + 1) for m in rule.members if not m.required}
        return st.fixed_dictionaries(required, optional=optional)
    if rule.kind == "list":
        assert rule.element is not None
        low = int(rule.minimum or 0)
        return st.lists(values(rule.element, depth + 1), min_size=low, max_size=few(rule))
    if rule.kind == "map":
        assert rule.key is not None
        assert rule.element is not None
        low = int(rule.minimum or 0)
        return st.dictionaries(
            scalars(rule.key), values(rule.element, depth + 1), min_size=low, max_size=few(rule)
        )
    return scalars(rule)


def plain(value: Any) -> Any:
    """As ``msgspec.to_builtins`` shows a record."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    return tuple(plain(v) for v in value) if isinstance(value, list) else value


def send(name: str, members: dict[str, Any]) -> msgspec.Struct:
    """Through botocore's serialiser and our router and parser."""
    wire = SERIALIZER.serialize_to_request(members, MODEL.operation_model(name))
    pairs = [(k, v) for k, vs in wire["query_string"].items() for v in (vs if isinstance(vs, list) else [vs])]
    query = "&".join(f"{quote(str(k), safe='-_.~')}={quote(str(v), safe='-_.~')}" for k, v in pairs)
    path, _, fixed = wire["url_path"].partition("?")
    query = "&".join(part for part in (fixed, query) if part)
    headers = [(k.lower().encode(), str(v).encode()) for k, v in wire["headers"].items()]
    body = wire["body"] if isinstance(wire["body"], bytes) else wire["body"].encode()
    match = ROUTER.match(wire["method"].encode(), path.encode(), query.encode())
    assert match is not None
    assert match.operation.name == name
    return parse_request(match.operation, match.parameters, query.encode(), headers, body)


# Failures are small enough as they are; shrinking through regular expressions takes minutes.
ROUND_TRIP = settings(
    max_examples=5,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)


# What stands in a path must not be empty or made of dots, and header values are ASCII without outer spaces:
# the model allows more than HTTP carries.
def carried(name: str, members: dict[str, Any]) -> bool:
    operation = LAMBDA.operations[name]
    in_path = [members[p.member] for p in operation.uri_parameters]
    in_headers = [str(members.get(p.member, "a")) for p in operation.header_parameters]
    return all(str(v) not in ("", ".", "..") for v in in_path) and all(
        v.isascii() and v.isprintable() and v == v.strip() for v in in_headers
    )


@pytest.mark.parametrize("name", sorted(LAMBDA.operations))
@ROUND_TRIP
@given(data=st.data())
def test_round_trip(name: str, data: st.DataObject) -> None:
    operation = LAMBDA.operations[name]
    members = data.draw(values(operation.rule).filter(lambda m: carried(name, m)))
    if operation.payload and not members.get(operation.payload):
        members.pop(operation.payload, None)
        if any(m.required and m.wire == operation.payload for m in operation.rule.members):
            members[operation.payload] = b"{}"
        if not operation.payload_is_blob:
            # botocore writes an absent structure as an empty one.
            members[operation.payload] = {}
    for parameter in operation.query_parameters:
        # An empty list has no form in a query string.
        if members.get(parameter.member) == []:
            del members[parameter.member]
            if any(m.required and m.wire == parameter.member for m in operation.rule.members):
                members[parameter.member] = ["a"]
    record = send(name, members)
    assert type(record) is operation.request_type
    assert msgspec.to_builtins(record) == plain(members)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


@given(data=st.data())
def test_junk_is_refused_in_words(data: st.DataObject) -> None:
    """Whatever is sent to whatever operation: a record, or an error of the API; never anything else."""
    operation = data.draw(st.sampled_from(sorted(LAMBDA.operations.values(), key=lambda o: o.name)))
    names = [m.wire for m in operation.rule.members] or ["none"]
    document = data.draw(st.dictionaries(st.sampled_from(names), JUNK, max_size=4) | JUNK)
    body = data.draw(st.just(json.dumps(document).encode("utf-8", "replace")) | st.binary(max_size=30))
    uri = {p.wire: data.draw(st.binary(min_size=1, max_size=10)) for p in operation.uri_parameters}
    query = data.draw(st.binary(max_size=20)) + b"".join(
        b"&" + p.wire.encode() + b"=" + data.draw(st.binary(max_size=8)) for p in operation.query_parameters
    )
    headers = [(p.wire.encode(), data.draw(st.binary(max_size=8))) for p in operation.header_parameters]
    try:
        record = parse_request(operation, uri, query, headers, body)
    except ServiceError as error:
        code = error.code
    else:
        code = ""
        assert type(record) is operation.request_type
    assert code in ("", "SerializationException", "ValidationException")


@pytest.mark.parametrize("number", ["", "+", "1_0", "%201", "1%20", "%D9%A1", "1.0", "1e1", "0x1", "9" * 20])
def test_what_only_python_takes_for_an_integer(number: str) -> None:
    operation = LAMBDA.operations["ListFunctions"]
    query = f"MaxItems={number}".encode()
    if not number:
        assert msgspec.to_builtins(parse_request(operation, {}, query, [], b"")) == {}
        return
    with pytest.raises(ServiceError) as refused:
        parse_request(operation, {}, query, [], b"")
    assert refused.value.code == "SerializationException"


def test_members_of_uri_and_query_do_not_come_from_the_body() -> None:
    operation = LAMBDA.operations["UpdateFunctionCode"]
    record = parse_request(
        operation, {"FunctionName": b"f"}, b"", [], b'{"FunctionName":"g","ImageUri":"i","Unknown":1}'
    )
    assert msgspec.to_builtins(record) == {"FunctionName": "f", "ImageUri": "i"}
    operation = LAMBDA.operations["AddPermission"]
    body = b'{"StatementId":"s","Action":"lambda:*","Principal":"p","Qualifier":"smuggled"}'
    assert "Qualifier" not in msgspec.to_builtins(
        parse_request(operation, {"FunctionName": b"f"}, b"", [], body)
    )


@pytest.mark.parametrize(
    ("method", "path", "query", "name"),
    [
        (b"GET", b"/2015-03-31/functions", b"", "ListFunctions"),
        (b"GET", b"/2015-03-31/functions/", b"", "ListFunctions"),
        (b"POST", b"/2015-03-31/functions", b"", "CreateFunction"),
        (b"GET", b"/2018-10-31/layers", b"", "ListLayers"),
        (b"GET", b"/2018-10-31/layers", b"find=LayerVersion&Arn=a", "GetLayerVersionByArn"),
        (
            b"GET",
            b"/2019-09-30/functions/f/provisioned-concurrency",
            b"List=ALL",
            "ListProvisionedConcurrencyConfigs",
        ),
        (
            b"GET",
            b"/2019-09-30/functions/f/provisioned-concurrency",
            b"Qualifier=1",
            "GetProvisionedConcurrencyConfig",
        ),
        (b"GET", b"/2019-09-25/functions/f/event-invoke-config/list", b"", "ListFunctionEventInvokeConfigs"),
        (b"GET", b"/2015-03-31/functions/a%2Fb", b"", "GetFunction"),
        (b"PATCH", b"/2015-03-31/functions", b"", None),
        (b"GET", b"/2015-03-31/functions//policy", b"", None),
        (b"GET", b"/2015-03-31/functions/../policy", b"", None),
        (b"GET", b"/2015-03-31/functions/f/", b"", "GetFunction"),
        (b"GET", b"//2015-03-31/functions", b"", None),
        (b"GET", b"", b"", None),
        (b"OPTIONS", b"*", b"", None),
    ],
)
def test_routes(method: bytes, path: bytes, query: bytes, name: str | None) -> None:
    match = ROUTER.match(method, path, query)
    assert (match.operation.name if match else None) == name
