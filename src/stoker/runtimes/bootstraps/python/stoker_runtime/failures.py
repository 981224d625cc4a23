"""What happens when something fails: error objects, X-Ray causes and the [ERROR] line in the log.

Shapes and texts follow AWS's runtime interface client for Python. Loaded on need: ``traceback`` is big.
"""

# ruff: noqa: PLC0415 - what a start does not need is imported where it is used

import os
import time
import traceback

from stoker_runtime.marshal import to_json
from stoker_runtime.sinks import is_json_format

_NO_BREAK_SPACE = "\u00a0"
_MAX_XRAY_BYTES = 1024 * 1024

UNHANDLED_EXCEPTION_WARNING = (
    "LAMBDA_WARNING: Unhandled exception. "
    "The most likely cause is an issue in the function code. "
    "However, in rare cases, a Lambda runtime update can cause unexpected function behavior. "
    "For functions using managed runtimes, runtime updates can be triggered by a function change, or can be "
    "applied automatically. "
    "To determine if the runtime has been updated, check the runtime version in the INIT_START log entry. "
    "If this error correlates with a change in the runtime version, you may be able to mitigate this error "
    "by temporarily rolling back to the previous runtime version. "
    "For more information, see https://docs.aws.amazon.com/lambda/latest/dg/runtimes-update.html\r"
)


class Failure:
    """One failed step: the error for the caller and its cause for X-Ray."""

    def __init__(self, message, kind, stack_trace, request_id, xray):
        self.request_id = request_id
        self.xray = xray
        self.error = {
            "errorMessage": message if message else "",
            "errorType": kind if kind else "",
            "requestId": request_id if request_id is not None else "",
            "stackTrace": stack_trace if stack_trace else [],
        }

    def report(self, client, log_sink):
        """Log the failure and post it as the invocation's outcome."""
        log_error(self.error, log_sink)
        xray = to_json(self.xray)
        if len(xray.encode()) >= _MAX_XRAY_BYTES:
            xray = ""
        client.fail(self.request_id, to_json(self.error).encode("utf-8"), self.error["errorType"], xray)

    def report_init(self, client, log_sink):
        """Log the failure and post it as the outcome of the Init phase."""
        import logging

        logging.warning(UNHANDLED_EXCEPTION_WARNING)
        log_error(self.error, log_sink)
        client.fail_init(to_json(self.error).encode("utf-8"), self.error["errorType"])


def from_fault(fault, request_id):
    """A failure of the runtime's own steps (FaultException)."""
    xray = _xray_cause("LambdaValidationError", fault.msg, [])
    return Failure(fault.msg, fault.exception_type, fault.trace, request_id, xray)


def from_exception(exc_info, request_id):
    """An exception out of the function's code; the runtime's own frames are left out of the trace."""
    kind, value, tb = exc_info
    frames = [(f.filename, f.lineno, f.name, f.line) for f in traceback.extract_tb(tb)]
    for index, frame in enumerate(frames):
        if "/bootstrap.py" not in frame[0]:
            frames = frames[index:]
            break
    xray = _xray_cause(kind.__name__, str(value), frames)
    return Failure(str(value), kind.__name__, traceback.format_list(frames), request_id, xray)


def _xray_cause(kind, message, frames):
    stack = [{"label": label, "path": path, "line": line} for path, line, label, _ in frames]
    return {
        "working_directory": os.getcwd(),
        "exceptions": [{"message": message, "type": kind, "stack": stack}],
        "paths": list({path for path, _, _, _ in frames}),
    }


def log_error(error, log_sink):
    """Write an error to the function's log: one text line, or one JSON object."""
    if is_json_format():
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        log_sink.log_error([to_json({"timestamp": stamp, "level": "ERROR", **error})])
        return
    head = "[ERROR]"
    if error["errorType"]:
        head += " " + error["errorType"]
    if error["errorMessage"]:
        head += (":" if error["errorType"] else "") + " " + error["errorMessage"]
    lines = [head, "Traceback (most recent call last):"]
    for element in error["stackTrace"]:
        lines += [_indented(line) for line in element.splitlines()] if element else [""]
    log_sink.log_error(lines)


def _indented(line):
    """Leading spaces as no-break spaces, which log viewers keep."""
    text = line.lstrip(" ")
    return _NO_BREAK_SPACE * (len(line) - len(text)) + text
