"""kill -9 of the service in the middle of updates: what was acknowledged holds, and nothing stays half done."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from tests.integration.traces import stoker_processes
from tests.running import PYTHON_RUNTIME, RunningStoker, python_zip

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(os.geteuid() != 0, reason="finds the processes that root's supervisor started"),
]

KILLS = 3


@pytest.fixture
def running() -> Iterator[RunningStoker]:
    made = RunningStoker(retry_scale=0.02)
    try:
        made.start()
        yield made
    finally:
        made.remove()


class Updates:
    """Updates code and configuration by turns, all along; knows the last acknowledged and the last tried."""

    def __init__(self, running: RunningStoker) -> None:
        self._service = running.client("lambda", read_timeout=20)
        self._stop = threading.Event()
        self.acknowledged = self.tried = 0
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def stop(self) -> None:
        self._stop.set()
        self.thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            number = self.tried + 1
            try:
                if number % 2:
                    self._service.update_function_configuration(
                        FunctionName="updated",
                        Description=str(number),
                        Environment={"Variables": {"NN": str(number)}},
                    )
                else:
                    self._service.update_function_code(FunctionName="updated", ZipFile=code(number))
            except ClientError as refused:
                if refused.response["Error"]["Code"] == "ResourceConflictException":
                    continue
                return
            except BotoCoreError:
                self.tried = number
                return
            self.tried = self.acknowledged = number


def code(number: int) -> bytes:
    source = f"import os\ndef lambda_handler(event, context):\n    return [{number}, os.environ.get('NN')]\n"
    return python_zip(source)


def parts(number: int) -> list[Any]:
    """What the function returns after update ``number``: the last code, the last configuration."""
    return [number // 2 * 2, str((number + 1) // 2 * 2 - 1)]


def test_killed_during_updates(running: RunningStoker) -> None:
    running.create(
        "updated", code(0), Runtime=PYTHON_RUNTIME, Handler="lambda_function.lambda_handler", Timeout=10
    )
    for _ in range(KILLS):
        updates = Updates(running)
        deadline = time.monotonic() + 20
        while updates.acknowledged < 21 and time.monotonic() < deadline:
            time.sleep(0.01)
        for pid in stoker_processes(running.data)["service"]:
            os.kill(pid, signal.SIGKILL)
        updates.stop()
        assert updates.acknowledged >= 21
        after = settled(running)
        assert (after["State"], after["LastUpdateStatus"]) == ("Active", "Successful")
        possible = [parts(updates.acknowledged), parts(updates.tried)]
        assert running.invoke("updated") in possible
        assert after["Environment"]["Variables"]["NN"] == after["Description"]
        running.client("lambda").update_function_configuration(
            FunctionName="updated", Description="", Environment={"Variables": {}}
        )
        settled(running)


def settled(running: RunningStoker) -> dict[str, Any]:
    """The configuration once the service is back and no update is under way."""
    deadline = time.monotonic() + 40
    while True:
        try:
            shown = running.client("lambda").get_function_configuration(FunctionName="updated")
        except (ClientError, BotoCoreError):
            shown = {}
        if shown.get("LastUpdateStatus") not in (None, "InProgress"):
            return shown
        assert time.monotonic() < deadline, shown
        time.sleep(0.1)
