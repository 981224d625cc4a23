"""The hot path: Invoke and InvokeAsync between HTTP and ``services.invocation``, written by hand.

The tables of the model would do the same at several times the cost. Knows nothing of signatures or tasks.
"""

import base64
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from stoker.api.canonical import Fields, split_query
from stoker.api.errors import JSON, not_implemented
from stoker.api.model import Operation
from stoker.api.payload import check_client_context, check_payload
from stoker.api.serialise import NO_CONTENT
from stoker.api.validate import check, serialization_error
from stoker.core.arn import REFERENCE_CACHE_SIZE, FunctionReference, parse_function_reference
from stoker.core.errors import ServiceError
from stoker.http.messages import Headers
from stoker.services.invocation import InvokeRequest, InvokeResponse

SYNC_PAYLOAD_MAX_BYTES: Final = 6_291_456
ASYNC_PAYLOAD_MAX_BYTES: Final = 1_048_576
EMPTY_EVENT: Final = b"{}"
"""What a function gets that was invoked without a payload."""

_FUNCTIONS: Final = b"/2015-03-31/functions/"
_INVOCATIONS: Final = b"/invocations"
_OLD_FUNCTIONS: Final = b"/2014-11-13/functions/"
_OLD_INVOCATIONS: Final = b"/invoke-async"

_TYPES: Final = {b"RequestResponse": "RequestResponse", b"Event": "Event", b"DryRun": "DryRun"}
_UNSUPPORTED: Final = {
    b"x-amz-tenant-id": "Invoke with X-Amz-Tenant-Id",
    b"x-amz-durable-execution-name": "Invoke with X-Amz-Durable-Execution-Name",
}


def invoke_target(path: bytes) -> bytes | None:
    """The function's segment of an Invoke path, still percent-encoded; None for other paths."""
    if not path.startswith(_FUNCTIONS):
        return None
    path = path.removesuffix(b"/")
    if not path.endswith(_INVOCATIONS):
        return None
    segment = path[len(_FUNCTIONS) : -len(_INVOCATIONS)]
    return segment if segment and b"/" not in segment else None


def invoke_async_target(path: bytes) -> bytes | None:
    """The same for the path of InvokeAsync."""
    path = path.removesuffix(b"/")
    if not path.startswith(_OLD_FUNCTIONS) or not path.endswith(_OLD_INVOCATIONS):
        return None
    segment = path[len(_OLD_FUNCTIONS) : -len(_OLD_INVOCATIONS)]
    return segment if segment and b"/" not in segment else None


def payload_limit(fields: Fields, *, always_event: bool) -> tuple[int, ServiceError]:
    """How large the payload may be, and the error (413) for one that is larger."""
    if always_event or fields.get(b"x-amz-invocation-type") == b"Event":
        size = fields.get(b"content-length")
        words = f"payload is too large for the Event invocation type (limit {ASYNC_PAYLOAD_MAX_BYTES} bytes)"
        return ASYNC_PAYLOAD_MAX_BYTES, _too_large(f"{size.decode()} byte {words}" if size else words)
    words = f"Request must be smaller than {SYNC_PAYLOAD_MAX_BYTES} bytes for the InvokeFunction operation"
    return SYNC_PAYLOAD_MAX_BYTES, _too_large(words)


def _too_large(words: str) -> ServiceError:
    """AWS's code here is not the RequestTooLargeException of its model."""
    return ServiceError("RequestEntityTooLargeException", words, fields={"Type": "User"})


class InvokeReader:
    """Reads Invoke requests; checks by the model's rules only what is not one of the common forms."""

    def __init__(self, invoke: Operation, invoke_async: Operation) -> None:
        self._invoke = invoke
        self._reference: Callable[[bytes, str | None], FunctionReference] = lru_cache(REFERENCE_CACHE_SIZE)(
            _reference_reader(invoke)
        )
        self._async_reference: Callable[[bytes, str | None], FunctionReference] = lru_cache(
            REFERENCE_CACHE_SIZE
        )(_reference_reader(invoke_async))

    def read(self, segment: bytes, query: bytes, fields: Fields, payload: bytes) -> InvokeRequest:
        """The typed request of Invoke.

        Raises:
            ServiceError: ValidationException, InvalidRequestContentException,
                RequestEntityTooLargeException.
        """
        reference = self._reference(segment, _qualifier(query) if query else None)
        kind = fields.get(b"x-amz-invocation-type")
        invocation_type = "RequestResponse" if kind is None else _TYPES.get(kind)
        log_type = fields.get(b"x-amz-log-type")
        if invocation_type is None or log_type not in (None, b"None", b"Tail"):
            self._refuse(kind, log_type)
        for name, what in _UNSUPPORTED.items():
            if name in fields:
                raise not_implemented("lambda", what)
        client_context = fields.get(b"x-amz-client-context")
        if client_context is not None:
            check_client_context(client_context)
        _check_size(payload, fields, always_event=False)
        check_payload(payload)
        trace_id = fields.get(b"x-amzn-trace-id")
        return InvokeRequest(
            reference,
            payload or EMPTY_EVENT,
            invocation_type or "",
            log_type == b"Tail",
            client_context.decode() if client_context else None,
            trace_id.decode("latin-1") if trace_id else None,
        )

    def read_async(self, segment: bytes, fields: Fields, payload: bytes) -> InvokeRequest:
        """The typed request of InvokeAsync: always an event, without a qualifier of its own."""
        reference = self._async_reference(segment, None)
        _check_size(payload, fields, always_event=True)
        check_payload(payload)
        trace_id = fields.get(b"x-amzn-trace-id")
        return InvokeRequest(
            reference,
            payload or EMPTY_EVENT,
            "Event",
            trace_id=trace_id.decode("latin-1") if trace_id else None,
        )

    def _refuse(self, kind: bytes | None, log_type: bytes | None) -> None:
        members: dict[str, Any] = {"FunctionName": "f"}
        if kind is not None:
            members["InvocationType"] = kind.decode("latin-1")
        if log_type is not None:
            members["LogType"] = log_type.decode("latin-1")
        check(members, self._invoke.rule)


def _reference_reader(operation: Operation) -> Callable[[bytes, str | None], FunctionReference]:
    def read(segment: bytes, qualifier: str | None) -> FunctionReference:
        try:
            name = unquote_to_bytes(segment).decode()
        except UnicodeDecodeError:
            raise serialization_error("The request is not valid UTF-8.") from None
        members: dict[str, Any] = {"FunctionName": name}
        if operation.payload is not None:
            # InvokeAsync requires its payload, which is looked at elsewhere.
            members[operation.payload] = b""
        if qualifier is not None:
            members["Qualifier"] = qualifier
        check(members, operation.rule)
        return parse_function_reference(name, qualifier)

    return read


def _qualifier(query: bytes) -> str | None:
    found = [value for name, value in split_query(query) if name == b"Qualifier"]
    if not found:
        return None
    if len(found) > 1:
        raise serialization_error(f"Query parameter Qualifier is given {len(found)} times")
    try:
        return found[0].decode()
    except UnicodeDecodeError:
        raise serialization_error("The request is not valid UTF-8.") from None


def _check_size(payload: bytes, fields: Fields, *, always_event: bool) -> None:
    if len(payload) > ASYNC_PAYLOAD_MAX_BYTES:
        limit_bytes, too_large = payload_limit(fields, always_event=always_event)
        if len(payload) > limit_bytes:
            raise too_large


def invoke_answer(response: InvokeResponse, request_id: str) -> tuple[int, Headers, bytes]:
    """Status, headers and body of Invoke's answer."""
    headers: Headers = [(b"x-amzn-requestid", request_id.encode())]
    if response.status != NO_CONTENT:
        headers.append((b"content-type", JSON))
    if response.executed_version is not None:
        headers.append((b"x-amz-executed-version", response.executed_version.encode()))
    if response.function_error is not None:
        headers.append((b"x-amz-function-error", response.function_error.encode()))
    if response.log_tail is not None:
        headers.append((b"x-amz-log-result", base64.b64encode(response.log_tail)))
    return response.status, headers, response.payload
