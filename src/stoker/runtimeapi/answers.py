"""Bytes of the Runtime API's answers and the checks of what a runtime posts. Pure functions."""

import base64
import binascii
import re
from typing import Any

import msgspec

from stoker.runtimeapi.records import MAX_RESPONSE_BYTES, RuntimeInvocation

ERROR_WITH_CAUSE = "application/vnd.aws.lambda.error.cause+json"
"""Content type of an error that carries its X-Ray cause inside."""

_ERROR_TYPE = re.compile(r"(?:Runtime|Function)\.[A-Z][a-zA-Z]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_REASONS = {
    200: "OK",
    202: "Accepted",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    413: "Request Entity Too Large",
}


def answer(status: int, body: bytes, content_type: str = "application/json") -> bytes:
    """A whole HTTP/1.1 answer."""
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\n"
        f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def refuse(status: int, error_type: str, message: str) -> bytes:
    """An answer in the Runtime API's error shape."""
    return answer(status, error_body(error_type, message))


def error_body(error_type: str, message: str) -> bytes:
    """JSON of an error: errorMessage and errorType, in that order as AWS sends them."""
    return msgspec.json.encode({"errorMessage": message, "errorType": error_type})


ACCEPTED = answer(202, b'{"status":"OK"}\n')
PONG = answer(200, b"pong", "text/plain; charset=utf-8")
INVALID_REQUEST_ID = refuse(400, "InvalidRequestID", "Invalid request ID")
INVALID_RESPONSE_MODE = refuse(400, "InvalidFunctionResponseMode", "Invalid function response mode")
TOO_LARGE = refuse(
    413, "RequestEntityTooLarge", f"Exceeded maximum allowed payload size ({MAX_RESPONSE_BYTES} bytes)."
)
OVERSIZED_RESPONSE_BODY = error_body(
    "Function.ResponseSizeTooLarge",
    f"Response payload size exceeded maximum allowed payload size ({MAX_RESPONSE_BYTES} bytes).",
)


def render_invocation(invocation: RuntimeInvocation) -> bytes:
    """The answer to ``/next``: the event and all headers that have a value."""
    head = (
        f"HTTP/1.1 200 OK\r\nContent-Type: {invocation.content_type}\r\n"
        f"Lambda-Runtime-Aws-Request-Id: {invocation.request_id}\r\n"
        f"Lambda-Runtime-Deadline-Ms: {invocation.deadline_ms}\r\n"
        f"Lambda-Runtime-Invoked-Function-Arn: {invocation.invoked_function_arn}\r\n"
    )
    if invocation.trace_id:
        head += f"Lambda-Runtime-Trace-Id: {one_line(invocation.trace_id)}\r\n"
    if invocation.client_context:
        head += f"Lambda-Runtime-Client-Context: {one_line(invocation.client_context)}\r\n"
    if invocation.cognito_identity:
        head += f"Lambda-Runtime-Cognito-Identity: {one_line(invocation.cognito_identity)}\r\n"
    if invocation.tenant_id:
        head += f"Lambda-Runtime-Aws-Tenant-Id: {one_line(invocation.tenant_id)}\r\n"
    head += f"Content-Length: {len(invocation.payload)}\r\n\r\n"
    return head.encode() + invocation.payload


def one_line(text: str) -> str:
    """A caller's text fit for a header: line breaks and control characters become spaces.

    JSON knows them as white space only, so the value of JSON text does not change.
    """
    return text if text.isprintable() else _CONTROL.sub(" ", text)


def valid_error_type(error_type: str) -> str:
    """The error type a runtime claims, or AWS's stand-in for one that is malformed.

    Source: ``fatalerror.GetValidRuntimeOrFunctionErrorType`` of the runtime interface emulator.
    """
    if _ERROR_TYPE.fullmatch(error_type):
        return error_type
    return "Function.Unknown" if error_type.startswith("Function.") else "Runtime.Unknown"


def error_without_cause(body: bytes) -> bytes:
    """The caller's part of an ``ERROR_WITH_CAUSE`` body: message, type and stack trace."""
    try:
        parsed: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return b'"Invalid error body"'
    if not isinstance(parsed, dict):
        return b'"Invalid error body"'
    kept = ("errorMessage", "errorType", "stackTrace")
    return msgspec.json.encode({name: parsed[name] for name in kept if name in parsed})  # pyright: ignore[reportUnknownVariableType]


def trailer_error_body(encoded: bytes) -> bytes:
    """The error body of a streamed response's trailer, which is base64; empty when it is not."""
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return b""
