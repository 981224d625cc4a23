"""The runtime loop: load the handler, take invocations, answer. Failures load what only they need.

Messages, error shapes and order of steps are those of AWS's runtime interface client for Python
(awslambdaric 4), whose functions of the same name appear in stack traces.
"""

# ruff: noqa: PLC0415 - what a start does not need is imported where it is used

import importlib
import os
import sys
import time

from stoker_runtime.client import RuntimeClient
from stoker_runtime.context import LambdaContext
from stoker_runtime.marshal import loads, to_json
from stoker_runtime.sinks import Unbuffered, create_log_sink

invocation_id = None
"""Request id of the running invocation, for log records."""
tenant_id = None


class FaultException(Exception):
    """A failure of the runtime's own steps, with the error type that AWS gives it."""

    def __init__(self, exception_type, msg, trace=None):
        self.msg = msg
        self.exception_type = exception_type
        self.trace = trace


def _get_handler(handler):
    modname, dot, fname = handler.rpartition(".")
    if not dot:
        # The text is that of the failed tuple assignment in AWS's code.
        raise FaultException(
            "Runtime.MalformedHandlerName",
            f"Bad handler '{handler}': not enough values to unpack (expected 2, got 1)",
        )
    if modname.split(".")[0] in sys.builtin_module_names:
        raise FaultException(
            "Runtime.BuiltInModuleConflict",
            f"Cannot use built-in module {modname} as a handler module",
        )
    try:
        module = importlib.import_module(modname.replace("/", "."))
    except ImportError as e:
        raise FaultException(
            "Runtime.ImportModuleError", f"Unable to import module '{modname}': {e}"
        ) from None
    except SyntaxError as e:
        raise FaultException(
            "Runtime.UserCodeSyntaxError",
            f"Syntax error in module '{modname}': {e}",
            [f'  File "{e.filename}" Line {e.lineno}\n    {e.text}'],
        ) from None
    try:
        return getattr(module, fname)
    except AttributeError:
        raise FaultException(
            "Runtime.HandlerNotFound", f"Handler '{fname}' missing on module '{modname}'"
        ) from None


def _marshal_response(response):
    if isinstance(response, bytes):
        return response, "application/unknown"
    try:
        return to_json(response).encode("utf-8"), "application/json"
    except Exception as e:
        raise FaultException("Runtime.MarshalError", f"Unable to marshal response: {e}") from None


def _unmarshal_request(body, content_type):
    if content_type != "application/json":
        return body
    try:
        return loads(body)
    except Exception as e:
        raise FaultException("Runtime.UnmarshalError", f"Unable to unmarshal input: {e}") from None


def _json_header(headers, name, what):
    value = headers.get(name)
    if not value:
        return None
    try:
        return loads(value.encode("utf-8"))
    except Exception as e:
        raise FaultException(
            "Runtime.LambdaContextUnmarshalError", f"Unable to parse {what} JSON: {e}"
        ) from None


def _create_context(headers):
    return LambdaContext(
        headers.get("lambda-runtime-aws-request-id"),
        _json_header(headers, "lambda-runtime-client-context", "Client Context"),
        _json_header(headers, "lambda-runtime-cognito-identity", "Cognito Identity"),
        int(headers.get("lambda-runtime-deadline-ms", "0")),
        headers.get("lambda-runtime-invoked-function-arn"),
        headers.get("lambda-runtime-aws-tenant-id"),
    )


def handle_event_request(client, request_handler, headers, body, log_sink):
    """Run one invocation and post its outcome; BaseExceptions such as SystemExit end the process."""
    request_id = headers["lambda-runtime-aws-request-id"]
    try:
        lambda_context = _create_context(headers)
        event = _unmarshal_request(body, headers.get("content-type", "application/json"))
        response = request_handler(event, lambda_context)
        result, content_type = _marshal_response(response)
    except FaultException as e:
        from stoker_runtime import failures

        failure = failures.from_fault(e, request_id)
    except Exception:
        from stoker_runtime import failures

        failure = failures.from_exception(sys.exc_info(), request_id)
    else:
        client.respond(request_id, result, content_type)
        return
    failure.report(client, log_sink)


def _set_trace_id(trace_id):
    if trace_id is not None:
        os.environ["_X_AMZN_TRACE_ID"] = trace_id
    elif "_X_AMZN_TRACE_ID" in os.environ:
        del os.environ["_X_AMZN_TRACE_ID"]


class _LoggingHook:
    """Sets up the root logger the moment anything imports ``logging``: it costs more than all else here."""

    def __init__(self, log_sink):
        self._log_sink = log_sink

    def find_spec(self, name, path=None, target=None):
        if name != "logging":
            return None
        sys.meta_path.remove(self)
        from importlib.machinery import PathFinder

        spec = PathFinder.find_spec(name, path)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            self._set_up(module)

        spec.loader.exec_module = exec_module
        return spec

    def _set_up(self, module):
        from stoker_runtime import logs

        logs.set_up(module, self._log_sink, sys.modules[__name__])


def _load(handler, client, log_sink):
    try:
        return _get_handler(handler)
    except FaultException as e:
        from stoker_runtime import failures

        failure = failures.from_fault(e, None)
    except Exception:
        from stoker_runtime import failures

        failure = failures.from_exception(sys.exc_info(), None)
    failure.report_init(client, log_sink)
    return sys.exit(1)


def connect(address):
    """A client of the Runtime API at ``address`` (host:port), connected before any code of the function.

    So the first descriptor is taken in a process started for its function as in one that waited for it.
    """
    client = RuntimeClient(address)
    client.connect()
    return client


def wait_for_assignment(client):
    """Started ahead of any function: wait to be told which, then be as if started for it."""
    assignment = loads(client.assignment())
    _become(assignment["environment"])
    os.chdir(assignment["working_directory"])
    for folder in list(sys.path_importer_cache):
        if folder.startswith(("/var/task", "/opt")):  # looked at before it was mounted
            del sys.path_importer_cache[folder]
    if "random" in sys.modules:
        sys.modules["random"].seed()


def _become(wanted):
    """Give this process the environment, in the order, that a fresh one would have been started with."""
    environ = os.environ
    coerced = environ.pop("LC_CTYPE", None)  # the interpreter set it, behind all others (PEP 538)
    for name in list(environ):
        if name not in wanted or name == "AWS_LAMBDA_RUNTIME_API":  # comes later in a fresh one
            del environ[name]
    for name, value in wanted.items():
        if environ.get(name) != value:
            environ[name] = value
    if coerced is not None:
        environ["LC_CTYPE"] = coerced
    time.tzset()


def run(handler, client):
    """Load ``handler`` and serve invocations from the Runtime API behind ``client`` for ever."""
    global invocation_id, tenant_id
    sys.stdout = Unbuffered(sys.stdout)
    sys.stderr = Unbuffered(sys.stderr)
    with create_log_sink() as log_sink:
        sys.meta_path.insert(0, _LoggingHook(log_sink))
        request_handler = _load(handler, client, log_sink)
        while True:
            headers, body = client.next()
            invocation_id = headers["lambda-runtime-aws-request-id"]
            tenant_id = headers.get("lambda-runtime-aws-tenant-id")
            _set_trace_id(headers.get("lambda-runtime-trace-id"))
            handle_event_request(client, request_handler, headers, body, log_sink)
