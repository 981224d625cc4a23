"""How errors look on the wire: status, spelling and headers, per service. Pure.

The model names status and members of its errors; what AWS's front end answers by itself is in tables here.
"""

from typing import Final

import msgspec

from stoker.api.model import LOGS, Service
from stoker.api.query_errors import render_xml
from stoker.core.errors import ServiceError
from stoker.http.messages import Headers
from stoker.services.outages import outage

JSON: Final = b"application/json"
JSON_1_1: Final = b"application/x-amz-json-1.1"

_UNMODELLED: Final = {
    "AccessDeniedException": 403,
    "IncompleteSignatureException": 403,
    "InvalidSignatureException": 403,
    "MissingAuthenticationTokenException": 403,
    "UnrecognizedClientException": 403,
    "UnknownOperationException": 404,
    "RequestEntityTooLargeException": 413,
    "InternalFailure": 500,
    "NotImplementedException": 501,
    "ServiceUnavailableException": 503,
}
# The JSON protocol answers 400 to all that is the caller's fault, authentication included.
_JSON_STATUS_KEPT: Final = frozenset((413, 500, 501, 503))
_CAPITAL_MESSAGE: Final = frozenset({"AccessDeniedException"})

_encode = msgspec.json.Encoder().encode


class ErrorAnswer(msgspec.Struct, frozen=True):
    """What is sent."""

    status: int
    headers: Headers
    body: bytes


def unknown_operation(service: str) -> ServiceError:
    """A request whose path or target names no operation."""
    if service == LOGS:
        return ServiceError("UnknownOperationException", "")
    return ServiceError(
        "AccessDeniedException", "Unable to determine service/operation name to be authorized"
    )


def not_implemented(service: str, operation: str) -> ServiceError:
    """An operation that AWS has and Stoker has not."""
    return ServiceError(
        "NotImplementedException",
        f"Stoker does not implement {service}:{operation} yet.",
        fields={"Type": "User"},
    )


def internal_failure(service: str, problem: BaseException) -> ServiceError:
    """Something unexpected; what it was is in the log under the request id. The answer has no more of it than
    what whoever runs the service has to see to: its disk, its object store."""
    code = "ServiceUnavailableException" if service == LOGS else "ServiceException"
    message = "An error occurred and the request cannot be processed."
    if (why := outage(problem)) is not None:
        message = f"The request cannot be processed: {why}."
    return ServiceError(code, message, fields={"Type": "Service"})


def render_error(error: ServiceError, service: Service, request_id: str) -> ErrorAnswer:
    """The answer for ``error``, as the service's protocol has it."""
    if service.name == LOGS:
        return _render_json(error, service, request_id)
    if service.speaks_xml:
        return ErrorAnswer(*render_xml(error, service, request_id))
    shape = service.errors.get(error.code)
    headers: Headers = [
        (b"content-type", JSON),
        (b"x-amzn-requestid", request_id.encode()),
        (b"x-amzn-errortype", _header_text(error.code)),
    ]
    if shape is None:
        key = "Message" if error.code in _CAPITAL_MESSAGE else "message"
        body = {key: error.message}
        if "Type" in error.fields:
            body["Type"] = error.fields["Type"]
        return ErrorAnswer(_UNMODELLED.get(error.code, 400), headers, _encode(body))
    body = {name: value for name, value in error.fields.items() if name in shape.members}
    body[shape.message] = error.message
    headers += [(n, _header_text(error.fields[m])) for m, n in shape.headers.items() if m in error.fields]
    return ErrorAnswer(shape.status, headers, _encode(body))


def _render_json(error: ServiceError, service: Service, request_id: str) -> ErrorAnswer:
    shape = service.errors.get(error.code)
    status = shape.status if shape else _UNMODELLED.get(error.code, 400)
    headers: Headers = [
        (b"content-type", JSON_1_1),
        (b"x-amzn-requestid", request_id.encode()),
        (b"x-amzn-errortype", _header_text(error.code)),
    ]
    body = {"__type": error.code, "message": error.message, **error.fields}
    body.pop("Type", None)
    return ErrorAnswer(status if status in _JSON_STATUS_KEPT else 400, headers, _encode(body))


def _header_text(value: str) -> bytes:
    return value.encode("ascii", "replace").replace(b"\r", b" ").replace(b"\n", b" ")


def http_error_body(status: int, reason: str) -> tuple[Headers, bytes]:
    """What the HTTP server answers by itself (malformed, too large, too slow), in the form of this API."""
    code = "RequestEntityTooLargeException" if status == 413 else "ServiceException"
    if 400 <= status < 500 and status != 413:
        code = "InvalidRequestException"
    headers: Headers = [(b"content-type", JSON), (b"x-amzn-errortype", code.encode())]
    return headers, _encode({"message": reason})
