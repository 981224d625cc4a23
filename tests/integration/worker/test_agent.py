"""The worker over real Python bootstraps in real processes."""

import json
import re
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from stoker.core.clock import SystemClock
from stoker.runtimes.catalog import RuntimeCatalog
from stoker.services.code import CodeMissing
from stoker.services.credentials import Credential
from stoker.services.functions import FunctionKey, FunctionVersion, LogSettings, Status
from stoker.services.invocation import Invocation, InvocationResult
from stoker.services.worker import SandboxReference
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

    async def ready(self, code_sha256: str) -> Path:
        folder = self.root / code_sha256
        if not folder.is_dir():
            raise CodeMissing(code_sha256)
        return folder


class Bench:
    """An agent and all around it."""

    def __init__(self, root: Path, memory_mb: int = 1024) -> None:
        self.root = root
        self.driver = ProcessDriver()
        self.logs = Logs()
        self.lost: list[SandboxReference] = []
        self.agent = WorkerAgent(
            WorkerSettings(worker_id="w1", memory_total_mb=memory_mb, sandboxes_max=10),
            driver=self.driver,
            code=Folders(root),
            logs=self.logs,
            runtimes=RuntimeCatalog(),
            clock=SystemClock(),
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
