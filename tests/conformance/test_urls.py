"""Function URLs through plain HTTP clients: recorded answers, both auth types, both addresses, limits."""

import base64
import json
import re
import socket
import subprocess
import time
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.conformance.identities import user
from tests.conformance.recorded import answer, arn, created, refusal, violates
from tests.conformance.url_client import Answer, call, opened, signed_call
from tests.running import REGION, RunningStoker, python_zip

FORBIDDEN = {
    "Message": "Forbidden. For troubleshooting Function URL authorization issues, see: "
    "https://docs.aws.amazon.com/lambda/latest/dg/urls-auth.html"
}
UUID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"

# Answers with what it is sent as JSON, or shows the event as an HTTP echo does.
FUNCTION = """
import base64, json, time
def lambda_handler(event, context):
    path, query = event["rawPath"], event.get("queryStringParameters", {})
    if path == "/event":
        return event
    if path == "/error":
        raise ValueError("wanted")
    if path == "/sleep":
        time.sleep(30)
    if path == "/answer":
        body = event["body"]
        return json.loads(base64.b64decode(body) if event["isBase64Encoded"] else body)
    return {"statusCode": 200, "body": json.dumps({
        "args": query, "data": event.get("body", ""), "domain": event["requestContext"]["domainName"],
        "headers": event["headers"], "method": event["requestContext"]["http"]["method"],
        "origin": event["requestContext"]["http"]["sourceIp"], "path": path,
    })}
"""
CORS = {
    "AllowOrigins": ["https://a.example"],
    "AllowMethods": ["GET", "PUT"],
    "AllowHeaders": ["x-a"],
    "ExposeHeaders": ["x-b"],
    "AllowCredentials": True,
    "MaxAge": 60,
}


@pytest.fixture(scope="module")
def url(stoker: RunningStoker) -> str:
    created(stoker, "url-open", Code={"ZipFile": python_zip(FUNCTION)})
    return opened(stoker, "url-open")


@pytest.fixture(scope="module")
def iam_url(stoker: RunningStoker) -> str:
    created(stoker, "url-iam", Code={"ZipFile": python_zip(FUNCTION)})
    return opened(stoker, "url-iam", "AWS_IAM")


def answering(stoker: RunningStoker, url: str, wanted: Any, **headers: str) -> Answer:
    return call(stoker, url, "/answer", "POST", headers, json.dumps(wanted).encode())


# --- recorded


@pytest.mark.parametrize(
    ("wanted", "content"),
    [
        (True, b"true"),
        ({"hello": "world"}, b'{"hello":"world"}'),
        (3.1, b"3.1"),
        ({"statusCode": 200, "body": '{"hello": "world"}'}, b'{"hello": "world"}'),
        ({"statusCode": 200, "body": "body123"}, b"body123"),
        (3, b"3"),
        (["hello", 3, True], b'["hello",3,true]'),
        ("hello", b"hello"),
    ],
)
def test_answers_as_recorded(stoker: RunningStoker, url: str, wanted: Any, content: bytes) -> None:
    got = answering(stoker, url, wanted)
    assert (got.status, got.body) == (200, content)
    assert got.headers["content-type"] == "application/json"
    assert got.headers["content-length"] == str(len(content))


def test_creation_and_permission_as_recorded(stoker: RunningStoker) -> None:
    name, service = "url-made", stoker.client("lambda")
    created(stoker, name)
    made = answer(service.create_function_url_config, FunctionName=name, AuthType="NONE")
    assert re.fullmatch(
        rf"http://[a-z0-9]{{32}}\.lambda-url\.{REGION}\.localhost:{stoker.port}/", made.pop("FunctionUrl")
    )
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", made.pop("CreationTime"))
    assert made == {"AuthType": "NONE", "FunctionArn": arn(name), "HTTP": 201}
    allowed = answer(
        service.add_permission,
        FunctionName=name,
        StatementId="urlPermission",
        Action="lambda:InvokeFunctionUrl",
        Principal="*",
        FunctionUrlAuthType="NONE",
    )
    assert (json.loads(allowed["Statement"]), allowed["HTTP"]) == (
        {
            "Action": "lambda:InvokeFunctionUrl",
            "Condition": {"StringEquals": {"lambda:FunctionUrlAuthType": "NONE"}},
            "Effect": "Allow",
            "Principal": "*",
            "Resource": arn(name),
            "Sid": "urlPermission",
        },
        201,
    )


def test_headers_and_query_as_recorded(stoker: RunningStoker, url: str) -> None:
    sent = {
        "User-Agent": "test/echo",
        "Accept": "*/*",
        "Accept-Encoding": "gzip, deflate",
        "Connection": "keep-alive",
        "ExTrA-HeadErs": "With WeiRd CapS",
        "Content-Type": "application/json",
    }
    shown = call(stoker, url, "/path/1?q=query", "POST", sent, b'{"foo":"bar"}\n').json()
    assert shown.pop("origin") == "127.0.0.1"
    domain = shown.pop("domain")
    added = {name for name in shown["headers"] if name.startswith("x-")}
    assert added == {"x-amzn-trace-id", "x-forwarded-for", "x-forwarded-port", "x-forwarded-proto"}
    shown["headers"] = {name: value for name, value in shown["headers"].items() if name not in added}
    assert shown == {
        "args": {"q": "query"},
        "data": '{"foo":"bar"}\n',
        "headers": {
            "accept": "*/*",
            "accept-encoding": "gzip, deflate",
            "content-length": "14",
            "content-type": "application/json",
            "extra-headers": "With WeiRd CapS",
            "host": domain,
            "user-agent": "test/echo",
        },
        "method": "POST",
        "path": "/path/1",
    }


def test_forms_come_as_base64_as_recorded(stoker: RunningStoker, url: str) -> None:
    form = b'\r\n--b\r\nContent-Disposition: form-data; name="formfield"\r\n\r\nnot a file\r\n--b--\r\n'
    sent = {"Content-Type": "multipart/form-data; boundary=b"}
    shown = call(stoker, url, "/test/value", "POST", sent, form).json()
    assert (shown["data"], shown["path"]) == (base64.b64encode(form).decode(), "/test/value")


def test_without_a_permission_as_recorded(stoker: RunningStoker) -> None:
    created(stoker, "url-closed")
    url = stoker.client("lambda").create_function_url_config(FunctionName="url-closed", AuthType="NONE")
    got = call(stoker, url["FunctionUrl"])
    assert (got.status, got.json()) == (403, FORBIDDEN)
    assert got.headers["x-amzn-errortype"] == "AccessDeniedException"


def test_a_url_persists_after_its_alias_as_recorded(stoker: RunningStoker) -> None:
    name, service = "url-alias", stoker.client("lambda")
    created(stoker, name, Code={"ZipFile": python_zip(FUNCTION)}, Publish=True)
    service.create_alias(FunctionName=name, Name="live", FunctionVersion="1")
    url = opened(stoker, name, Qualifier="live", InvokeMode="BUFFERED")
    config = answer(service.get_function_url_config, FunctionName=name, Qualifier="live")
    assert (config["FunctionArn"], config["InvokeMode"]) == (f"{arn(name)}:live", "BUFFERED")
    assert call(stoker, url).status == 200
    assert answer(service.delete_alias, FunctionName=name, Name="live")["HTTP"] == 204
    got = call(stoker, url)
    assert (got.status, got.json()) == (403, FORBIDDEN)
    assert got.headers["x-amzn-errortype"] == "AccessDeniedException"
    assert len(service.list_function_url_configs(FunctionName=name)["FunctionUrlConfigs"]) == 1


def test_the_request_id_is_the_invocations_as_recorded(stoker: RunningStoker, url: str) -> None:
    got = call(stoker, url, "/event")
    assert re.fullmatch(UUID, got.headers["x-amzn-requestid"])
    assert got.json()["requestContext"]["requestId"] == got.headers["x-amzn-requestid"]


def test_refusals_through_boto3(stoker: RunningStoker) -> None:
    service = stoker.client("lambda")
    words = "The resource you requested does not exist."
    missing = refusal("ResourceNotFoundException", words, 404, Type="User", Message=words)
    assert answer(service.get_function_url_config, FunctionName="url-nobody") == missing
    rule = r"Member must satisfy regular expression pattern: ((?!^\d+$)^[0-9a-zA-Z-_]+$)"
    for qualifier in ("1", "$LATEST"):
        arguments = {"FunctionName": "url-nobody", "AuthType": "NONE", "Qualifier": qualifier}
        refused = answer(service.create_function_url_config, **arguments)
        assert refused == violates(f"'{qualifier}'", "qualifier", rule)
    streaming = {"FunctionName": "url-nobody", "AuthType": "NONE", "InvokeMode": "RESPONSE_STREAM"}
    refused = answer(service.create_function_url_config, **streaming)
    assert (refused["Error"]["Code"], refused["HTTP"]) == ("NotImplementedException", 501)
    cors = {
        "FunctionName": "url-nobody",
        "AuthType": "NONE",
        "Cors": {"AllowMethods": ["OPTIONS"], "MaxAge": 86_401},
    }
    refused = answer(service.create_function_url_config, **cors)
    assert refused["Error"]["Code"] == "ValidationException"
    assert "2 validation errors detected" in refused["Error"]["Message"]


# --- the event and the answer


def test_any_method_and_path_reach_the_function(stoker: RunningStoker, url: str) -> None:
    for method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS", "POST"):
        target = "/2015-03-31/functions/url-open/../x%2Fy//?a=1&a=2&b=%20"
        shown = call(stoker, url, target, method).json()
        assert (shown["method"], shown["path"]) == (method, "/2015-03-31/functions/url-open/../x%2Fy//")
        assert shown["args"] == {"a": "1,2", "b": " "}
    head = call(stoker, url, "/event", "HEAD")
    assert (head.status, head.body) == (200, b"")
    assert int(head.headers["content-length"]) > 0
    for unsigned in ("/health", "/metrics", "/ready", "/_stoker/code/x", "/_stoker/url/x/"):
        assert call(stoker, url, unsigned).json()["path"] == unsigned


def test_headers_cookies_and_bytes_of_an_answer(stoker: RunningStoker, url: str) -> None:
    got = answering(
        stoker,
        url,
        {
            "statusCode": 418,
            "headers": {"Content-Type": "image/png", "X-Own": "y", "x-amzn-requestid": "forged"},
            "cookies": ["a=b; HttpOnly", "c=d"],
            "body": base64.b64encode(b"\x89PNG\x00").decode(),
            "isBase64Encoded": True,
        },
    )
    assert (got.status, got.body, got.cookies) == (418, b"\x89PNG\x00", ("a=b; HttpOnly", "c=d"))
    assert (got.headers["content-type"], got.headers["x-own"]) == ("image/png", "y")
    assert re.fullmatch(UUID, got.headers["x-amzn-requestid"])


@pytest.mark.parametrize(
    "wanted",
    [
        {"statusCode": "x"},
        {"statusCode": 101},
        {"statusCode": 200, "headers": {"a": "b\r\nc: d"}},
        {"statusCode": 200, "headers": {"a b": "c"}},
        {"statusCode": 200, "body": "?", "isBase64Encoded": True},
    ],
)
def test_answers_that_cannot_be_sent_are_502(stoker: RunningStoker, url: str, wanted: Any) -> None:
    got = answering(stoker, url, wanted)
    assert (got.status, got.body) == (502, b"Internal Server Error")


def test_function_errors_and_time_outs_are_502(stoker: RunningStoker, url: str) -> None:
    for path in ("/error", "/sleep"):
        got = call(stoker, url, path)
        assert (got.status, got.body) == (502, b"Internal Server Error")


def test_a_trace_goes_through(stoker: RunningStoker, url: str) -> None:
    root = "Root=1-65b0c0de-0123456789abcdef01234567"
    got = call(stoker, url, "/event", headers={"X-Amzn-Trace-Id": root})
    assert got.headers["x-amzn-trace-id"] == got.json()["headers"]["x-amzn-trace-id"] == root


def test_payloads_above_the_limit_are_413(stoker: RunningStoker, url: str) -> None:
    words = "Request must be smaller than 6291456 bytes for the InvokeFunction operation"
    for size in (6_291_457, 5_500_000):
        got = call(stoker, url, "/", "POST", {"Content-Type": "application/octet-stream"}, b"x" * size)
        assert (got.status, got.json().get("message") or got.json().get("Message")) == (413, words)
    large = call(stoker, url, "/event", "POST", {"Content-Type": "text/plain"}, b"x" * 2_000_000)
    assert len(large.json()["body"]) == 2_000_000


def test_a_large_body_of_a_stranger_is_not_read(stoker: RunningStoker) -> None:
    created(stoker, "url-large")
    url = stoker.client("lambda").create_function_url_config(FunctionName="url-large", AuthType="NONE")
    sent = {"Content-Length": "5000000"}
    assert call(stoker, url["FunctionUrl"], "/", "POST", sent).status == 403


def test_concurrency_applies(stoker: RunningStoker, url: str) -> None:
    service = stoker.client("lambda")
    service.put_function_concurrency(FunctionName="url-open", ReservedConcurrentExecutions=0)
    got = call(stoker, url)
    service.delete_function_concurrency(FunctionName="url-open")
    assert got.status == 429
    assert got.headers["x-amzn-errortype"] == "TooManyRequestsException"
    assert call(stoker, url).status == 200


def test_a_weighted_alias_runs_both_versions(stoker: RunningStoker) -> None:
    name, service = "url-weights", stoker.client("lambda")
    source = "def lambda_handler(event, context):\n    return context.function_version\n"
    created(stoker, name, Code={"ZipFile": python_zip(source)}, Publish=True)
    service.update_function_code(FunctionName=name, ZipFile=python_zip(source + "# 2\n"), Publish=True)
    routing = {"AdditionalVersionWeights": {"2": 0.5}}
    service.create_alias(FunctionName=name, Name="both", FunctionVersion="1", RoutingConfig=routing)
    url = opened(stoker, name, Qualifier="both")
    assert {call(stoker, url).body for _ in range(40)} == {b"1", b"2"}


# --- who may


def test_a_signature_lets_in_and_is_shown(stoker: RunningStoker, iam_url: str) -> None:
    got = signed_call(stoker, iam_url, "/event?a=b%20c", "PUT", body=b"text")
    assert got.status == 200, got.body
    context = got.json()["requestContext"]
    assert context["accountId"] == "000000000000"
    assert context["authorizer"]["iam"]["userArn"] == "arn:aws:iam::000000000000:root"
    assert context["authorizer"]["iam"]["accessKey"].startswith("AKIA")
    assert "authorization" not in got.json()["headers"]
    presigned = signed_call(stoker, iam_url, "/event", presigned=True)
    assert presigned.status == 200, presigned.body
    large = signed_call(stoker, iam_url, "/event", "POST", body=b"x" * 1_500_000)
    assert large.status == 200


def test_without_a_good_signature_nobody_is_let_in(stoker: RunningStoker, iam_url: str) -> None:
    got = call(stoker, iam_url)
    assert (got.status, got.json()) == (403, FORBIDDEN)
    assert call(stoker, iam_url, headers={"Authorization": "Bearer x"}).status == 403
    for wrong in (
        {"key": ("AKIANOBODY", "x")},
        {"key": ("AKIASTOKERTEST000001", "wrong")},
        {"region": "eu-west-1"},
        {"service": "execute-api"},
        {"body": b"signed", "changed_body": b"forged"},
    ):
        refused = signed_call(stoker, iam_url, "/event", "POST", **wrong)
        assert refused.status == 403, wrong


def test_policies_decide_about_signers(stoker: RunningStoker, iam_url: str) -> None:
    both = ["lambda:InvokeFunctionUrl", "lambda:InvokeFunction"]
    allow = {"Effect": "Allow", "Action": both, "Resource": arn("url-iam")}
    deny = {"Effect": "Deny", "Action": "lambda:InvokeFunctionUrl", "Resource": "*"}
    wrong_type = {**allow, "Condition": {"StringEquals": {"lambda:FunctionUrlAuthType": "NONE"}}}
    statements = {"may": [allow], "silent": [], "denied": [allow, deny], "other": [wrong_type]}
    got = {
        name: signed_call(stoker, iam_url, "/event", key=user(stoker, f"url-{name}", *given))
        for name, given in statements.items()
    }
    assert {name: each.status for name, each in got.items()} == {
        "may": 200,
        "silent": 403,
        "denied": 403,
        "other": 403,
    }
    assert got["silent"].json() == FORBIDDEN
    iam = got["may"].json()["requestContext"]["authorizer"]["iam"]
    assert iam["userArn"].endswith("user/url-may")
    assert iam["callerId"] == iam["userId"]
    assert iam["userId"].startswith("AIDA")


def test_a_change_of_auth_type_holds_at_once(stoker: RunningStoker) -> None:
    name, service = "url-changes", stoker.client("lambda")
    created(stoker, name)
    url = opened(stoker, name)
    assert call(stoker, url).status == 200
    service.update_function_url_config(FunctionName=name, AuthType="AWS_IAM")
    assert call(stoker, url).status == 403
    assert signed_call(stoker, url).status == 200
    service.update_function_url_config(FunctionName=name, AuthType="NONE")
    service.remove_permission(FunctionName=name, StatementId="urlPermission")
    assert call(stoker, url).status == 403
    service.delete_function_url_config(FunctionName=name)
    gone = call(stoker, url)
    assert (gone.status, gone.body) == (403, b'{"Message":null}')


# --- CORS


def test_lambda_answers_preflights_and_overrides(stoker: RunningStoker) -> None:
    created(stoker, "url-cors", Code={"ZipFile": python_zip(FUNCTION)})
    url = opened(stoker, "url-cors", "AWS_IAM", Cors=CORS)
    asks = {"Origin": "https://a.example", "Access-Control-Request-Method": "PUT"}
    got = call(stoker, url, "/x", "OPTIONS", asks)
    assert (got.status, got.body) == (200, b"")
    assert {name: value for name, value in got.headers.items() if name.startswith("access-control")} == {
        "access-control-allow-origin": "https://a.example",
        "access-control-allow-credentials": "true",
        "access-control-allow-methods": "GET,PUT",
        "access-control-allow-headers": "x-a",
        "access-control-max-age": "60",
    }
    evil = call(stoker, url, "/x", "OPTIONS", {**asks, "Origin": "https://evil.example"})
    assert not any(name.startswith("access-control") for name in evil.headers)
    stoker.client("lambda").update_function_url_config(FunctionName="url-cors", AuthType="NONE")
    stoker.client("lambda").add_permission(
        FunctionName="url-cors",
        StatementId="u",
        Action="lambda:InvokeFunctionUrl",
        Principal="*",
        FunctionUrlAuthType="NONE",
    )
    said = {"statusCode": 200, "headers": {"Access-Control-Allow-Origin": "*", "x-b": "1"}, "body": "x"}
    overridden = answering(stoker, url, said, Origin="https://a.example")
    assert overridden.headers["access-control-allow-origin"] == "https://a.example"
    assert overridden.headers["access-control-expose-headers"] == "x-b"
    assert "access-control-allow-origin" not in answering(stoker, url, said).headers


# --- addresses


def test_curl_by_host_and_by_path(stoker: RunningStoker, url: str) -> None:
    by_host = subprocess.run(
        ["curl", "-sS", "--resolve", f"*:{stoker.port}:127.0.0.1", f"{url}a?b=c"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    url_id = url.removeprefix("http://").partition(".")[0]
    by_path = subprocess.run(
        ["curl", "-sS", f"{stoker.endpoint}/_stoker/url/{url_id}/a?b=c"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    first, second = json.loads(by_host), json.loads(by_path)
    assert (first["path"], first["args"]) == (second["path"], second["args"]) == ("/a", {"b": "c"})
    assert first["domain"] == second["domain"] == first["headers"]["host"]
    region = call(stoker, stoker.endpoint, f"/_stoker/url/{url_id}.{REGION}/event")
    assert region.json()["rawPath"] == "/event"
    elsewhere = call(stoker, stoker.endpoint, f"/_stoker/url/{url_id}.eu-west-1/event")
    assert (elsewhere.status, elsewhere.body) == (403, b'{"Message":null}')


def test_a_signature_by_path(stoker: RunningStoker, iam_url: str) -> None:
    url_id = iam_url.removeprefix("http://").partition(".")[0]
    got = signed_call(stoker, stoker.endpoint, f"/_stoker/url/{url_id}/event")
    assert got.status == 200, got.body
    assert got.json()["rawPath"] == "/event"


def test_urls_survive_a_kill(stoker: RunningStoker, url: str) -> None:
    stoker.kill()
    stoker.start()
    assert call(stoker, url, "/event").status == 200


def test_a_client_that_leaves_frees_nobody_elses_request(stoker: RunningStoker, url: str) -> None:
    """The invocation runs to its end, as that of Invoke does; the next caller is served meanwhile."""
    with socket.create_connection(("127.0.0.1", stoker.port)) as leaving:
        leaving.sendall(f"GET /sleep HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\n\r\n".encode())
        time.sleep(0.3)
    assert call(stoker, url, "/event").status == 200
