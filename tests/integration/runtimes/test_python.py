"""The Python bootstrap as a process: what callers, handlers and logs see."""

import json
import re
import sys
from pathlib import Path

import pytest

from stoker.runtimes import Credentials, FunctionIdentity, RuntimeCatalog, function_environment


def write(folder: Path, text: str, name: str = "index.py") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder


async def test_echo_many_times_over_one_connection(running, python_argv, tmp_path):
    write(tmp_path, "def handler(event, context):\n    return event\n")
    async with running(python_argv, tmp_path) as runtime:
        await runtime.ready()
        for number in range(50):
            assert await runtime.invoke({"n": number, "text": "grün"}) == {"n": number, "text": "grün"}
        assert "lost" not in [event[0] for event in runtime.events.events]


async def test_context_has_every_field(running, python_argv, tmp_path):
    write(
        tmp_path,
        """
def handler(event, context):
    left = context.get_remaining_time_in_millis()
    return {
        "left": 0 < left <= 3000, "arn": context.invoked_function_arn, "name": context.function_name,
        "version": context.function_version, "memory": context.memory_limit_in_mb,
        "group": context.log_group_name, "stream": context.log_stream_name, "id": context.aws_request_id,
        "app": context.client_context.client.app_title, "custom": context.client_context.custom,
        "env": context.client_context.env, "identity": context.identity.cognito_identity_id,
        "pool": context.identity.cognito_identity_pool_id, "tenant": context.tenant_id,
        "trace": __import__("os").environ["_X_AMZN_TRACE_ID"],
    }
""",
    )
    async with running(python_argv, tmp_path) as runtime:
        await runtime.ready()
        seen = await runtime.invoke(
            {},
            client_context='{"client":{"app_title":"t"},\r\n"custom":{"k":"ü"},"env":{"e":1}}',
            cognito_identity='{"cognitoIdentityId":"i","cognitoIdentityPoolId":"p"}',
            tenant_id="blue",
        )
    assert seen == {
        "left": True,
        "arn": "arn:aws:lambda:us-east-1:000000000000:function:echo",
        "name": "echo",
        "version": "$LATEST",
        "memory": "128",
        "group": "/aws/lambda/echo",
        "stream": "2024/01/01/[$LATEST]abc",
        "id": "00000000-0000-4000-8000-000000000001",
        "app": "t",
        "custom": {"k": "ü"},
        "env": {"e": 1},
        "identity": "i",
        "pool": "p",
        "tenant": "blue",
        "trace": "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=1;Sampled=0",
    }


async def test_exception_in_handler(running, python_argv, tmp_path):
    write(tmp_path, 'def handler(event, context):\n    raise ValueError("no " + event["what"])\n')
    async with running(python_argv, tmp_path) as runtime:
        await runtime.ready()
        failure = await runtime.fail({"what": "way"})
        await runtime.ready()
        output = await runtime.output()
    path = tmp_path / "index.py"
    trace = f'  File "{path}", line 2, in handler\n    raise ValueError("no " + event["what"])\n'
    assert failure == {
        "errorMessage": "no way",
        "errorType": "ValueError",
        "requestId": "00000000-0000-4000-8000-000000000001",
        "stackTrace": [trace],
    }
    nbsp = "\u00a0"
    assert output == (
        "[ERROR] ValueError: no way\rTraceback (most recent call last):\r"
        f'{nbsp * 2}File "{path}", line 2, in handler\r{nbsp * 4}raise ValueError("no " + event["what"])\n'
    )


async def test_exception_at_import_matches_what_aws_recorded(running, python_argv, tmp_path):
    """Recorded by AWS: message, type, empty request id, trace from importlib's frames down to the module."""
    write(tmp_path, 'raise Exception("Runtime startup fails")\n')
    async with running(python_argv, tmp_path) as runtime:
        failure = await runtime.init_error()
        output = await runtime.output(exits=True)
        assert runtime.process.returncode == 1
    trace = failure.pop("stackTrace")
    assert failure == {"errorMessage": "Runtime startup fails", "errorType": "Exception", "requestId": ""}
    assert re.match(
        r'  File ".*/importlib/__init__\.py", line \d+, in import_module\n    return _boot', trace[0]
    )
    assert trace[-1] == (
        f'  File "{tmp_path}/index.py", line 1, in <module>\n    raise Exception("Runtime startup fails")\n'
    )
    assert "LAMBDA_WARNING: Unhandled exception." in output


@pytest.mark.parametrize(
    ("handler", "code", "kind", "message"),
    [
        (
            "missing.handler",
            "",
            "Runtime.ImportModuleError",
            "Unable to import module 'missing': No module named 'missing'",
        ),
        ("index.nope", "x = 1\n", "Runtime.HandlerNotFound", "Handler 'nope' missing on module 'index'"),
        (
            "index",
            "",
            "Runtime.MalformedHandlerName",
            "Bad handler 'index': not enough values to unpack (expected 2, got 1)",
        ),
        (
            "index.handler",
            "def handler(:\n",
            "Runtime.UserCodeSyntaxError",
            "Syntax error in module 'index': invalid syntax (index.py, line 1)",
        ),
        (
            "sys.handler",
            "",
            "Runtime.BuiltInModuleConflict",
            "Cannot use built-in module sys as a handler module",
        ),
    ],
)
async def test_handler_cannot_be_loaded(running, python_argv, tmp_path, handler, code, kind, message):
    write(tmp_path, code)
    async with running(python_argv, tmp_path, handler=handler) as runtime:
        failure = await runtime.init_error()
    assert (failure["errorType"], failure["errorMessage"]) == (kind, message)


async def test_response_that_is_no_json(running, python_argv, tmp_path):
    write(tmp_path, "def handler(event, context):\n    return {1, 2}\n")
    async with running(python_argv, tmp_path) as runtime:
        await runtime.ready()
        failure = await runtime.fail({})
    assert failure["errorType"] == "Runtime.MarshalError"
    assert (
        failure["errorMessage"] == "Unable to marshal response: Object of type set is not JSON serializable"
    )


async def test_bytes_pass_untouched(running, python_argv, tmp_path):
    write(tmp_path, 'def handler(event, context):\n    return b"\\x00raw"\n')
    async with running(python_argv, tmp_path) as runtime:
        await runtime.ready()
        assert (await runtime.invoke_raw(b"{}"))[2:] == (b"\x00raw", "application/unknown")


async def test_nested_handler_path_and_packages(running, python_argv, tmp_path):
    write(tmp_path / "src" / "app", "def go(event, context):\n    return __name__\n", "main.py")
    async with running(python_argv, tmp_path, handler="src/app/main.go") as runtime:
        await runtime.ready()
        assert await runtime.invoke({}) == "src.app.main"


async def test_logging_format_and_late_import(running, python_argv, tmp_path):
    write(
        tmp_path,
        """
def handler(event, context):
    import logging
    logging.getLogger().setLevel("INFO")
    logging.info("hello %s", "you")
    print("printed")
    context.log("raw\\n")
""",
    )
    async with running(python_argv, tmp_path) as runtime:
        await runtime.ready()
        assert await runtime.invoke({}) is None
        output = await runtime.output()
    request_id = "00000000-0000-4000-8000-000000000001"
    first, printed, raw = output.splitlines()
    assert re.fullmatch(
        rf"\[INFO\]\t\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{{3}}Z\t{request_id}\thello you", first
    )
    assert (printed, raw) == ("printed", "raw")


async def test_framed_telemetry_in_text_and_json(running, python_argv, tmp_path):
    write(
        tmp_path,
        """
import logging
def handler(event, context):
    logging.getLogger("app").warning({"k": 1}, extra={"more": True})
    raise KeyError("gone")
""",
    )
    environment = {"AWS_LAMBDA_LOG_FORMAT": "JSON", "AWS_LAMBDA_LOG_LEVEL": "INFO"}
    async with running(python_argv, tmp_path, environment=environment, telemetry=True) as runtime:
        await runtime.ready()
        await runtime.fail({})
        warning, error = runtime.telemetry()
    assert (warning.is_json, warning.level.name) == (True, "WARN")
    seen = json.loads(warning.message)
    assert (seen["message"], seen["more"], seen["logger"]) == ({"k": 1}, True, "app")
    assert seen["requestId"] == "00000000-0000-4000-8000-000000000001"
    assert (error.is_json, error.level.name) == (True, "ERROR")
    assert json.loads(error.message)["errorType"] == "KeyError"


async def test_exit_in_handler_ends_the_process(running, python_argv, tmp_path):
    """AWS recorded Runtime.ExitError without a reason: the process ends with status 0, nothing is posted."""
    write(tmp_path, "import sys\ndef handler(event, context):\n    sys.exit(0)\n")
    async with running(python_argv, tmp_path) as runtime:
        await runtime.ready()
        assert await runtime.invoke_raw(b"{}") == ("lost",)
        await runtime.output(exits=True)
        assert runtime.process.returncode == 0


async def test_oversized_response_becomes_a_function_error(running, python_argv, tmp_path):
    write(tmp_path, 'def handler(event, context):\n    return "x" * event\n')
    async with running(python_argv, tmp_path) as runtime:
        await runtime.ready()
        assert len(await runtime.invoke(6_291_554)) == 6_291_554
        kind, _, error_type, body = await runtime.invoke_raw(b"6291555")
        assert (kind, error_type) == ("error", "Function.ResponseSizeTooLarge")
        assert json.loads(body) == {
            "errorMessage": "Response payload size exceeded maximum allowed payload size (6291556 bytes).",
            "errorType": "Function.ResponseSizeTooLarge",
        }
        assert "Failed to post handler success response. Http response code: 413" in await runtime.output(
            exits=True
        )
        assert runtime.process.returncode == 1


async def test_search_path_as_in_lambda(running, python_argv, tmp_path):
    write(
        tmp_path,
        "import os, sys\n"
        "def handler(event, context):\n    return [sys.path, os.environ['PYTHONPATH'], exit.name]\n",
    )
    async with running(python_argv, tmp_path) as runtime:
        await runtime.ready()
        path, python_path, name = await runtime.invoke({})
    assert path[0] == str(tmp_path)
    assert re.fullmatch(r"/opt/python/lib/python3\.\d+/site-packages", path[1])
    assert path[2] == "/opt/python"
    assert path[3] == python_path
    assert path[3].endswith("bootstraps/python")
    assert not [entry for entry in path if entry.endswith("dist-packages")]
    assert name == "exit"


async def test_environment_inside_is_the_recorded_one(running, prepared_dir, tmp_path):
    """AWS recorded these variables inside a Python function; SHLVL is its start script's, LC_CTYPE a locale's."""
    write(tmp_path, "import os\ndef handler(event, context):\n    return dict(os.environ)\n")
    plan = RuntimeCatalog(prepared_dir=prepared_dir).plan(f"python3.{sys.version_info.minor}")
    folder = str(plan.mounts["/var/runtime"])
    function = FunctionIdentity(
        name="f",
        version="$LATEST",
        handler="index.handler",
        memory_mb=128,
        region="us-east-1",
        log_group="/aws/lambda/f",
        log_stream="s",
    )
    planned = function_environment(plan.environment, function, {}, Credentials("a", "b", "c"))
    # Outside a sandbox three things are elsewhere.
    del planned["AWS_LAMBDA_RUNTIME_API"]
    planned |= {"LAMBDA_TASK_ROOT": str(tmp_path), "LAMBDA_RUNTIME_DIR": folder}
    argv = [each.replace("/var/runtime", folder) for each in plan.argv]
    async with running(argv, tmp_path, environment=planned) as runtime:
        await runtime.ready()
        inside = await runtime.invoke({})
    recorded = [
        "AWS_ACCESS_KEY_ID",
        "AWS_DEFAULT_REGION",
        "AWS_EXECUTION_ENV",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
        "AWS_LAMBDA_FUNCTION_NAME",
        "AWS_LAMBDA_FUNCTION_VERSION",
        "AWS_LAMBDA_INITIALIZATION_TYPE",
        "AWS_LAMBDA_LOG_GROUP_NAME",
        "AWS_LAMBDA_LOG_STREAM_NAME",
        "AWS_LAMBDA_RUNTIME_API",
        "AWS_REGION",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_XRAY_CONTEXT_MISSING",
        "AWS_XRAY_DAEMON_ADDRESS",
        "LAMBDA_RUNTIME_DIR",
        "LAMBDA_TASK_ROOT",
        "LANG",
        "LD_LIBRARY_PATH",
        "PATH",
        "PWD",
        "PYTHONPATH",
        "TZ",
        "_AWS_XRAY_DAEMON_ADDRESS",
        "_AWS_XRAY_DAEMON_PORT",
        "_HANDLER",
        "_X_AMZN_TRACE_ID",
    ]
    assert sorted(set(inside) - {"LC_CTYPE"}) == sorted(recorded)
    assert inside["PYTHONPATH"] == folder
    assert inside["AWS_EXECUTION_ENV"] == f"AWS_Lambda_python3.{sys.version_info.minor}"


async def test_own_python_path_replaces_the_layers(running, python_argv, tmp_path):
    """AWS's start script leaves sys.path to a function that sets PYTHONPATH, but for the task itself."""
    write(tmp_path, "import sys\ndef handler(event, context):\n    return sys.path\n")
    async with running(python_argv, tmp_path, environment={"PYTHONPATH": "/opt/mine"}) as runtime:
        await runtime.ready()
        path = await runtime.invoke({})
    assert path[0] == str(tmp_path)
    assert path[2] == "/opt/mine"
    assert "/opt/python" not in path


async def test_path_files_of_the_task_count(running, python_argv, tmp_path):
    write(tmp_path / "vendored", "value = 7\n", "dependency.py")
    write(tmp_path, "vendored\n", "more.pth")
    write(tmp_path, "import dependency\ndef handler(event, context):\n    return dependency.value\n")
    async with running(python_argv, tmp_path) as runtime:
        await runtime.ready()
        assert await runtime.invoke({}) == 7
