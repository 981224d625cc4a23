"""kill -9 of every part during work: acknowledged writes are there afterwards, and nothing leaks."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from tests.integration.traces import stoker_processes, traces
from tests.running import PYTHON_RUNTIME, ROLE, RunningStoker, python_zip

pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.skipif(os.geteuid() != 0, reason="counts what root's sandboxes leave on the host"),
]

ECHO = python_zip(
    "import time\ndef lambda_handler(event, context):\n    time.sleep(0.02)\n    return event\n"
)
INVOCATIONS = 200


@pytest.fixture
def crashing() -> Iterator[RunningStoker]:
    running = RunningStoker()
    try:
        running.start()
        yield running
    finally:
        running.remove()


class Load:
    """Invokes and creates all along; remembers what was acknowledged."""

    def __init__(self, running: RunningStoker) -> None:
        self._running = running
        self._stop = threading.Event()
        self.acknowledged: list[str] = []
        self.accepted_events = 0
        self.answered = 0
        self.wrong: list[Any] = []

    def invoke(self, number: int) -> None:
        try:
            answer = self._running.client("lambda", read_timeout=20).invoke(
                FunctionName="steady", Payload=json.dumps({"n": number})
            )
        except (ClientError, BotoCoreError):
            return
        payload = json.loads(answer["Payload"].read())
        if "FunctionError" not in answer and payload != {"n": number}:
            self.wrong.append(payload)
        self.answered += 1

    def create(self) -> None:
        service = self._running.client("lambda", read_timeout=20)
        number = 0
        while not self._stop.is_set():
            name = f"created-{number}"
            number += 1
            try:
                service.create_function(
                    FunctionName=name,
                    Role=ROLE,
                    Runtime=PYTHON_RUNTIME,
                    Handler="lambda_function.lambda_handler",
                    Code={"ZipFile": ECHO},
                )
            except ClientError:
                continue
            except BotoCoreError:
                return
            self.acknowledged.append(name)

    def stop(self) -> None:
        self._stop.set()


def kill_role(role: str) -> Callable[[RunningStoker], None]:
    def kill(running: RunningStoker) -> None:
        pids = stoker_processes(running.data)[role]
        assert pids, f"no {role} runs"
        for pid in pids:
            os.kill(pid, signal.SIGKILL)

    return kill


@pytest.mark.parametrize("role", ["service", "jail", "supervisor"])
def test_killed_during_200_invocations_and_a_create(crashing: RunningStoker, role: str) -> None:
    crashing.create(
        "steady", ECHO, Runtime=PYTHON_RUNTIME, Handler="lambda_function.lambda_handler", Timeout=10
    )
    load = Load(crashing)
    creator = threading.Thread(target=load.create)
    creator.start()
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(load.invoke, number) for number in range(INVOCATIONS)]
        while load.answered < INVOCATIONS // 4 and not all(future.done() for future in futures):
            time.sleep(0.01)
        kill_role(role)(crashing)
    load.stop()
    creator.join()
    assert load.acknowledged
    assert load.wrong == []
    if role == "supervisor":
        assert crashing.process is not None
        crashing.process.wait(20)
        crashing.start()
    crashing._wait_ready("/ready")
    wait_until_invocable(crashing)
    listed = {
        function["FunctionName"]
        for page in crashing.client("lambda").get_paginator("list_functions").paginate()
        for function in page["Functions"]
    }
    assert set(load.acknowledged) <= listed
    last = load.acknowledged[-1]
    crashing.client("lambda").get_waiter("function_active_v2").wait(
        FunctionName=last, WaiterConfig={"Delay": 1, "MaxAttempts": 30}
    )
    assert crashing.invoke(last, {"x": 1}) == {"x": 1}
    running = traces(crashing.data)
    assert running.processes
    assert running.cgroups
    assert crashing.stop() == 0
    assert settled(crashing, running.links) == {}


def wait_until_invocable(running: RunningStoker) -> None:
    """Until an invocation succeeds again."""
    deadline = time.monotonic() + 40
    while True:
        try:
            assert running.invoke("steady", {"x": 1}) == {"x": 1}
        except (ClientError, BotoCoreError, AssertionError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return


def settled(stopped: RunningStoker, links: frozenset[str]) -> dict[str, list[str]]:
    """What leaked, after the kernel had a moment to finish."""
    deadline = time.monotonic() + 10
    while True:
        left = traces(stopped.data).left()
        if still := sorted(links & set(os.listdir("/sys/class/net"))):
            left["links"] = still
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.1)


def test_accepted_events_survive(crashing: RunningStoker) -> None:
    # Slow, so that none is done before the kill: what an unsettled event did is done again.
    source = (
        "import time\ndef lambda_handler(event, context):\n    time.sleep(2)\n    print('ran', event['n'])\n"
    )
    crashing.create_python("eventually", source, Timeout=20)
    service = crashing.client("lambda")
    for number in range(10):
        answer = service.invoke(
            FunctionName="eventually", InvocationType="Event", Payload=json.dumps({"n": number})
        )
        assert answer["StatusCode"] == 202
    crashing.kill()
    crashing.start()
    deadline = time.monotonic() + 60
    ran: set[str] = set()
    while len(ran) < 10 and time.monotonic() < deadline:
        time.sleep(0.3)
        ran = lines(crashing, "/aws/lambda/eventually")
    assert ran == {f"ran {number}" for number in range(10)}


def lines(running: RunningStoker, group: str) -> set[str]:
    try:
        pages = running.client("logs").get_paginator("filter_log_events").paginate(logGroupName=group)
        return {
            event["message"].strip()
            for page in pages
            for event in page["events"]
            if event["message"].startswith("ran")
        }
    except ClientError:
        return set()
