"""The worker over real Python bootstraps in real processes."""

import asyncio
import json
import re
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from stoker.core.clock import SystemClock
from stoker.packaging.memory_images import MemoryImageStore
from stoker.runtimes.catalog import RuntimeCatalog
from stoker.services.code import CodeInUse, CodeMissing
from stoker.services.credentials import Credential
from stoker.services.functions import FunctionKey, FunctionVersion, LogSettings, Status
from stoker.services.invocation import Invocation, InvocationResult
from stoker.services.worker import SandboxReference, StaleReference, WorkerUnavailable
from stoker.store.environments import KeptEnvironments
from stoker.store.memory_keys import MemoryDataKeys
from stoker.worker.agent import WorkerAgent, WorkerSettings
from tests.integration.worker.process_driver import ProcessDriver

RUNTIME = f"python3.{sys.version_info.minor}"
KEY = FunctionKey("000000000000", "us-east-1", "echo")


class Logs:
    """Keeps every stream in memory."""

    def __init__(self) -> None:
        self.streams: dict[str, list[tuple[int, str]]] = {}
        self.congested = False

    def writer(self, account: str, region: str, group: str, stream: str) -> "Stream":
        return Stream(self, self.streams.setdefault(f"{account}/{region}{group}:{stream}", []))

    @property
    def text(self) -> str:
        return "".join(message for stream in self.streams.values() for _, message in stream)


class Stream:
    def __init__(self, logs: Logs, events: list[tuple[int, str]]) -> None:
        self._logs = logs
        self._events = events

    def append(self, timestamp_ms: int, message: str) -> None:
        self._events.append((timestamp_ms, message))

    @property
    def congested(self) -> bool:
        return self._logs.congested

    def close(self) -> None:
        pass


class Folders:
    """Code by name."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.in_use = 0

    async def use(self, code_sha256: str, *_: object) -> CodeInUse:
        folder = self.root / code_sha256
        if not folder.is_dir():
            raise CodeMissing(code_sha256)
        self.in_use += 1
        return CodeInUse(task=folder, leave=self._leave)

    def _leave(self) -> None:
        self.in_use -= 1


class Bench:
    """An agent and all around it."""

    def __init__(self, root: Path, memory_mb: int = 1024, driver: Any = None) -> None:
        self.root = root
        self.driver = driver or ProcessDriver()
        self.logs = Logs()
        self.lost: list[SandboxReference] = []
        self.agent = WorkerAgent(
            WorkerSettings(worker_id="w1", memory_total_mb=memory_mb, sandboxes_max=10),
            driver=self.driver,
            code=Folders(root),
            images=MemoryImageStore(),
            logs=self.logs,
            runtimes=RuntimeCatalog(),
            clock=SystemClock(),
            environments=KeptEnvironments(MemoryDataKeys()),
            session_credentials=lambda function: Credential(
                access_key_id="ASIATEST",
                secret="secret",
                session_token="token",
                account=function.key.account,
                principal_arn=function.role,
            ),
        )
        self.agent.on_sandbox_lost(self.lost.append)
        self._number = 0

    def function(
        self, code: str, *, timeout_s: int = 10, log_format: str = "Text", **more
    ) -> FunctionVersion:
        self._number += 1
        folder = self.root / f"code{self._number}"
        folder.mkdir()
        (folder / "index.py").write_text(textwrap.dedent(code))
        return FunctionVersion(
            key=KEY,
            deployment_id=f"d{self._number}",
            revision_id="r",
            last_modified="",
            role="arn:aws:iam::000000000000:role/r",
            runtime=RUNTIME,
            handler="index.handler",
            timeout_s=timeout_s,
            code_sha256=folder.name,
            code_size_bytes=1,
            logging=LogSettings(log_group="/aws/lambda/echo", log_format=log_format),
            state=Status(value="Active"),
            **more,
        )

    async def invoke(
        self, sandbox: SandboxReference, payload: object = None, number: int = 1
    ) -> InvocationResult:
        invocation = Invocation(
            request_id=f"00000000-0000-0000-0000-{number:012d}",
            payload=json.dumps(payload).encode(),
            invoked_arn=KEY.arn,
            trace_id="Root=1-0-0",
            want_log_tail=True,
        )
        return await self.agent.invoke(sandbox, invocation)

    async def once(self, code: str, payload: object = None, **more) -> InvocationResult:
        return await self.invoke(await self.agent.create(self.function(code, **more)), payload)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    await bench.agent.close(0)
    assert bench.agent.sandboxes() == []
    assert all(sandbox.destroyed for sandbox in bench.driver.sandboxes)


ID = "00000000-0000-0000-0000-000000000001"


async def test_an_event_goes_in_and_the_result_comes_out(bench: Bench) -> None:
    sandbox = await bench.agent.create(bench.function("def handler(event, context): return {'got': event}"))
    result = await bench.invoke(sandbox, {"a": 1})
    assert json.loads(result.payload) == {"got": {"a": 1}}
    assert result.function_error is None
    assert result.healthy
    assert result.init_ms is not None
    again = await bench.invoke(sandbox, {"a": 2}, 2)
    assert json.loads(again.payload) == {"got": {"a": 2}}
    assert again.init_ms is None
    assert len(bench.driver.sandboxes) == 1


async def test_the_log_has_start_output_end_and_report(bench: Bench) -> None:
    result = await bench.once("print('loading')\ndef handler(event, context): print('working')")
    tail = (result.log_tail or b"").decode()
    assert re.fullmatch(
        r"INIT_START Runtime Version: python:3\.\d+:stoker\tRuntime Version ARN: arn:aws:lambda:us-east-1::runtime:\w{64}\n"
        r"loading\n"
        rf"START RequestId: {ID} Version: \$LATEST\n"
        r"working\n"
        rf"END RequestId: {ID}\n"
        rf"REPORT RequestId: {ID}\tDuration: \d+\.\d\d ms\tBilled Duration: \d+ ms\tMemory Size: 128 MB\t"
        r"Max Memory Used: \d+ MB\tInit Duration: \d+\.\d\d ms\t\n",
        tail,
    ), tail
    (stream,) = bench.logs.streams
    assert re.fullmatch(
        r"000000000000/us-east-1/aws/lambda/echo:\d{4}/\d\d/\d\d/\[\$LATEST\][0-9a-f]{32}", stream
    )
    assert bench.logs.text == tail


async def test_a_function_error_is_passed_on_and_the_sandbox_lives(bench: Bench) -> None:
    sandbox = await bench.agent.create(
        bench.function("def handler(event, context):\n    if event: raise ValueError('no')\n    return 1")
    )
    failed = await bench.invoke(sandbox, True)
    assert failed.function_error == "Unhandled"
    assert failed.healthy
    error = json.loads(failed.payload)
    assert (error["errorType"], error["errorMessage"]) == ("ValueError", "no")
    assert "[ERROR] ValueError: no\nTraceback (most recent call last):\n" in bench.logs.text
    assert (await bench.invoke(sandbox, False, 2)).payload == b"1"


async def test_a_time_out_ends_the_sandbox(bench: Bench) -> None:
    sandbox = await bench.agent.create(
        bench.function(
            "import time\ndef handler(event, context):\n    print('in'); time.sleep(60)", timeout_s=1
        )
    )
    result = await bench.invoke(sandbox)
    assert json.loads(result.payload) == {
        "errorType": "Sandbox.Timedout",
        "errorMessage": f"RequestId: {ID} Error: Task timed out after 1.00 seconds",
    }
    assert (result.function_error, result.healthy) == ("Unhandled", False)
    tail = (result.log_tail or b"").decode()
    assert "in\n" in tail
    assert re.search(
        rf"\n\d{{4}}-\d\d-\d\dT[\d:.]+Z {ID} Task timed out after 1.00 seconds\n\nEND RequestId: {ID}\n", tail
    )
    assert re.search(r"\tDuration: 1000.00 ms\tBilled Duration: \d+ ms\t.*\tStatus: timeout\n$", tail)
    with pytest.raises(StaleReference):
        await bench.invoke(sandbox, None, 2)
    assert bench.agent.statistics.timeouts == 1


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("os._exit(0)", "Runtime exited without providing a reason"),
        ("os._exit(3)", "Runtime exited with error: exit status 3"),
        ("os.kill(os.getpid(), 9)", "Runtime exited with error: signal: killed"),
        ("os.abort()", "Runtime exited with error: signal: aborted"),
    ],
)
async def test_an_exit_is_told_as_aws_does(bench: Bench, code: str, message: str) -> None:
    result = await bench.once(f"import os\ndef handler(event, context):\n    print('last words')\n    {code}")
    assert json.loads(result.payload) == {
        "errorType": "Runtime.ExitError",
        "errorMessage": f"RequestId: {ID} Error: {message}",
    }
    assert not result.healthy
    tail = (result.log_tail or b"").decode()
    assert f"last words\nRequestId: {ID} Error: {message}\nRuntime.ExitError\nEND RequestId: {ID}\n" in tail
    assert tail.endswith("\tStatus: error\tError Type: Runtime.ExitError\n")
    assert bench.lost == []


async def test_a_failed_init_is_repeated_in_a_fresh_sandbox(bench: Bench) -> None:
    function = bench.function("raise Exception('Runtime startup fails')")
    sandbox = await bench.agent.create(function)
    result = await bench.invoke(sandbox)
    error = json.loads(result.payload)
    assert (error["errorType"], error["errorMessage"], error["requestId"]) == (
        "Exception",
        "Runtime startup fails",
        "",
    )
    assert (result.function_error, result.healthy) == ("Unhandled", False)
    assert len(bench.driver.sandboxes) == 2
    (events,) = bench.logs.streams.values()
    log = [re.sub(r"\d+\.\d\d ms", "N ms", message.rstrip()) for _, message in events]
    platform = [line for line in log if line.startswith(("INIT_REPORT", "START", "END", "REPORT"))]
    assert [line.split("\t")[:4] for line in platform] == [
        ["INIT_REPORT Init Duration: N ms", "Phase: init", "Status: error", "Error Type: Runtime.Unknown"],
        ["INIT_REPORT Init Duration: N ms", "Phase: invoke", "Status: error", "Error Type: Runtime.Unknown"],
        [f"START RequestId: {ID} Version: $LATEST"],
        [f"END RequestId: {ID}"],
        platform[4].split("\t")[:4],
    ]
    assert "Init Duration" not in platform[4]
    assert platform[4].endswith("Status: error\tError Type: Runtime.Unknown")


async def test_an_init_that_works_the_second_time_serves_the_invocation(bench: Bench, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    result = await bench.once(
        f"""
        import os, time
        if not os.path.exists({str(flag)!r}):
            open({str(flag)!r}, "w").close()
            os._exit(1)
        def handler(event, context):
            return context.get_remaining_time_in_millis()
        """,
        timeout_s=5,
    )
    assert 3000 < json.loads(result.payload) < 5000
    assert (result.healthy, result.init_ms) == (True, None)


async def test_provided_without_bootstrap_is_an_invalid_entrypoint(bench: Bench) -> None:
    import msgspec

    function = msgspec.structs.replace(bench.function("x = 1"), runtime="provided.al2023")
    result = await bench.invoke(await bench.agent.create(function))
    assert json.loads(result.payload) == {
        "errorType": "Runtime.InvalidEntrypoint",
        "errorMessage": f"RequestId: {ID} Error: Couldn't find valid bootstrap(s): "
        "[/var/task/bootstrap /opt/bootstrap]",
    }
    assert bench.driver.sandboxes == []


async def test_a_response_over_the_limit(bench: Bench) -> None:
    result = await bench.once("def handler(event, context): return 'x' * 7_000_000")
    assert json.loads(result.payload) == {
        "errorType": "Function.ResponseSizeTooLarge",
        "errorMessage": "Response payload size exceeded maximum allowed payload size (6291556 bytes).",
    }
    assert (result.function_error, result.healthy) == ("Unhandled", False)


async def test_an_idle_sandbox_is_frozen_and_thawed(bench: Bench) -> None:
    sandbox = await bench.agent.create(bench.function("def handler(event, context): return 1"))
    await bench.invoke(sandbox)
    inside = bench.driver.sandboxes[0]
    assert not inside.frozen
    await asyncio.sleep(0.15)
    assert inside.frozen
    await bench.invoke(sandbox, None, 2)
    assert (inside.frozen, inside.freezes, inside.thaws) == (False, 1, 1)
    # One timer serves all: ten invocations in a row neither freeze nor thaw.
    for number in range(3, 13):
        await bench.invoke(sandbox, None, number)
    assert inside.thaws == 1


async def test_the_cpu_is_throttled_after_init(bench: Bench) -> None:
    await bench.once("def handler(event, context): return 1", memory_mb=512)
    await asyncio.sleep(0.01)
    first, second = bench.driver.sandboxes[0].limits
    assert first.cpu_quota <= 0
    assert second.cpu_quota == pytest.approx(512 / 1769)


async def test_what_a_thread_writes_after_the_response_is_logged_too(bench: Bench) -> None:
    sandbox = await bench.agent.create(
        bench.function(
            """
            import threading, time
            def late():
                time.sleep(0.03)
                print("late")
            def handler(event, context):
                threading.Thread(target=late).start()
            """
        )
    )
    await bench.invoke(sandbox)
    assert "late" not in bench.logs.text
    await asyncio.sleep(0.3)
    result = await bench.invoke(sandbox, None, 2)
    assert "late\n" in bench.logs.text
    assert b"late\n" in (result.log_tail or b"")


async def test_a_flood_blocks_only_its_own_function(bench: Bench) -> None:
    flood = await bench.agent.create(
        bench.function("def handler(event, context):\n    while True: print('x' * 1000)", timeout_s=2)
    )
    quiet = await bench.agent.create(bench.function("def handler(event, context): return 1"))
    await bench.invoke(quiet)
    flooding = asyncio.create_task(bench.invoke(flood))
    await asyncio.sleep(0.8)
    loop = asyncio.get_running_loop()
    worst_s = 0.0
    for number in range(50):
        begun_s = loop.time()
        await bench.invoke(quiet, None, number + 2)
        worst_s = max(worst_s, loop.time() - begun_s)
    assert worst_s < 0.2
    result = await flooding
    assert b"Task timed out" in result.payload
    written = sum(len(message) for _, message in next(iter(bench.logs.streams.values())))
    assert written < 30_000_000


async def test_json_logs(bench: Bench) -> None:
    result = await bench.once(
        "import logging\ndef handler(event, context): logging.getLogger().warning('hm')", log_format="JSON"
    )
    lines = [json.loads(line) for line in (result.log_tail or b"").decode().splitlines()]
    assert [line.get("type") or line["message"] for line in lines] == [
        "platform.initStart",
        "platform.start",
        "hm",
        "platform.report",
    ]
    report = lines[-1]["record"]
    assert set(report["metrics"]) == {
        "durationMs",
        "billedDurationMs",
        "memorySizeMB",
        "maxMemoryUsedMB",
        "initDurationMs",
    }
    assert report["status"] == "success"


async def test_a_sandbox_that_dies_idle_is_lost(bench: Bench) -> None:
    sandbox = await bench.agent.create(
        bench.function(
            """
            import os, threading, time
            def later():
                time.sleep(0.03)
                os._exit(1)
            def handler(event, context):
                threading.Thread(target=later).start()
            """
        )
    )
    await bench.invoke(sandbox)
    await asyncio.sleep(0.3)
    assert bench.lost == [sandbox]
    with pytest.raises(StaleReference):
        await bench.invoke(sandbox, None, 2)


async def test_old_epochs_and_other_lives_are_refused(bench: Bench) -> None:
    import msgspec

    sandbox = await bench.agent.create(bench.function("def handler(event, context): return 1"))
    newer = msgspec.structs.replace(sandbox, epoch=5)
    await bench.invoke(newer)
    with pytest.raises(StaleReference):
        await bench.invoke(msgspec.structs.replace(sandbox, epoch=4))
    with pytest.raises(StaleReference):
        await bench.invoke(msgspec.structs.replace(newer, incarnation="earlier"))
    bench.agent.retire(sandbox)  # stale: ignored
    await bench.invoke(newer, None, 2)
    bench.agent.retire(newer)
    with pytest.raises(StaleReference):
        await bench.invoke(newer, None, 3)


async def test_a_busy_sandbox_takes_no_second_invocation(bench: Bench) -> None:
    sandbox = await bench.agent.create(
        bench.function("import time\ndef handler(event, context): time.sleep(0.3); return 1")
    )
    running = asyncio.create_task(bench.invoke(sandbox))
    await asyncio.sleep(0)
    with pytest.raises(StaleReference):
        await bench.invoke(sandbox, None, 2)
    assert (await running).payload == b"1"


async def test_a_caller_that_goes_away_does_not_end_the_invocation(bench: Bench) -> None:
    sandbox = await bench.agent.create(
        bench.function("import time\ndef handler(event, context): time.sleep(0.2); print('done')")
    )
    running = asyncio.create_task(bench.invoke(sandbox))
    await asyncio.sleep(0.15)
    running.cancel()
    await asyncio.sleep(0.4)
    assert "done\n" in bench.logs.text
    assert "REPORT RequestId" in bench.logs.text
    assert bench.agent.sandboxes()[0].state == "idle"


async def test_room_is_bounded_and_comes_back(bench: Bench) -> None:
    function = bench.function("def handler(event, context): return 1", memory_mb=600)
    sandbox = await bench.agent.create(function)
    with pytest.raises(WorkerUnavailable, match="600 MB"):
        await bench.agent.create(function)
    assert bench.agent.snapshot().memory_reserved_mb == 600
    bench.agent.retire(sandbox)
    await asyncio.sleep(0.2)
    assert bench.agent.snapshot().memory_reserved_mb == 0
    assert (await bench.once("def handler(event, context): return 2")).payload == b"2"


async def test_code_that_is_not_here_makes_the_worker_unavailable(bench: Bench) -> None:
    import msgspec

    function = msgspec.structs.replace(bench.function("x = 1"), code_sha256="gone")
    with pytest.raises(WorkerUnavailable):
        await bench.agent.create(function)
    assert bench.agent.snapshot().memory_reserved_mb == 0


async def test_closing_lets_what_runs_finish(bench: Bench) -> None:
    sandbox = await bench.agent.create(
        bench.function("import time\ndef handler(event, context): time.sleep(0.3); return 'finished'")
    )
    running = asyncio.create_task(bench.invoke(sandbox))
    await asyncio.sleep(0.05)
    await bench.agent.close(5)
    assert (await running).payload == b'"finished"'
    with pytest.raises(WorkerUnavailable):
        await bench.once("x = 1")


async def test_the_environment_inside(bench: Bench) -> None:
    result = await bench.once(
        "import os\ndef handler(event, context): return dict(os.environ)",
        memory_mb=256,
        environment={"MINE": "x", "AWS_REGION": "ignored"},
    )
    inside = json.loads(result.payload)
    assert inside["MINE"] == "x"
    assert inside["AWS_REGION"] == "us-east-1"
    assert inside["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"] == "256"
    assert inside["AWS_SESSION_TOKEN"] == "token"
    assert inside["AWS_ENDPOINT_URL_CLOUDWATCH_LOGS"] == "http://127.0.0.1:9797"
    assert re.fullmatch(r"\d{4}/\d\d/\d\d/\[\$LATEST\][0-9a-f]{32}", inside["AWS_LAMBDA_LOG_STREAM_NAME"])


def test_durations_have_fractions_of_a_millisecond(tmp_path: Path) -> None:
    """The event loop's own clock counts whole milliseconds under uvloop."""

    async def measure() -> list[float]:
        bench = Bench(tmp_path)
        sandbox = await bench.agent.create(bench.function("def handler(event, context): return 1"))
        results = [await bench.invoke(sandbox, None, number) for number in range(1, 21)]
        await bench.agent.close(0)
        return [result.duration_ms for result in results]

    durations = uvloop.run(measure())
    assert sum(duration == round(duration) for duration in durations) < 3
    assert all(0 < duration < 100 for duration in durations)
