"""Invocations through boto3: results, function errors in AWS's exact form, fresh sandboxes after each."""

import base64
import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.running import RunningStoker, node_runtime, zip_of

PROBE = """
import json, os, sys, time, threading, signal
COUNT = 0
def lambda_handler(event, context):
    global COUNT
    COUNT += 1
    action = event.get("do")
    if action == "sleep":
        time.sleep(event["seconds"])
    if action == "raise":
        raise ValueError(event["message"])
    if action == "exit":
        os._exit(event["status"])
    if action == "sysexit":
        sys.exit(event.get("status", 0))
    if action == "signal":
        os.kill(os.getpid(), event["signal"])
        time.sleep(5)
    if action == "print":
        print(event["text"])
    if action == "large":
        return "x" * event["size"]
    if action == "eat":
        hoard = []
        while True:
            hoard.append(bytearray(16 << 20))
    if action == "unserialisable":
        return {1, 2}
    if action == "context":
        return {
            "function_name": context.function_name,
            "function_version": context.function_version,
            "invoked_function_arn": context.invoked_function_arn,
            "memory_limit_in_mb": context.memory_limit_in_mb,
            "aws_request_id": context.aws_request_id,
            "log_group_name": context.log_group_name,
            "log_stream_name": context.log_stream_name,
            "remaining": context.get_remaining_time_in_millis(),
            "client": context.client_context.custom if context.client_context else None,
        }
    if action == "environment":
        return dict(os.environ)
    return {"count": COUNT, "pid": os.getpid(), "stream": context.log_stream_name}
"""


@pytest.fixture(scope="module")
def probe(stoker: RunningStoker) -> str:
    stoker.create_python("probe", PROBE, MemorySize=192, Timeout=10)
    return "probe"


def failure(stoker: RunningStoker, name: str, event: Any) -> dict[str, Any]:
    """The payload of an invocation that must end in a function error."""
    answer = stoker.client("lambda").invoke(FunctionName=name, Payload=json.dumps(event))
    assert answer["StatusCode"] == 200
    assert answer["ExecutedVersion"] == "$LATEST"
    assert answer["FunctionError"] == "Unhandled", answer["Payload"].read()
    return json.loads(answer["Payload"].read())


def assert_fresh(stoker: RunningStoker, name: str) -> None:
    """The next invocation is served, by a sandbox that has served nobody."""
    assert stoker.invoke(name)["count"] == 1


def test_a_warm_sandbox_is_reused(stoker: RunningStoker, probe: str) -> None:
    first = stoker.invoke(probe)
    second = stoker.invoke(probe)
    assert second["stream"] == first["stream"]
    assert second["count"] == first["count"] + 1


def test_the_context(stoker: RunningStoker, probe: str) -> None:
    custom = base64.b64encode(json.dumps({"custom": {"k": "v"}}).encode()).decode()
    answer = stoker.client("lambda").invoke(
        FunctionName=probe, Payload='{"do": "context"}', ClientContext=custom
    )
    context = json.loads(answer["Payload"].read())
    assert context["aws_request_id"] == answer["ResponseMetadata"]["RequestId"]
    assert 0 < context.pop("remaining") <= 10_000
    assert re.fullmatch(r"\d{4}/\d\d/\d\d/\[\$LATEST\][0-9a-f]{32}", context.pop("log_stream_name"))
    del context["aws_request_id"]
    assert context == {
        "function_name": "probe",
        "function_version": "$LATEST",
        "invoked_function_arn": "arn:aws:lambda:us-east-1:000000000000:function:probe",
        "memory_limit_in_mb": "192",
        "log_group_name": "/aws/lambda/probe",
        "client": {"k": "v"},
    }


def test_the_environment_inside(stoker: RunningStoker, probe: str) -> None:
    variables = stoker.invoke(probe, {"do": "environment"})
    assert variables["AWS_LAMBDA_FUNCTION_NAME"] == "probe"
    assert variables["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"] == "192"
    assert variables["AWS_LAMBDA_FUNCTION_VERSION"] == "$LATEST"
    assert variables["AWS_LAMBDA_INITIALIZATION_TYPE"] == "on-demand"
    assert variables["AWS_REGION"] == variables["AWS_DEFAULT_REGION"] == "us-east-1"
    assert variables["LAMBDA_TASK_ROOT"] == "/var/task"
    assert variables["LAMBDA_RUNTIME_DIR"] == "/var/runtime"
    assert variables["_HANDLER"] == "lambda_function.lambda_handler"
    assert variables["TZ"] == ":UTC"
    assert variables["AWS_EXECUTION_ENV"].startswith("AWS_Lambda_python3.")
    assert not any(name.startswith("STOKER_") for name in variables)


def test_an_exception(stoker: RunningStoker, probe: str) -> None:
    payload = failure(stoker, probe, {"do": "raise", "message": "boom"})
    assert payload["errorType"] == "ValueError"
    assert payload["errorMessage"] == "boom"
    assert re.fullmatch(r"[0-9a-f-]{36}", payload["requestId"])
    assert payload["stackTrace"] == [
        '  File "/var/task/lambda_function.py", line 11, in lambda_handler\n'
        '    raise ValueError(event["message"])\n'
    ]


def test_a_result_that_is_not_json(stoker: RunningStoker, probe: str) -> None:
    payload = failure(stoker, probe, {"do": "unserialisable"})
    assert payload["errorType"] == "Runtime.MarshalError"
    assert (
        payload["errorMessage"] == "Unable to marshal response: Object of type set is not JSON serializable"
    )


def test_a_time_out(stoker: RunningStoker) -> None:
    stoker.create_python("slow", PROBE, Timeout=1)
    payload = failure(stoker, "slow", {"do": "sleep", "seconds": 30})
    assert payload["errorType"] == "Sandbox.Timedout"
    assert re.fullmatch(
        r"RequestId: [0-9a-f-]{36} Error: Task timed out after 1\.00 seconds", payload["errorMessage"]
    )
    assert_fresh(stoker, "slow")


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ({"do": "exit", "status": 0}, "Runtime exited without providing a reason"),
        ({"do": "exit", "status": 3}, "Runtime exited with error: exit status 3"),
        ({"do": "signal", "signal": 9}, "Runtime exited with error: signal: killed"),
        ({"do": "signal", "signal": 11}, "Runtime exited with error: signal: segmentation fault"),
    ],
)
def test_a_runtime_that_ends(stoker: RunningStoker, probe: str, event: dict[str, Any], message: str) -> None:
    payload = failure(stoker, probe, event)
    assert payload["errorType"] == "Runtime.ExitError"
    assert re.fullmatch(rf"RequestId: [0-9a-f-]{{36}} Error: {message}", payload["errorMessage"])
    assert_fresh(stoker, probe)


def test_out_of_memory(stoker: RunningStoker, probe: str) -> None:
    payload = failure(stoker, probe, {"do": "eat"})
    assert payload["errorType"] == "Runtime.ExitError"
    assert re.fullmatch(
        r"RequestId: [0-9a-f-]{36} Error: Runtime exited with error: signal: killed", payload["errorMessage"]
    )
    assert_fresh(stoker, probe)


def test_a_response_that_is_too_large(stoker: RunningStoker, probe: str) -> None:
    assert len(stoker.invoke(probe, {"do": "large", "size": 6_291_500})) == 6_291_500
    payload = failure(stoker, probe, {"do": "large", "size": 6_291_556})
    assert payload["errorType"] == "Function.ResponseSizeTooLarge"
    assert payload["errorMessage"] == (
        "Response payload size exceeded maximum allowed payload size (6291556 bytes)."
    )


def test_a_request_that_is_too_large(stoker: RunningStoker, probe: str) -> None:
    service = stoker.client("lambda")
    with pytest.raises(ClientError) as refused:
        service.invoke(FunctionName=probe, Payload=b'"' + b"x" * 6_291_456 + b'"')
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 413
    assert refused.value.response["Error"]["Code"] == "RequestEntityTooLargeException"
    assert "must be smaller than 6291456 bytes for the InvokeFunction operation" in str(refused.value)
    large = {"text": "y" * 5_000_000}
    stoker.create_python(
        "echo-large", "def lambda_handler(event, context):\n    return event\n", MemorySize=512
    )
    assert stoker.invoke("echo-large", large) == large


def test_an_event_that_is_not_json(stoker: RunningStoker, probe: str) -> None:
    with pytest.raises(ClientError) as refused:
        stoker.client("lambda").invoke(FunctionName=probe, Payload=b"n\x87r\x9e\xe9\xb5\xd7I\xee\x9bmt")
    assert refused.value.response["Error"]["Code"] == "InvalidRequestContentException"
    assert refused.value.response["Error"]["Message"] == (
        "Could not parse request body into json: Could not parse payload into json: Invalid UTF-8 start byte 0x87\n"
        " at [Source: REDACTED (`StreamReadFeature.INCLUDE_SOURCE_IN_LOCATION` disabled); line: 1, column: 3]"
    )


def test_no_payload_is_an_empty_event(stoker: RunningStoker) -> None:
    stoker.create_python("empty", "def lambda_handler(event, context):\n    return repr(event)\n")
    answer = stoker.client("lambda").invoke(FunctionName="empty")
    assert json.loads(answer["Payload"].read()) == "{}"


@pytest.mark.parametrize(
    ("source", "kind", "message"),
    [
        (
            "import nowhere_to_be_found",
            "Runtime.ImportModuleError",
            "Unable to import module 'lambda_function': No module named 'nowhere_to_be_found'",
        ),
        ("x = 1", "Runtime.HandlerNotFound", "Handler 'lambda_handler' missing on module 'lambda_function'"),
        ("def broken(:", "Runtime.UserCodeSyntaxError", None),
        ("raise Exception('Runtime startup fails')", "Exception", "Runtime startup fails"),
    ],
)
def test_an_init_that_fails(stoker: RunningStoker, source: str, kind: str, message: str | None) -> None:
    name = f"init-{kind.rpartition('.')[2]}"
    stoker.create_python(name, source)
    payload = failure(stoker, name, {})
    assert payload["errorType"] == kind
    if message:
        assert payload["errorMessage"] == message


def test_the_log_tail(stoker: RunningStoker, probe: str) -> None:
    answer = stoker.client("lambda").invoke(
        FunctionName=probe, Payload='{"do": "print", "text": "to be seen"}', LogType="Tail"
    )
    request_id = answer["ResponseMetadata"]["RequestId"]
    lines = base64.b64decode(answer["LogResult"]).decode().splitlines()
    start = lines.index(f"START RequestId: {request_id} Version: $LATEST")
    assert lines[start + 1] == "to be seen"
    assert lines[start + 2] == f"END RequestId: {request_id}"
    assert re.match(
        rf"REPORT RequestId: {request_id}\tDuration: \d+\.\d\d ms\tBilled Duration: \d+ ms\t"
        r"Memory Size: 192 MB\tMax Memory Used: \d+ MB",
        lines[start + 3],
    )


def test_a_dry_run_runs_nothing(stoker: RunningStoker, probe: str) -> None:
    answer = stoker.client("lambda").invoke(FunctionName=probe, InvocationType="DryRun")
    assert answer["StatusCode"] == 204
    assert answer["Payload"].read() == b""


def test_an_event_is_run_and_retried_twice(stoker: RunningStoker) -> None:
    stoker.create_python(
        "retried", "def lambda_handler(event, context):\n    print('attempt')\n    raise KeyError('x')\n"
    )
    answer = stoker.client("lambda").invoke(FunctionName="retried", InvocationType="Event", Payload=b"{}")
    assert (answer["StatusCode"], answer["Payload"].read()) == (202, b"")
    deadline = time.monotonic() + 40
    attempts: list[str] = []
    while len(attempts) < 3 and time.monotonic() < deadline:
        time.sleep(0.5)
        attempts = messages(stoker, "/aws/lambda/retried", "START")
    assert len(attempts) == 3
    assert len({line.split()[2] for line in attempts}) == 1, "every attempt has the same request id"
    time.sleep(3)
    assert len(messages(stoker, "/aws/lambda/retried", "START")) == 3


def messages(stoker: RunningStoker, group: str, beginning: str) -> list[str]:
    """Log lines of a group that begin so."""
    try:
        events = stoker.client("logs").filter_log_events(logGroupName=group)["events"]
    except ClientError:
        return []
    return [event["message"] for event in events if event["message"].startswith(beginning)]


def test_reserved_concurrency_throttles(stoker: RunningStoker) -> None:
    stoker.create_python("narrow", PROBE, Timeout=20)
    service = stoker.client("lambda")
    service.put_function_concurrency(FunctionName="narrow", ReservedConcurrentExecutions=1)
    with ThreadPoolExecutor(1) as pool:
        busy = pool.submit(stoker.invoke, "narrow", {"do": "sleep", "seconds": 3})
        time.sleep(1.5)
        with pytest.raises(ClientError) as refused:
            stoker.client("lambda").invoke(FunctionName="narrow")
        busy.result()
    answer = refused.value.response
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 429
    assert answer["Error"]["Code"] == "TooManyRequestsException"
    assert answer["Reason"] == "ReservedFunctionConcurrentInvocationLimitExceeded"
    service.put_function_concurrency(FunctionName="narrow", ReservedConcurrentExecutions=0)
    with pytest.raises(ClientError) as refused:
        service.invoke(FunctionName="narrow")
    assert refused.value.response["Error"]["Code"] == "TooManyRequestsException"


def test_concurrent_invocations_have_sandboxes_of_their_own(stoker: RunningStoker) -> None:
    stoker.create_python("parallel", PROBE, Timeout=20)
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(stoker.invoke, "parallel", {"do": "sleep", "seconds": 1}) for _ in range(4)]
        streams = {call.result()["stream"] for call in calls}
    assert len(streams) == 4


NODE = node_runtime()
needs_node = pytest.mark.skipif(NODE is None, reason="no node below /usr on this host")

NODE_SOURCES = {
    "async": ("index.js", "exports.handler = async (event) => ({ got: event });"),
    "callback": (
        "index.js",
        "exports.handler = (event, context, callback) => callback(null, { got: event });",
    ),
    "module": ("index.mjs", "export const handler = async (event) => ({ got: event });"),
}


@needs_node
@pytest.mark.parametrize("style", sorted(NODE_SOURCES))
def test_node_handlers(stoker: RunningStoker, style: str) -> None:
    file, source = NODE_SOURCES[style]
    stoker.create(f"node-{style}", zip_of({file: source}), Runtime=NODE, Handler="index.handler", Timeout=10)
    assert stoker.invoke(f"node-{style}", {"n": 1}) == {"got": {"n": 1}}


@needs_node
def test_a_node_error(stoker: RunningStoker) -> None:
    source = "exports.handler = async () => { throw new RangeError('too far'); };"
    stoker.create(
        "node-error", zip_of({"index.js": source}), Runtime=NODE, Handler="index.handler", Timeout=10
    )
    payload = failure(stoker, "node-error", {})
    assert (payload["errorType"], payload["errorMessage"]) == ("RangeError", "too far")
    assert payload["trace"][0] == "RangeError: too far"


BOOTSTRAP = """#!/usr/bin/env python3
import http.client, json, os
api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
while True:
    api.request("GET", "/2018-06-01/runtime/invocation/next")
    event = api.getresponse()
    body = json.dumps({"script": json.loads(event.read())})
    api.request("POST", f"/2018-06-01/runtime/invocation/{event.headers['Lambda-Runtime-Aws-Request-Id']}/response", body)
    api.getresponse().read()
"""


def test_a_provided_runtime(stoker: RunningStoker) -> None:
    stoker.create(
        "own", zip_of({"bootstrap": BOOTSTRAP}), Runtime="provided.al2023", Handler="any", Timeout=10
    )
    assert stoker.invoke("own", {"n": 1}) == {"script": {"n": 1}}


def test_a_function_reaches_stoker_with_its_own_credentials(stoker: RunningStoker) -> None:
    source = """
import hashlib, hmac, os, datetime, urllib.request
def sign(key, text): return hmac.new(key, text.encode(), hashlib.sha256).digest()
def lambda_handler(event, context):
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    host, path = os.environ["AWS_ENDPOINT_URL_LAMBDA"].removeprefix("http://"), "/2015-03-31/functions/"
    token, region = os.environ["AWS_SESSION_TOKEN"], os.environ["AWS_REGION"]
    headers = {"host": host, "x-amz-date": now, "x-amz-security-token": token}
    names = ";".join(sorted(headers))
    canonical = "".join(f"{name}:{headers[name]}\\n" for name in sorted(headers))
    request = "\\n".join(["GET", path, "", canonical, names, hashlib.sha256(b"").hexdigest()])
    scope = f"{now[:8]}/{region}/lambda/aws4_request"
    text = "\\n".join(["AWS4-HMAC-SHA256", now, scope, hashlib.sha256(request.encode()).hexdigest()])
    key = ("AWS4" + os.environ["AWS_SECRET_ACCESS_KEY"]).encode()
    for part in (now[:8], region, "lambda", "aws4_request"): key = sign(key, part)
    signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    credential = f"{os.environ['AWS_ACCESS_KEY_ID']}/{scope}"
    headers["authorization"] = f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={names}, Signature={signature}"
    with urllib.request.urlopen(urllib.request.Request(f"http://{host}{path}", headers=headers)) as answer:
        return answer.status
"""
    iam = stoker.client("iam")
    trust = {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
    role = iam.create_role(
        RoleName="lister",
        AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [trust]}),
    )["Role"]["Arn"]
    stoker.create_python("inside", source, Timeout=10, MemorySize=256, Role=role)
    refused = stoker.client("lambda").invoke(FunctionName="inside")
    assert b"HTTP Error 403" in refused["Payload"].read(), "a role begins with nothing"
    iam.attach_role_policy(RoleName="lister", PolicyArn="arn:aws:iam::aws:policy/AWSLambda_ReadOnlyAccess")
    assert stoker.invoke("inside") == 200
