"""Invocations, every answer compared with what AWS answered (recorded)."""

import json
import re
import time
from typing import Any

import pytest

from tests.conformance.recorded import UUID, Like, answer, arn, refusal, settled
from tests.running import PYTHON_RUNTIME, REGION, RunningStoker, node_runtime, python_zip, zip_of

NODE = node_runtime()
needs_node = pytest.mark.skipif(NODE is None, reason="no node below /usr on this host")

ECHO_AND_CONTEXT = """
def lambda_handler(event, context):
    names = ("aws_request_id", "client_context", "function_name", "function_version", "invoked_function_arn",
             "log_group_name", "log_stream_name", "memory_limit_in_mb")
    return {"event": event, "context": {name: getattr(context, name) for name in names}}
"""
SOURCES = {
    "nothing": "def lambda_handler(event, context):\n    pass\n",
    "echo": "def lambda_handler(event, context):\n    return event\n",
    "sleep": "import time\ndef lambda_handler(event, context):\n    time.sleep(event['seconds'])\n",
    "exit": "import os\ndef lambda_handler(event, context):\n    os._exit(0)\n",
    "context": ECHO_AND_CONTEXT,
    "environment": "import os\ndef lambda_handler(event, context):\n    return dict(os.environ)\n",
}
NODE_NOTHING = "exports.handler = async () => {};"


def invoke(stoker: RunningStoker, name: str, **options: Any) -> dict[str, Any]:
    """All members of Invoke's answer, the payload decoded; an empty one is left empty."""
    shown = answer(stoker.client("lambda").invoke, FunctionName=name, **options)
    if "Payload" in shown:
        payload = shown["Payload"].read()
        shown["Payload"] = json.loads(payload) if payload else ""
    return shown


def result(payload: Any, **members: Any) -> dict[str, Any]:
    """The answer of a synchronous invocation."""
    return {"ExecutedVersion": "$LATEST", "Payload": payload, "StatusCode": 200, "HTTP": 200, **members}


def failure(kind: str, message: str, **members: Any) -> dict[str, Any]:
    """The answer of an invocation that ended in a function error."""
    return result({"errorType": kind, "errorMessage": Like(message), **members}, FunctionError="Unhandled")


@pytest.fixture(scope="module")
def functions(stoker: RunningStoker) -> dict[str, str]:
    for name, source in SOURCES.items():
        stoker.client("lambda").create_function(
            FunctionName=f"recorded-{name}",
            Role="arn:aws:iam::000000000000:role/test-role",
            Runtime=PYTHON_RUNTIME,
            Handler="lambda_function.lambda_handler",
            Code={"ZipFile": python_zip(source)},
            Timeout=1 if name == "sleep" else 10,
        )
    return {name: f"recorded-{name}" for name in SOURCES}


def test_the_types_of_invocation(stoker: RunningStoker, functions: dict[str, str]) -> None:
    name = functions["echo"]
    assert invoke(stoker, name, InvocationType="DryRun") == {"Payload": "", "StatusCode": 204, "HTTP": 204}
    assert invoke(stoker, name, InvocationType="Event", Payload=b"{}") == {
        "Payload": "",
        "StatusCode": 202,
        "HTTP": 202,
    }
    assert invoke(stoker, name, Payload=b"{}") == result({})


def test_a_handler_that_returns_nothing(stoker: RunningStoker, functions: dict[str, str]) -> None:
    name = functions["nothing"]
    assert invoke(stoker, name, Payload=b"{}") == result(None)
    assert invoke(stoker, name, Payload=b"{}", InvocationType="Event")["Payload"] == ""


@needs_node
def test_a_node_handler_that_returns_nothing(stoker: RunningStoker) -> None:
    archive = zip_of({"index.js": NODE_NOTHING})
    stoker.create("recorded-node", archive, Runtime=NODE, Handler="index.handler", Timeout=10)
    assert invoke(stoker, "recorded-node", Payload=b"{}") == result(None)


def test_a_time_out(stoker: RunningStoker, functions: dict[str, str]) -> None:
    name = functions["sleep"]
    assert invoke(stoker, name, Payload=b'{"seconds": 0}') == result(None)
    assert invoke(stoker, name, Payload=b'{"seconds": 3}') == failure(
        "Sandbox.Timedout", rf"RequestId: {UUID} Error: Task timed out after 1\.00 seconds"
    )


def test_an_exit(stoker: RunningStoker, functions: dict[str, str]) -> None:
    assert invoke(stoker, functions["exit"], Payload=b"{}") == failure(
        "Runtime.ExitError", rf"RequestId: {UUID} Error: Runtime exited without providing a reason"
    )


def test_a_module_that_raises(stoker: RunningStoker) -> None:
    source = 'raise Exception("Runtime startup fails")\n'
    stoker.create_python("recorded-raises", source, Timeout=10)
    shown = invoke(stoker, "recorded-raises", Payload=b"{}")
    trace = shown["Payload"].pop("stackTrace")
    assert shown == failure("Exception", "Runtime startup fails", requestId="")
    assert len(trace) == 8
    assert trace[0].endswith(
        "in import_module\n    return _bootstrap._gcd_import(name[level:], package, level)\n"
    )
    assert [re.sub(r"line \d+", "line N", line) for line in trace[1:7]] == [
        '  File "<frozen importlib._bootstrap>", line N, in _gcd_import\n',
        '  File "<frozen importlib._bootstrap>", line N, in _find_and_load\n',
        '  File "<frozen importlib._bootstrap>", line N, in _find_and_load_unlocked\n',
        '  File "<frozen importlib._bootstrap>", line N, in _load_unlocked\n',
        '  File "<frozen importlib._bootstrap_external>", line N, in exec_module\n',
        '  File "<frozen importlib._bootstrap>", line N, in _call_with_frames_removed\n',
    ]
    assert trace[7] == (
        '  File "/var/task/lambda_function.py", line 1, in <module>\n'
        '    raise Exception("Runtime startup fails")\n'
    )


def test_a_wrapper_that_is_not_there(stoker: RunningStoker) -> None:
    stoker.create_python(
        "recorded-wrapper",
        SOURCES["echo"],
        Environment={"Variables": {"AWS_LAMBDA_EXEC_WRAPPER": "/idontexist.sh"}},
        Timeout=10,
    )
    assert invoke(stoker, "recorded-wrapper", Payload=b"{}") == failure(
        "Runtime.ExitError", rf"RequestId: {UUID} Error: Runtime exited with error: exit status 127"
    )


@pytest.mark.parametrize(
    ("payload", "words", "column"),
    [
        (b"n\x87r\x9e\xe9\xb5\xd7I\xee\x9bmt", "Invalid UTF-8 start byte 0x87", 3),
        (
            b"\x99\xeb,j\x07\xa1zYh",
            "Unexpected character ((CTRL-CHAR, code 153)): expected a valid value "
            "(JSON String, Number, Array, Object or token 'null', 'true' or 'false')",
            1,
        ),
    ],
)
def test_a_payload_that_is_not_json(
    stoker: RunningStoker, functions: dict[str, str], payload: bytes, words: str, column: int
) -> None:
    message = (
        f"Could not parse request body into json: Could not parse payload into json: {words}\n at [Source: REDACTED "
        f"(`StreamReadFeature.INCLUDE_SOURCE_IN_LOCATION` disabled); line: 1, column: {column}]"
    )
    assert invoke(stoker, functions["echo"], Payload=payload) == refusal(
        "InvalidRequestContentException", message, Type="User", message=message
    )


def test_the_context(stoker: RunningStoker, functions: dict[str, str]) -> None:
    name = functions["context"]
    event = {"foo": "bar with 'quotes\""}
    assert invoke(stoker, name, Payload=json.dumps(event)) == result(
        {
            "context": {
                "aws_request_id": UUID,
                "client_context": None,
                "function_name": name,
                "function_version": "$LATEST",
                "invoked_function_arn": arn(name),
                "log_group_name": f"/aws/lambda/{name}",
                "log_stream_name": Like(r"\d{4}/\d\d/\d\d/\[\$LATEST\][0-9a-f]{32}"),
                "memory_limit_in_mb": "128",
            },
            "event": event,
        }
    )


def test_the_environment(stoker: RunningStoker, functions: dict[str, str]) -> None:
    name = functions["environment"]
    shown = invoke(stoker, name, Payload=b"{}")["Payload"]
    recorded = {
        "AWS_ACCESS_KEY_ID": Like("ASIA[A-Z0-9]{16}"),
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EXECUTION_ENV": f"AWS_Lambda_{PYTHON_RUNTIME}",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "128",
        "AWS_LAMBDA_FUNCTION_NAME": name,
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{name}",
        "AWS_LAMBDA_LOG_STREAM_NAME": Like(r"\d{4}/\d\d/\d\d/\[\$LATEST\][0-9a-f]{32}"),
        "AWS_LAMBDA_RUNTIME_API": Like(r"[\d.]+:9001"),
        "AWS_REGION": REGION,
        "AWS_SECRET_ACCESS_KEY": Like(".{40}"),
        "AWS_SESSION_TOKEN": Like(".+"),
        "LAMBDA_RUNTIME_DIR": "/var/runtime",
        "LAMBDA_TASK_ROOT": "/var/task",
        "LANG": "en_US.UTF-8",
        "PATH": "/var/lang/bin:/usr/local/bin:/usr/bin/:/bin:/opt/bin",
        "PWD": "/var/task",
        "PYTHONPATH": "/var/runtime",
        "TZ": ":UTC",
        "_HANDLER": "lambda_function.lambda_handler",
        "_X_AMZN_TRACE_ID": Like("Root=1-[0-9a-f]{8}-[0-9a-f]{24};Parent=[0-9a-f]{16};Sampled=[01].*"),
    }
    assert {variable: shown.get(variable) for variable in recorded} == recorded


def test_another_handler_is_used_at_once(stoker: RunningStoker) -> None:
    source = (
        "def lambda_handler(event, context):\n    return {'handler': 'handler'}\n"
        "def handler_two(event, context):\n    return {'handler': 'handler_two'}\n"
    )
    stoker.create_python("recorded-handler", source, Timeout=10)
    assert invoke(stoker, "recorded-handler") == result({"handler": "handler"})
    stoker.client("lambda").update_function_configuration(
        FunctionName="recorded-handler", Handler="lambda_function.handler_two"
    )
    settled(stoker, "recorded-handler")
    assert invoke(stoker, "recorded-handler") == result({"handler": "handler_two"})


def test_events_of_a_function_with_one_reserved_execution(stoker: RunningStoker) -> None:
    """While one event runs, a synchronous caller is refused and further events wait; none is lost."""
    source = "import time\ndef lambda_handler(event, context):\n    print('ran', event['n'])\n    time.sleep(1.5)\n"
    name = "recorded-one-at-a-time"
    stoker.create_python(name, source, Timeout=10)
    service = stoker.client("lambda")
    service.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=1)
    for number in range(2):
        service.invoke(FunctionName=name, InvocationType="Event", Payload=json.dumps({"n": number}))
    deadline = time.monotonic() + 20
    while "ran" not in " ".join(messages(stoker, name)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert invoke(stoker, name, Payload=b'{"n": 9}') == refusal(
        "TooManyRequestsException",
        "Rate Exceeded.",
        429,
        Reason="ReservedFunctionConcurrentInvocationLimitExceeded",
        Type="User",
        message="Rate Exceeded.",
    )
    while len([line for line in messages(stoker, name) if line.startswith("ran")]) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert sorted(line for line in messages(stoker, name) if line.startswith("ran")) == ["ran 0\n", "ran 1\n"]


def test_the_log_of_an_event_that_fails(stoker: RunningStoker) -> None:
    source = (
        "class CustomException(Exception):\n    pass\n\n\n"
        'def lambda_handler(event, context):\n    raise CustomException("some error occurred")\n'
    )
    name = "recorded-event-error"
    stoker.create_python(name, source, Timeout=10)
    request_id = stoker.client("lambda").invoke(FunctionName=name, InvocationType="Event", Payload=b"{}")[
        "ResponseMetadata"
    ]["RequestId"]
    deadline = time.monotonic() + 20
    while len([line for line in messages(stoker, name) if line.startswith("REPORT")]) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    found = messages(stoker, name)
    error = (
        "[ERROR] CustomException: some error occurred\nTraceback (most recent call last):\n"
        '\u00a0\u00a0File "/var/task/lambda_function.py", line 6, in lambda_handler\n'
        '\u00a0\u00a0\u00a0\u00a0raise CustomException("some error occurred")'
    )
    report = (
        rf"REPORT RequestId: {request_id}\tDuration: \d+\.\d\d ms\tBilled Duration: \d+ ms\t"
        r"Memory Size: 128 MB\tMax Memory Used: \d+ MB\t"
    )
    attempt = [f"START RequestId: {request_id} Version: $LATEST\n", error, f"END RequestId: {request_id}\n"]
    assert found[0] == Like(
        r"INIT_START Runtime Version: python:3\.\d+\S*\tRuntime Version ARN: arn:aws:lambda:.*\n"
    )
    assert found[1:] == [
        *attempt,
        Like(report + r"Init Duration: \d+\.\d\d ms\t\n"),
        *attempt,
        Like(report + r"\n"),
        *attempt,
        Like(report + r"\n"),
    ]


def messages(stoker: RunningStoker, name: str) -> list[str]:
    """All that is in a function's log group."""
    service = stoker.client("logs")
    try:
        return [
            event["message"]
            for event in service.filter_log_events(logGroupName=f"/aws/lambda/{name}")["events"]
        ]
    except service.exceptions.ResourceNotFoundException:
        return []
