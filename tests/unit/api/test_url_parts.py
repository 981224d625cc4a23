"""Function URLs between HTTP and events: addresses, events, responses and CORS, as tables and on anything."""

import base64
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.api.url_addresses import UrlAddress, UrlAddresses
from stoker.api.url_cors import is_preflight, preflight_headers, with_cors
from stoker.api.url_events import Arrival, Signer, query_parameters, split_cookies, text_of, url_event
from stoker.api.url_responses import InvalidAnswer, url_response
from stoker.http.messages import Headers, Request
from stoker.http.wire import serialise_head
from stoker.services.context import RequestContext
from stoker.services.lambda_types import Cors

ID = "abcdefghijklmnopqrstuvwxyz234567"
HOST = f"{ID}.lambda-url.eu-west-1.example.org"
ADDRESSES = UrlAddresses("example.org", "us-east-1")
JSON = (b"content-type", b"application/json")


def request(
    host: str = f"{HOST}:9797",
    method: bytes = b"GET",
    headers: Headers | None = None,
    peer: str = "192.0.2.1:5",
) -> Request:
    return Request(method, b"/", [(b"host", host.encode()), *(headers or [])], peer, False)


# --- addresses


@pytest.mark.parametrize(
    ("host", "path", "url_id", "region", "seen"),
    [
        (HOST, b"/a", ID, "eu-west-1", b"/a"),
        (f"{HOST}:9797", b"/", ID, "eu-west-1", b"/"),
        (HOST.upper(), b"/A", ID, "eu-west-1", b"/A"),
        (f"{HOST}.", b"/2015-03-31/functions/f/invocations", ID, "eu-west-1", None),
        (f"{HOST}:9797", f"/_stoker/url/{ID}/x".encode(), ID, "eu-west-1", None),
        ("x.lambda-url.eu-west-1.example.org", b"/health", "", "eu-west-1", b"/health"),
        (".lambda-url.eu-west-1.example.org", b"/", "", "eu-west-1", b"/"),
        (f"a.{HOST}", b"/", "", "eu-west-1", b"/"),
        (f"evil.test/{HOST}", b"/", "", "eu-west-1", b"/"),
        ("127.0.0.1:9797", f"/_stoker/url/{ID}".encode(), ID, "us-east-1", b"/"),
        ("127.0.0.1:9797", f"/_stoker/url/{ID}/a//b/".encode(), ID, "us-east-1", b"/a//b/"),
        ("127.0.0.1:9797", f"/_stoker/url/{ID}.eu-west-1/a".encode(), ID, "eu-west-1", b"/a"),
        (
            "127.0.0.1",
            f"/_stoker/url/{ID}/../../2015-03-31/x".encode(),
            ID,
            "us-east-1",
            b"/../../2015-03-31/x",
        ),
        ("127.0.0.1", b"/_stoker/url/../../2015-03-31/x", "", "", b"/../2015-03-31/x"),
        ("127.0.0.1", f"/_stoker/url/{ID.upper()}/".encode(), "", "", b"/"),
    ],
)
def test_what_is_for_a_url(host: str, path: bytes, url_id: str, region: str, seen: bytes | None) -> None:
    found = ADDRESSES.find(request(host), path)
    assert found is not None
    assert (found.url_id, found.region, found.path) == (url_id, region, path if seen is None else seen)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:9797",
        "",
        "example.org",
        f"{ID}.lambda-url.eu-west-1.example.com",
        f"{ID}.lambda-url.example.org",
        f"{ID}.lambda-url.eu-west-1.example.org.evil.test",
        f"evil/{ID}.lambda-url.eu-west-1.exampleXorg",
        f"{HOST}:port",
        f"{HOST} x",
    ],
)
@pytest.mark.parametrize("path", [b"/", b"/_stoker/code/x", b"/2015-03-31/functions", b"/_stoker/url"])
def test_what_is_for_the_api(host: str, path: bytes) -> None:
    assert ADDRESSES.find(request(host), path) is None


@given(st.binary(max_size=80), st.binary(max_size=80))
def test_no_host_and_no_path_break_the_search(host: bytes, path: bytes) -> None:
    found = ADDRESSES.find(Request(b"GET", b"/", [(b"host", host)], "p", False), b"/" + path)
    assert found is None or found.path.startswith(b"/")


# --- events


def arrival(**changes: Any) -> Arrival:
    given: dict[str, Any] = {
        "address": UrlAddress(ID, "eu-west-1", f"{HOST}:9797", b"/my/path"),
        "account": "123456789012",
        "request_id": "id",
        "trace_id": "Root=1-2-3",
        "now_s": 1583348638.39,
    }
    return Arrival(**given | changes)


def event(sent: Request, query: bytes = b"", body: bytes = b"", **changes: Any) -> dict[str, Any]:
    return json.loads(url_event(sent, query, body, arrival(**changes)))


def test_the_whole_event_of_a_stranger() -> None:
    sent = request(
        method=b"POST",
        headers=[
            (b"header1", b"value1"),
            (b"header2", b"value1"),
            (b"header2", b"value2"),
            (b"cookie", b"cookie1; cookie2=a"),
            (b"content-type", b"text/plain"),
            (b"user-agent", b"agent"),
            (b"connection", b"keep-alive"),
            (b"authorization", b"Bearer t"),
        ],
    )
    assert event(sent, b"parameter1=value1&parameter1=value2&parameter2=value", b"Hello from client!") == {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": "/my/path",
        "rawQueryString": "parameter1=value1&parameter1=value2&parameter2=value",
        "cookies": ["cookie1", "cookie2=a"],
        "headers": {
            "host": f"{HOST}:9797",
            "header1": "value1",
            "header2": "value1,value2",
            "cookie": "cookie1; cookie2=a",
            "content-type": "text/plain",
            "user-agent": "agent",
            "authorization": "Bearer t",
            "x-forwarded-for": "192.0.2.1",
            "x-forwarded-proto": "http",
            "x-forwarded-port": "9797",
            "x-amzn-trace-id": "Root=1-2-3",
        },
        "queryStringParameters": {"parameter1": "value1,value2", "parameter2": "value"},
        "requestContext": {
            "accountId": "anonymous",
            "apiId": ID,
            "domainName": f"{HOST}:9797",
            "domainPrefix": ID,
            "http": {
                "method": "POST",
                "path": "/my/path",
                "protocol": "HTTP/1.1",
                "sourceIp": "192.0.2.1",
                "userAgent": "agent",
            },
            "requestId": "id",
            "routeKey": "$default",
            "stage": "$default",
            "time": "04/Mar/2020:19:03:58 +0000",
            "timeEpoch": 1583348638390,
        },
        "body": "Hello from client!",
        "isBase64Encoded": False,
    }


def test_a_signer_is_shown_and_its_credentials_are_not() -> None:
    context = RequestContext(
        "id", "111122223333", "eu-west-1", "AKIA", "arn:aws:iam::111122223333:user/u", "", ""
    )
    sent = request(headers=[(b"authorization", b"AWS4-HMAC-SHA256 ..."), (b"x-amz-security-token", b"t")])
    shown = event(sent, signer=Signer(context, "AIDA"))
    assert shown["requestContext"]["accountId"] == "123456789012"
    assert shown["requestContext"]["authentication"] is None
    assert shown["requestContext"]["authorizer"] == {
        "iam": {
            "accessKey": "AKIA",
            "accountId": "111122223333",
            "callerId": "AIDA",
            "cognitoIdentity": None,
            "principalOrgId": None,
            "userArn": "arn:aws:iam::111122223333:user/u",
            "userId": "AIDA",
        }
    }
    assert not {"authorization", "x-amz-security-token"} & set(shown["headers"])
    presigned = b"a=b&X-Amz-Algorithm=x&X-Amz-Signature=y&X-Amz-Security-Token=t&X-Amz-Own=z&c"
    shown = event(sent, presigned, signer=Signer(context, "AIDA"))
    assert shown["rawQueryString"] == "a=b&X-Amz-Own=z&c"
    assert shown["queryStringParameters"] == {"a": "b", "X-Amz-Own": "z", "c": ""}


def test_what_is_not_there_is_left_out() -> None:
    shown = event(request())
    assert not {"cookies", "queryStringParameters", "body"} & set(shown)
    assert shown["isBase64Encoded"] is False


@pytest.mark.parametrize(
    ("content_type", "body", "text"),
    [
        ("application/json", b'{"a":1}', True),
        ("application/json; charset=utf-8", "é".encode(), True),
        ("application/problem+json", b"{}", True),
        ("TEXT/HTML", b"x", True),
        ("application/javascript", b"x", True),
        ("image/svg+xml", b"x", True),
        ("text/plain", b"\xff", False),
        ("", b"x", False),
        ("application/x-www-form-urlencoded", b"a=b", False),
        ("multipart/form-data; boundary=text", b"--text", False),
        ("application/octet-stream", b"x", False),
    ],
)
def test_which_bodies_are_text(content_type: str, body: bytes, text: bool) -> None:
    assert text_of(body, content_type) == (body.decode() if text else None)
    shown = event(request(headers=[(b"content-type", content_type.encode())]), b"", body)
    assert shown["isBase64Encoded"] is not text
    assert shown["body"] == (body.decode() if text else base64.b64encode(body).decode())


@pytest.mark.parametrize(
    ("raw", "parameters"),
    [
        ("a=1&b=2", {"a": "1", "b": "2"}),
        ("a=1&a=&a=3", {"a": "1,,3"}),
        ("a", {"a": ""}),
        ("&&", {}),
        ("a+b=%20%2C&%41=c=d", {"a b": " ,", "A": "c=d"}),
    ],
)
def test_query_parameters(raw: str, parameters: dict[str, str]) -> None:
    assert query_parameters(raw) == parameters


def test_cookies() -> None:
    assert split_cookies("a=b;c=d ;; e") == ["a=b", "c=d", "e"]
    assert split_cookies("") == []


def test_who_came_before_is_kept_and_the_last_is_the_peer() -> None:
    sent = request(
        headers=[(b"x-forwarded-for", b"198.51.100.7"), (b"x-forwarded-proto", b"https")], peer="[::1]:7"
    )
    shown = event(sent)
    assert shown["headers"]["x-forwarded-for"] == "198.51.100.7, ::1"
    assert shown["headers"]["x-forwarded-proto"] == "http"
    assert shown["requestContext"]["http"]["sourceIp"] == "::1"


@given(
    st.lists(
        st.tuples(st.binary(min_size=1, max_size=10).map(bytes.lower), st.binary(max_size=20)), max_size=8
    ),
    st.binary(max_size=40),
    st.binary(max_size=40),
    st.binary(max_size=40),
)
def test_every_request_becomes_json(headers: Headers, path: bytes, query: bytes, body: bytes) -> None:
    address = UrlAddress(ID, "r", HOST, b"/" + path)
    shown = event(Request(b"PUT", b"/", headers, "p", True), query, body, address=address)
    assert shown["rawPath"].encode("latin-1") == b"/" + path
    assert shown["rawQueryString"].encode("latin-1") == query
    sent = shown.get("body", "")
    assert (base64.b64decode(sent) if shown["isBase64Encoded"] else sent.encode()) == body


# --- responses


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        ({"hello": "world"}, b'{"hello":"world"}'),
        ("hello", b"hello"),
        (3, b"3"),
        (3.1, b"3.1"),
        (True, b"true"),
        (None, b"null"),
        (["hello", 3, True], b'["hello",3,true]'),
        ("", b""),
        ({"body": "x"}, b'{"body":"x"}'),
        ({"statusCode": 200, "body": "body123"}, b"body123"),
        ({"statusCode": 200, "body": '{"hello": "world"}'}, b'{"hello": "world"}'),
        ({"statusCode": 200, "body": {"a": 1}}, b'{"a":1}'),
        ({"statusCode": 200}, b""),
        ({"statusCode": 200, "body": None, "headers": None, "cookies": None, "isBase64Encoded": None}, b""),
        ({"statusCode": "200", "body": "aGk=", "isBase64Encoded": True}, b"hi"),
    ],
)
def test_answers_that_are_json_of_200(answer: Any, body: bytes) -> None:
    response = url_response(json.dumps(answer).encode())
    assert (response.status, response.headers, response.body) == (200, [JSON], body)


def test_what_is_no_json_is_the_body() -> None:
    assert url_response(b"<p>").body == b"<p>"
    assert url_response(b"[" * 100_000).status == 200


def test_headers_and_cookies() -> None:
    answer = {
        "statusCode": 201,
        "headers": {
            "Content-Type": "text/html",
            "X-Count": 3,
            "X-On": True,
            "Date": "d",
            "Connection": "close",
        },
        "cookies": ["a=b; Secure", "c=d"],
        "body": "x",
    }
    response = url_response(json.dumps(answer).encode())
    assert response.status == 201
    assert response.headers == [
        (b"content-type", b"text/html"),
        (b"x-count", b"3"),
        (b"x-on", b"true"),
        (b"x-amzn-remapped-date", b"d"),
        (b"x-amzn-remapped-connection", b"close"),
        (b"set-cookie", b"a=b; Secure"),
        (b"set-cookie", b"c=d"),
    ]


def test_statuses_without_a_body_have_none() -> None:
    assert url_response(b'{"statusCode":204,"body":"x"}').body == b""


@pytest.mark.parametrize(
    "answer",
    [
        {"statusCode": None},
        {"statusCode": "abc"},
        {"statusCode": 99},
        {"statusCode": 100},
        {"statusCode": 101},
        {"statusCode": 600},
        {"statusCode": True},
        {"statusCode": 200.5},
        {"statusCode": [200]},
        {"statusCode": 200, "headers": []},
        {"statusCode": 200, "headers": {"a": ["b"]}},
        {"statusCode": 200, "headers": {"a": None}},
        {"statusCode": 200, "headers": {"a": "b\r\nset-cookie: c"}},
        {"statusCode": 200, "headers": {"a\nb": "c"}},
        {"statusCode": 200, "cookies": "a=b"},
        {"statusCode": 200, "cookies": [1, ["x"]]},
        {"statusCode": 200, "cookies": ["a\r\nb: c"]},
        {"statusCode": 200, "isBase64Encoded": "yes"},
        {"statusCode": 200, "isBase64Encoded": True, "body": "not base64!"},
    ],
)
def test_answers_that_are_no_response(answer: Any) -> None:
    with pytest.raises(InvalidAnswer):
        url_response(json.dumps(answer).encode())


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "statusCode": st.integers(190, 610) | JSON_VALUES,
            "headers": st.dictionaries(st.text(max_size=6), st.text(max_size=6)) | JSON_VALUES,
            "cookies": st.lists(st.text(max_size=6)) | JSON_VALUES,
            "body": JSON_VALUES,
            "isBase64Encoded": st.booleans() | JSON_VALUES,
        },
    )
)
def test_whatever_a_function_answers_cannot_split_a_response(answer: dict[str, Any]) -> None:
    try:
        response = url_response(json.dumps(answer).encode())
    except InvalidAnswer:
        return
    assert 200 <= response.status <= 599
    for name, value in response.headers:
        assert not re.search(rb"[\r\n\0]", name + value)
        if re.fullmatch(rb"[a-z0-9-]+", name):
            serialise_head(response.status, [(name, value)])


# --- CORS


def origin(value: bytes = b"https://a.example", *more: tuple[bytes, bytes]) -> Request:
    return request(method=b"OPTIONS", headers=[(b"origin", value), *more])


def test_preflights() -> None:
    assert is_preflight(origin(b"o", (b"access-control-request-method", b"PUT")))
    assert not is_preflight(origin())
    assert not is_preflight(
        request(method=b"GET", headers=[(b"origin", b"o"), (b"access-control-request-method", b"P")])
    )


FULL = Cors(
    allow_credentials=True,
    allow_headers=("x-a", "x-b"),
    allow_methods=("GET", "PUT"),
    allow_origins=("https://a.example", "https://b.example"),
    expose_headers=("x-c",),
    max_age=60,
)


def test_the_answer_to_a_preflight() -> None:
    assert preflight_headers(FULL, origin()) == [
        (b"access-control-allow-origin", b"https://a.example"),
        (b"vary", b"Origin"),
        (b"access-control-allow-credentials", b"true"),
        (b"access-control-allow-methods", b"GET,PUT"),
        (b"access-control-allow-headers", b"x-a,x-b"),
        (b"access-control-max-age", b"60"),
    ]
    assert preflight_headers(FULL, origin(b"https://evil.example")) == []
    assert preflight_headers(Cors(), origin()) == []
    anybody = Cors(allow_origins=("*",), allow_methods=("*",))
    assert preflight_headers(anybody, origin()) == [
        (b"access-control-allow-origin", b"*"),
        (b"access-control-allow-methods", b"*"),
    ]


def test_the_url_overrides_what_a_function_says() -> None:
    said: Headers = [
        (b"access-control-allow-origin", b"*"),
        (b"access-control-expose-headers", b"x-d"),
        (b"access-control-max-age", b"9"),
        JSON,
    ]
    assert with_cors(said, FULL, origin()) == [
        JSON,
        (b"access-control-allow-origin", b"https://a.example"),
        (b"vary", b"Origin"),
        (b"access-control-allow-credentials", b"true"),
        (b"access-control-expose-headers", b"x-c"),
    ]
    assert with_cors(said, FULL, origin(b"https://evil.example")) == [JSON]
    assert with_cors(said, FULL, request()) == [JSON]


def test_a_configured_name_cannot_split_a_response() -> None:
    cors = Cors(allow_origins=("*",), allow_headers=("x\r\nset-cookie: a",))
    assert all(not re.search(rb"[\r\n\0]", value) for _, value in preflight_headers(cors, origin()))
