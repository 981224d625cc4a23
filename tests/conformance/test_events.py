"""Asynchronous invocations: every accepted event runs, once where nothing fails, and no refused one does."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.conformance.recorded import answer, refusal
from tests.running import RunningStoker

MEGABYTE = 1_048_576
WITHIN_S = 30.0


def printed(stoker: RunningStoker, name: str, beginning: str) -> list[str]:
    """The lines of a function's log that begin so."""
    service = stoker.client("logs")
    try:
        pages = list(service.get_paginator("filter_log_events").paginate(logGroupName=f"/aws/lambda/{name}"))
    except service.exceptions.ResourceNotFoundException:
        return []
    found = [event["message"].rstrip("\n") for page in pages for event in page["events"]]
    return [line for line in found if line.startswith(beginning)]


def wait_printed(stoker: RunningStoker, name: str, beginning: str, count: int) -> list[str]:
    deadline = time.monotonic() + WITHIN_S
    while len(lines := printed(stoker, name, beginning)) < count and time.monotonic() < deadline:
        time.sleep(0.1)
    return lines


def send(service: Any, name: str, payload: bytes) -> dict[str, Any]:
    return answer(service.invoke, FunctionName=name, InvocationType="Event", Payload=payload)


def test_each_of_many_events_runs_once(stoker: RunningStoker) -> None:
    name = "events-many"
    stoker.create_python(name, "def lambda_handler(event, context):\n    print('ran', event)\n", Timeout=10)

    def client(first: int) -> list[int]:
        service = stoker.client("lambda")
        return [send(service, name, str(number).encode())["HTTP"] for number in range(first, first + 50)]

    with ThreadPoolExecutor(4) as pool:
        accepted = [status for call in pool.map(client, range(0, 200, 50)) for status in call]
    assert accepted == [202] * 200
    lines = wait_printed(stoker, name, "ran", 200)
    assert sorted(lines) == sorted(f"ran {number}" for number in range(200))


def test_a_megabyte_is_the_limit(stoker: RunningStoker) -> None:
    name, service = "events-large", stoker.client("lambda")
    source = "def lambda_handler(event, context):\n    print('ran', len(event))\n"
    stoker.create_python(name, source, Timeout=10, MemorySize=256)
    assert send(service, name, b'"' + b"x" * (MEGABYTE - 2) + b'"')["HTTP"] == 202
    message = (
        f"{MEGABYTE + 1} byte payload is too large for the Event invocation type (limit {MEGABYTE} bytes)"
    )
    assert send(service, name, b'"' + b"x" * (MEGABYTE - 1) + b'"') == refusal(
        "RequestEntityTooLargeException", message, 413
    )
    assert wait_printed(stoker, name, "ran", 1) == [f"ran {MEGABYTE - 2}"]


def test_what_is_no_json_or_has_no_function_is_not_accepted(stoker: RunningStoker) -> None:
    name, service = "events-refused", stoker.client("lambda")
    stoker.create_python(name, "def lambda_handler(event, context):\n    print('ran')\n", Timeout=10)
    assert send(service, name, b"{")["HTTP"] == 400
    assert send(service, "events-nowhere", b"{}")["HTTP"] == 404
    assert send(service, name, b"{}")["HTTP"] == 202
    assert wait_printed(stoker, name, "ran", 1) == ["ran"]


def test_zero_reserved_executions_drop_events_that_were_accepted(stoker: RunningStoker) -> None:
    name, service = "events-zero", stoker.client("lambda")
    stoker.create_python(name, "def lambda_handler(event, context):\n    print('ran', event)\n", Timeout=10)
    service.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
    assert send(service, name, b"1")["HTTP"] == 202
    time.sleep(0.5)
    service.delete_function_concurrency(FunctionName=name)
    assert send(service, name, b"2")["HTTP"] == 202
    assert wait_printed(stoker, name, "ran", 1) == ["ran 2"]


def test_events_of_a_deleted_function_are_given_up(stoker: RunningStoker) -> None:
    name, service = "events-deleted", stoker.client("lambda")
    source = "import time\ndef lambda_handler(event, context):\n    print('ran', event)\n    time.sleep(1)\n"
    stoker.create_python(name, source, Timeout=10)
    service.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=1)
    for number in range(4):
        assert send(service, name, str(number).encode())["HTTP"] == 202
    assert wait_printed(stoker, name, "ran", 1)
    service.delete_function(FunctionName=name)
    time.sleep(2)
    assert len(printed(stoker, name, "ran")) == 1


@pytest.fixture(scope="module")
def narrow() -> Iterator[RunningStoker]:
    running = RunningStoker(queue_capacity_mb=1, retry_scale=0.02)
    try:
        running.start()
        yield running
    finally:
        running.remove()


def test_a_full_queue_refuses_and_keeps_what_it_accepted(narrow: RunningStoker) -> None:
    name, service = "events-full", narrow.client("lambda")
    source = (
        "import time\ndef lambda_handler(event, context):\n    print('ran', event[:1])\n    time.sleep(0.5)\n"
    )
    narrow.create_python(name, source, Timeout=10)
    service.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=1)
    answers = [send(service, name, json.dumps(str(number) + "x" * 300_000).encode()) for number in range(6)]
    accepted = [number for number, shown in enumerate(answers) if shown["HTTP"] == 202]
    assert accepted[:3] == [0, 1, 2]
    assert len(accepted) < 6
    assert answers[-1] == refusal(
        "TooManyRequestsException",
        "Rate Exceeded.",
        429,
        Reason="CallerRateLimitExceeded",
        Type="User",
        message="Rate Exceeded.",
    )
    lines = wait_printed(narrow, name, "ran", len(accepted))
    assert sorted(lines) == [f"ran {number}" for number in accepted]
    deadline = time.monotonic() + WITHIN_S
    while send(service, name, b'"again"')["HTTP"] != 202:
        assert time.monotonic() < deadline, "room that was freed can be used"
        time.sleep(0.1)
