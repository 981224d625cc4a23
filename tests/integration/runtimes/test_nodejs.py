"""The Node.js bootstrap as a process: handler styles, module kinds, errors, logs, streaming."""

import json
import re
from pathlib import Path

import pytest

REQUEST_ID = "00000000-0000-4000-8000-000000000001"


def write(folder: Path, text: str, name: str = "index.js") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("index.js", "exports.handler = async (event) => event"),
        ("index.cjs", "exports.handler = async (event) => event"),
        ("index.mjs", "const x = await Promise.resolve(1); export const handler = async (event) => event"),
        ("index.js", "exports.handler = (event, context) => Promise.resolve(event)"),
    ],
)
async def test_handlers_that_return_promises(running, node_argv, tmp_path, name, code):
    write(tmp_path, code, name)
    async with running(node_argv, tmp_path) as runtime:
        await runtime.ready()
        for number in range(3):
            assert await runtime.invoke({"n": number, "text": "grün €"}) == {"n": number, "text": "grün €"}


CALLBACKS_GONE = "AWS removed callbacks with Node.js 24"


def has_callbacks(node) -> bool:
    return int(node.version.split(".")[0]) < 24


@pytest.mark.parametrize(
    "code",
    [
        "exports.handler = (event, context, callback) => callback(null, event)",
        "exports.handler = (event, context) => context.succeed(event)",
        "exports.handler = (event, context) => context.done(null, event)",
        "exports.handler = (e, c, cb) => { setTimeout(() => cb(null, e), 5) }",
        "exports.handler = (e, c, cb) => { c.callbackWaitsForEmptyEventLoop = false;"
        "setInterval(() => {}, 1000); cb(null, e) }",
    ],
)
async def test_handlers_that_call_back(running, node, node_argv, tmp_path, code):
    if not has_callbacks(node):
        pytest.skip(CALLBACKS_GONE)
    write(tmp_path, code)
    async with running(node_argv, tmp_path) as runtime:
        await runtime.ready()
        for number in range(3):
            assert await runtime.invoke({"n": number}) == {"n": number}


async def test_callbacks_are_refused_since_node_24(running, node, node_argv, tmp_path):
    if has_callbacks(node):
        pytest.skip("callbacks still work before Node.js 24")
    write(tmp_path, "exports.handler = async (event, context, callback) => event")
    async with running(node_argv, tmp_path) as runtime:
        failure = await runtime.init_error()
    assert failure["errorType"] == "Runtime.CallbackHandlerDeprecated"
    assert failure["errorMessage"].startswith("ERROR: AWS Lambda has removed support for callback-based")


async def test_result_of_a_plain_function_counts_since_node_24(running, node, node_argv, tmp_path):
    write(tmp_path, "exports.handler = (event) => event")
    async with running(node_argv, tmp_path) as runtime:
        await runtime.ready()
        assert await runtime.invoke([1]) == (None if has_callbacks(node) else [1])


async def test_es_module_by_package_type_as_recorded_by_aws(running, node_argv, tmp_path):
    write(tmp_path, '{"type": "module"}', "package.json")
    write(
        tmp_path,
        """
export const handler = async (event) => ({
    statusCode: 200, body: JSON.stringify(`response from lambda: ${JSON.stringify(event)}`) });
""",
        "es6.js",
    )
    async with running(node_argv, tmp_path, handler="es6.handler") as runtime:
        await runtime.ready()
        assert await runtime.invoke({"event_type": "test_lambda"}) == {
            "body": '"response from lambda: {\\"event_type\\":\\"test_lambda\\"}"',
            "statusCode": 200,
        }


async def test_no_result_is_null(running, node_argv, tmp_path):
    """Recorded by AWS: a handler that returns nothing answers null."""
    write(tmp_path, "exports.handler = async () => {}; exports.nothing = () => {};")
    for handler in ("index.handler", "index.nothing"):
        async with running(node_argv, tmp_path, handler=handler) as runtime:
            await runtime.ready()
            assert (await runtime.invoke_raw(b"{}"))[2] == b"null"


async def test_callback_waits_for_the_event_loop(running, node, node_argv, tmp_path):
    if not has_callbacks(node):
        pytest.skip(CALLBACKS_GONE)
    write(
        tmp_path,
        "let late = 0; exports.handler = (e, c, cb) => { setTimeout(() => { late++ }, 20); cb(null, {late}) };"
        "exports.seen = null;",
    )
    async with running(node_argv, tmp_path) as runtime:
        await runtime.ready()
        assert await runtime.invoke({}) == {"late": 0}
        assert await runtime.invoke({}) == {"late": 1}


async def test_nested_folder_and_property(running, node_argv, tmp_path):
    write(tmp_path / "src" / "app", "exports.api = {v1: {go: async () => __filename}}", "main.js")
    async with running(node_argv, tmp_path, handler="src/app/main.api.v1.go") as runtime:
        await runtime.ready()
        assert await runtime.invoke({}) == str(tmp_path / "src" / "app" / "main.js")


async def test_context(running, node, node_argv, tmp_path):
    write(
        tmp_path,
        """
exports.handler = async (event, c) => ({
  ...c, left: c.getRemainingTimeInMillis() > 0, trace: process.env._X_AMZN_TRACE_ID });
""",
    )
    async with running(node_argv, tmp_path) as runtime:
        await runtime.ready()
        seen = await runtime.invoke({}, client_context='{"custom":{"k":"ü"}}', cognito_identity='{"a":1}')
        assert seen.pop("callbackWaitsForEmptyEventLoop", False) == has_callbacks(node)
        assert seen == {
            "functionVersion": "$LATEST",
            "functionName": "echo",
            "memoryLimitInMB": "128",
            "logGroupName": "/aws/lambda/echo",
            "logStreamName": "2024/01/01/[$LATEST]abc",
            "clientContext": {"custom": {"k": "ü"}},
            "identity": {"a": 1},
            "invokedFunctionArn": "arn:aws:lambda:us-east-1:000000000000:function:echo",
            "awsRequestId": REQUEST_ID,
            "left": True,
            "trace": "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=1;Sampled=0",
        }


@pytest.mark.parametrize(
    ("code", "kind", "message"),
    [
        ("exports.handler = async () => { throw new TypeError('no') }", "TypeError", "no"),
        ("exports.handler = (e, c, cb) => cb(new Error('called'))", "Error", "called"),
        ("exports.handler = (e, c, cb) => cb('text')", "string", "text"),
        ("exports.handler = () => { throw new RangeError('sync') }", "RangeError", "sync"),
        ("exports.handler = async () => ({n: 1n})", "Error", "Unable to stringify response body"),
    ],
)
async def test_failures_leave_the_runtime_usable(running, node, node_argv, tmp_path, code, kind, message):
    if "cb" in code and not has_callbacks(node):
        pytest.skip(CALLBACKS_GONE)
    write(tmp_path, code)
    async with running(node_argv, tmp_path) as runtime:
        await runtime.ready()
        failure = await runtime.fail({})
        await runtime.ready()
        assert (failure["errorType"], failure["errorMessage"]) == (kind, message)
        assert isinstance(failure["trace"], list)
        assert sorted(failure) == ["errorMessage", "errorType", "trace"]
        again = await runtime.fail({})
        assert again["errorMessage"] == message


@pytest.mark.parametrize(
    ("code", "kind", "message", "status"),
    [
        ("setTimeout(() => { throw new Error('later') }, 1)", "Error", "later", 129),
        (
            "Promise.reject(new Error('unseen'))",
            "Runtime.UnhandledPromiseRejection",
            "Error: unseen",
            128,
        ),
    ],
)
async def test_uncaught_errors_end_the_process(running, node_argv, tmp_path, code, kind, message, status):
    write(tmp_path, f"exports.handler = () => new Promise(() => {{ {code}; setTimeout(() => {{}}, 5000) }})")
    async with running(node_argv, tmp_path) as runtime:
        await runtime.ready()
        failure = await runtime.fail({})
        await runtime.output(exits=True)
    assert (failure["errorType"], failure["errorMessage"]) == (kind, message)
    assert runtime.process.returncode == status


@pytest.mark.parametrize(
    ("handler", "code", "kind", "message"),
    [
        ("missing.handler", "", "Runtime.ImportModuleError", "Error: Cannot find module 'missing'"),
        ("index.handler", "", "Runtime.HandlerNotFound", "index.handler is undefined or not exported"),
        (
            "index.handler",
            "exports.handler = 5",
            "Runtime.HandlerNotFound",
            "index.handler is not a function",
        ),
        (
            "index.handler",
            "exports.handler = (",
            "Runtime.UserCodeSyntaxError",
            "SyntaxError: Unexpected end of input",
        ),
        ("index", "", "Runtime.MalformedHandlerName", "Bad handler"),
        (
            "../index.handler",
            "",
            "Runtime.MalformedHandlerName",
            "'../index.handler' is not a valid handler name. Use absolute paths when specifying root "
            "directories in handler names.",
        ),
        ("index.handler", "throw new Error('at start')", "Error", "at start"),
    ],
)
async def test_handler_cannot_be_loaded(running, node_argv, tmp_path, handler, code, kind, message):
    write(tmp_path, code)
    async with running(node_argv, tmp_path, handler=handler) as runtime:
        failure = await runtime.init_error()
        output = await runtime.output(exits=True)
    assert (failure["errorType"], failure["errorMessage"].split("\n")[0]) == (kind, message)
    assert runtime.process.returncode == 129
    assert "ERROR\tUncaught Exception \t{" in output


async def test_missing_module_names_the_stack_that_aws_names(running, node_argv, tmp_path):
    write(tmp_path, "require('nowhere')")
    async with running(node_argv, tmp_path) as runtime:
        failure = await runtime.init_error()
    assert failure["errorMessage"] == (
        f"Error: Cannot find module 'nowhere'\nRequire stack:\n- {tmp_path}/index.js\n- /var/runtime/index.mjs"
    )


async def test_console_in_text(running, node_argv, tmp_path):
    write(tmp_path, "exports.handler = async () => { console.log('a\\nb %s', 'c'); console.error({x: 1}) }")
    async with running(node_argv, tmp_path) as runtime:
        await runtime.ready()
        await runtime.invoke({})
        output = await runtime.output()
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
    expected = rf"{stamp}\t{REQUEST_ID}\tINFO\ta\rb c\n{stamp}\t{REQUEST_ID}\tERROR\t\{{ x: 1 \}}\n"
    assert re.fullmatch(expected, output)


async def test_console_in_frames_and_json(running, node_argv, tmp_path):
    write(
        tmp_path,
        """
exports.handler = async () => {
  console.debug('hidden'); console.warn({k: 1}); console.error('bad', new TypeError('t')); };
""",
    )
    environment = {"AWS_LAMBDA_LOG_FORMAT": "JSON", "AWS_LAMBDA_LOG_LEVEL": "INFO"}
    async with running(node_argv, tmp_path, environment=environment, telemetry=True) as runtime:
        await runtime.ready()
        await runtime.invoke({})
        warning, error = runtime.telemetry()
    assert (warning.level.name, error.level.name, warning.is_json) == ("WARN", "ERROR", True)
    assert json.loads(warning.message)["message"] == {"k": 1}
    seen = json.loads(error.message)
    assert (seen["errorType"], seen["errorMessage"], seen["requestId"]) == ("TypeError", "t", REQUEST_ID)


async def test_streamed_response_with_http_prelude(running, node_argv, tmp_path):
    write(
        tmp_path,
        """
exports.handler = awslambda.streamifyResponse(async (event, stream, context) => {
  stream = awslambda.HttpResponseStream.from(stream, {statusCode: 201});
  stream.write('one ');
  await new Promise((resolve) => setTimeout(resolve, 5));
  stream.write({two: 2});
  stream.end();
});
""",
    )
    async with running(node_argv, tmp_path) as runtime:
        await runtime.ready()
        for _ in range(2):
            kind, _, body, content_type = await runtime.invoke_raw(b"{}")
            assert (kind, content_type) == (
                "response",
                "application/vnd.awslambda.http-integration-response",
            )
            assert body == b'{"statusCode":201}' + bytes(8) + b'one {"two":2}'
            await runtime.ready()


async def test_streamed_response_that_fails_in_the_middle(running, node_argv, tmp_path):
    write(
        tmp_path,
        """
exports.handler = awslambda.streamifyResponse(async (event, stream) => {
  stream.write('half'); throw new Error('broken'); });
""",
    )
    async with running(node_argv, tmp_path) as runtime:
        await runtime.ready()
        failure = await runtime.fail({})
        assert (failure["errorType"], failure["errorMessage"]) == ("Error", "broken")
        await runtime.ready()


async def test_piped_stream(running, node_argv, tmp_path):
    write(
        tmp_path,
        """
const { pipeline } = require('stream/promises');
const { Readable } = require('stream');
exports.handler = awslambda.streamifyResponse(async (event, stream) => {
  await pipeline(Readable.from(['x'.repeat(300000), 'y']), stream); });
""",
    )
    async with running(node_argv, tmp_path) as runtime:
        await runtime.ready()
        assert (await runtime.invoke_raw(b"{}"))[2] == b"x" * 300000 + b"y"


async def test_large_payload_both_ways(running, node_argv, tmp_path):
    write(tmp_path, "exports.handler = async (event) => event")
    async with running(node_argv, tmp_path) as runtime:
        await runtime.ready()
        text = "é" * 2_000_000
        assert await runtime.invoke(text) == text


async def test_oversized_response_ends_the_process(running, node_argv, tmp_path):
    write(tmp_path, "exports.handler = async (n) => 'x'.repeat(n)")
    async with running(node_argv, tmp_path) as runtime:
        await runtime.ready()
        kind, _, error_type, _ = await runtime.invoke_raw(b"6291555")
        assert (kind, error_type) == ("error", "Function.ResponseSizeTooLarge")
        await runtime.output(exits=True)
        assert runtime.process.returncode == 1
