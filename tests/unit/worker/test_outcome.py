"""Payloads of failures, against what AWS Lambda answered (recorded) or its emulator says."""

import json

import pytest

from stoker.sandbox.driver import Exit
from stoker.worker import outcome


@pytest.mark.parametrize(
    ("end", "message"),
    [
        (Exit(0, None), "Runtime exited without providing a reason"),
        (Exit(1, None), "Runtime exited with error: exit status 1"),
        (Exit(127, None), "Runtime exited with error: exit status 127"),
        (Exit(None, 9), "Runtime exited with error: signal: killed"),
        (Exit(None, 6), "Runtime exited with error: signal: aborted"),
        (Exit(None, 11), "Runtime exited with error: signal: segmentation fault"),
        (Exit(None, 15), "Runtime exited with error: signal: terminated"),
        (Exit(None, 31), "Runtime exited with error: signal: bad system call"),
        (Exit(None, 40), "Runtime exited with error: signal: signal 40"),
        (Exit(None, 9, oom_killed=True), "Runtime exited with error: signal: killed"),
        (Exit(1, None, oom_killed=True), "Runtime exited with error: signal: killed"),
    ],
)
def test_an_exit(end: Exit, message: str) -> None:
    result = outcome.exited(end, "id")
    assert json.loads(result.payload) == {
        "errorType": "Runtime.ExitError",
        "errorMessage": f"RequestId: id Error: {message}",
    }
    assert (result.function_error, result.healthy, result.status) == ("Unhandled", False, "error")
    assert result.error_type == ("Runtime.OutOfMemory" if end.oom_killed else "Runtime.ExitError")
    assert result.log_line == f"RequestId: id Error: {message}\nRuntime.ExitError\n"


def test_a_time_out() -> None:
    result = outcome.timed_out(1, "id")
    assert json.loads(result.payload) == {
        "errorType": "Sandbox.Timedout",
        "errorMessage": "RequestId: id Error: Task timed out after 1.00 seconds",
    }
    assert (result.function_error, result.healthy, result.status) == ("Unhandled", False, "timeout")


def test_what_the_runtime_posted_is_passed_on_as_it_is() -> None:
    body = b'{"errorMessage": "no", "errorType": "ValueError", "requestId": "id", "stackTrace": []}'
    result = outcome.failed("Runtime.Unknown", body, "id")
    assert (result.payload, result.function_error, result.healthy) == (body, "Unhandled", True)


def test_an_over_large_response_ends_the_sandbox() -> None:
    assert not outcome.failed("Function.ResponseSizeTooLarge", b"{}", "id").healthy


def test_an_invalid_entrypoint() -> None:
    result = outcome.platform_failure("Runtime.InvalidEntrypoint", "no bootstrap", "id")
    assert json.loads(result.payload) == {
        "errorType": "Runtime.InvalidEntrypoint",
        "errorMessage": "RequestId: id Error: no bootstrap",
    }


def test_success() -> None:
    result = outcome.succeeded(b"1")
    assert (result.payload, result.function_error, result.healthy, result.log_line) == (
        b"1",
        None,
        True,
        None,
    )
