"""Request ids, errors on the wire, answers, and the start of the API."""

import subprocess
import sys
import time
import uuid
from typing import Any

import msgspec
import pytest

from stoker.api.errors import http_error_body, internal_failure, render_error
from stoker.api.model import compile_service
from stoker.api.request_ids import BATCH, RequestIds
from stoker.api.serialise import serialise_response
from stoker.core.errors import ServiceError, invalid_parameter, not_found, too_many_requests
from stoker.services import lambda_types as lt

LAMBDA = compile_service("lambda")
LOGS = compile_service("logs")


def test_request_ids_are_random_uuids() -> None:
    ids = RequestIds()
    made = [ids.next() for _ in range(3 * BATCH)]
    assert len(set(made)) == len(made)
    for text in made:
        parsed = uuid.UUID(text)
        assert str(parsed) == text
        assert parsed.version == 4
        assert parsed.variant == uuid.RFC_4122


@pytest.mark.parametrize(
    ("error", "status", "body"),
    [
        (not_found("gone"), 404, {"Type": "User", "Message": "gone"}),
        (invalid_parameter("bad"), 400, {"Type": "User", "message": "bad"}),
        (ServiceError("InvalidParameterValueException", "bad"), 400, {"message": "bad"}),
        (
            too_many_requests("slow", "CallerRateLimitExceeded"),
            429,
            {"Type": "User", "Reason": "CallerRateLimitExceeded", "message": "slow"},
        ),
        (ServiceError("ValidationException", "1 validation error"), 400, {"message": "1 validation error"}),
        (ServiceError("AccessDeniedException", "no"), 403, {"Message": "no"}),
        (ServiceError("ResourceNotFoundException", "x", fields={"Unknown": "y"}), 404, {"Message": "x"}),
        (
            internal_failure("lambda", ValueError("secret")),
            500,
            {"Type": "Service", "Message": "An error occurred and the request cannot be processed."},
        ),
    ],
)
def test_errors_of_lambda(error: ServiceError, status: int, body: dict[str, Any]) -> None:
    answer = render_error(error, LAMBDA, "id")
    assert answer.status == status
    assert msgspec.json.decode(answer.body) == body
    assert (b"x-amzn-errortype", error.code.encode()) in answer.headers
    assert (b"x-amzn-requestid", b"id") in answer.headers


def test_retry_after_is_a_header() -> None:
    error = ServiceError("TooManyRequestsException", "x", fields={"retryAfterSeconds": "3\r\nx: y"})
    assert (b"Retry-After", b"3  x: y") in render_error(error, LAMBDA, "id").headers


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("ResourceNotFoundException", 400),
        ("UnrecognizedClientException", 400),
        ("ServiceUnavailableException", 500),
        ("NotImplementedException", 501),
    ],
)
def test_errors_of_logs(code: str, status: int) -> None:
    answer = render_error(ServiceError(code, "m", fields={"Type": "User"}), LOGS, "id")
    assert answer.status == status
    assert msgspec.json.decode(answer.body) == {"__type": code, "message": "m"}


def test_answers() -> None:
    operations = LAMBDA.operations
    answer = serialise_response(operations["DeleteAlias"], "ignored", "id")
    assert (answer.status, answer.body) == (204, b"")
    answer = serialise_response(
        operations["DeleteFunction"], lt.DeleteFunctionResponse(status_code=204), "id"
    )
    assert (answer.status, answer.body) == (204, b"")
    answer = serialise_response(operations["DeleteFunction"], lt.DeleteFunctionResponse(), "id")
    assert (answer.status, answer.body) == (200, b"{}")
    answer = serialise_response(operations["ListAliases"], lt.ListAliasesResponse(aliases=()), "id")
    assert (answer.status, answer.body) == (200, b'{"Aliases":[]}')
    answer = serialise_response(
        operations["Invoke"],
        lt.InvocationResponse(status_code=202, function_error="Unhandled", payload=b"x"),
        "id",
    )
    assert (answer.status, answer.body) == (202, b"x")
    assert (b"x-amz-function-error", b"Unhandled") in answer.headers
    with pytest.raises(TypeError, match="answers ListAliasesResponse"):
        serialise_response(operations["ListAliases"], lt.DeleteFunctionResponse(), "id")


def test_the_http_servers_own_answers() -> None:
    headers, body = http_error_body(413, "too large")
    assert (b"x-amzn-errortype", b"RequestEntityTooLargeException") in headers
    assert msgspec.json.decode(body) == {"message": "too large"}


def test_the_tables_are_made_quickly_and_the_models_let_go() -> None:
    """In a process of its own: everything that a start has to do, and what stays of it."""
    code = (
        "import gc, time; t = time.perf_counter()\n"
        "from stoker.api.model import compile_service\n"
        "kept = [compile_service('lambda'), compile_service('logs')]\n"
        "took = time.perf_counter() - t; gc.collect()\n"
        "models = [o for o in gc.get_objects() if isinstance(o, dict) and 'operations' in o and 'shapes' in o]\n"
        "print(took, len(models))"
    )
    started = time.perf_counter()
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    took, models = output.split()
    assert models == "0"
    # A second is the promise; the bound leaves room for a machine under load.
    assert float(took) < 3
    assert time.perf_counter() - started < 10
