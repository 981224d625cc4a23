"""Drives a real bootstrap as a real process against the real RuntimeApi server over TCP on loopback."""

import asyncio
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import stoker.runtimes
from stoker.runtimeapi import RuntimeApi, RuntimeInvocation, TelemetryParser
from stoker.runtimes import AvailableRuntime, RuntimeCatalog
from stoker.runtimes.interpreters import Interpreter, prepare_bootstrap

ARN = "arn:aws:lambda:us-east-1:000000000000:function:echo"


class Recorder:
    """RuntimeEvents that remembers, and lets a test wait."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.queue: asyncio.Queue[tuple[Any, ...]] = asyncio.Queue()

    def _put(self, *event: Any) -> None:
        self.events.append(event)
        self.queue.put_nowait(event)

    def on_ready(self) -> None:
        self._put("ready")

    def on_response(self, request_id: str, body: bytes, content_type: str) -> None:
        self._put("response", request_id, body, content_type)

    def on_error(self, request_id: str, error_type: str, body: bytes) -> None:
        self._put("error", request_id, error_type, body)

    def on_init_error(self, error_type: str, body: bytes) -> None:
        self._put("init_error", error_type, body)

    def on_connection_lost(self) -> None:
        self._put("lost")

    async def get(self) -> tuple[Any, ...]:
        return await asyncio.wait_for(self.queue.get(), 20)


class RunningRuntime:
    """One runtime process and its API server; an async context manager."""

    def __init__(
        self,
        argv: list[str],
        task: Path,
        *,
        handler: str = "index.handler",
        environment: Mapping[str, str] | None = None,
        telemetry: bool = False,
    ) -> None:
        self._argv = argv
        self._task = task
        self._handler = handler
        self._environment = dict(environment or {})
        self._telemetry = telemetry
        self.events = Recorder()
        self.api = RuntimeApi(self.events)
        self._count = 0

    async def __aenter__(self) -> "RunningRuntime":
        listening = socket.create_server(("127.0.0.1", 0))
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        await self.api.start(listening)
        environment = {
            "PATH": os.environ["PATH"],
            "AWS_LAMBDA_RUNTIME_API": address,
            "LAMBDA_TASK_ROOT": str(self._task),
            "_HANDLER": self._handler,
            "AWS_LAMBDA_FUNCTION_NAME": "echo",
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "128",
            "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/echo",
            "AWS_LAMBDA_LOG_STREAM_NAME": "2024/01/01/[$LATEST]abc",
            "AWS_EXECUTION_ENV": f"AWS_Lambda_python3.{sys.version_info.minor}",
            **self._environment,
        }
        pass_fds: tuple[int, ...] = ()
        if self._telemetry:
            self._read_fd, write_fd = os.pipe()
            os.set_blocking(self._read_fd, False)
            environment["_LAMBDA_TELEMETRY_LOG_FD"] = str(write_fd)
            pass_fds = (write_fd,)
        self.started_s = time.perf_counter()
        self.process = await asyncio.create_subprocess_exec(
            *self._argv,
            cwd=self._task,
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            pass_fds=pass_fds,
            start_new_session=True,
        )
        if pass_fds:
            os.close(pass_fds[0])
        return self

    async def __aexit__(self, *_: object) -> None:
        self._kill()
        await self.process.communicate()
        await self.api.close()
        if self._telemetry:
            os.close(self._read_fd)

    def _kill(self) -> None:
        """End the process and its children."""
        if self.process.returncode is None:
            os.killpg(self.process.pid, signal.SIGKILL)

    async def ready(self) -> None:
        event = await self.events.get()
        assert event == ("ready",), event

    async def invoke_raw(self, payload: bytes, **fields: Any) -> tuple[Any, ...]:
        self._count += 1
        self.api.deliver(
            RuntimeInvocation(
                **{
                    "request_id": f"00000000-0000-4000-8000-{self._count:012d}",
                    "deadline_ms": int(time.time() * 1000) + 3000,
                    "invoked_function_arn": ARN,
                    "trace_id": "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=1;Sampled=0",
                    "payload": payload,
                    **fields,
                }
            )
        )
        return await self.events.get()

    async def invoke(self, event: Any, **fields: Any) -> Any:
        """Invoke and return the decoded response; the runtime is idle again afterwards."""
        kind, *rest = await self.invoke_raw(json.dumps(event).encode(), **fields)
        assert kind == "response", (kind, rest)
        await self.ready()
        return json.loads(rest[1])

    async def fail(self, event: Any, **fields: Any) -> dict[str, Any]:
        """Invoke, expect a function error, return its decoded body."""
        kind, *rest = await self.invoke_raw(json.dumps(event).encode(), **fields)
        assert kind == "error", (kind, rest)
        return json.loads(rest[2])

    async def init_error(self) -> dict[str, Any]:
        kind, *rest = await self.events.get()
        assert kind == "init_error", (kind, rest)
        return json.loads(rest[1])

    async def output(self, *, exits: bool = False) -> str:
        """Everything written to standard output and error; ends the process unless it ``exits`` by itself."""
        if not exits:
            self._kill()
        out, _ = await asyncio.wait_for(self.process.communicate(), 20)
        return out.decode()

    def telemetry(self) -> list[Any]:
        """Records of the framed pipe so far."""
        parser = TelemetryParser()
        records = []
        while True:
            try:
                data = os.read(self._read_fd, 65536)
            except BlockingIOError:
                return records
            if not data:
                return records
            records += parser.feed(data)


@pytest.fixture
def running() -> type[RunningRuntime]:
    """The class that starts a runtime; tests enter it as an async context manager."""
    return RunningRuntime


@pytest.fixture
def python_argv() -> list[str]:
    """The Python runtime as the catalogue starts it, with the host's interpreter."""
    bootstrap = Path(stoker.runtimes.__file__).parent / "bootstraps" / "python" / "bootstrap.py"
    return [f"/usr/bin/python3.{sys.version_info.minor}", "-S", str(bootstrap)]


def _nodes() -> list[Any]:
    """Every Node.js runtime this host can run; more through a folder named by STOKER_TEST_LANG_DIR."""
    folder = os.environ.get("STOKER_TEST_LANG_DIR")
    catalog = RuntimeCatalog(Path(folder) if folder else None)
    found = [each for each in catalog.available() if each.name.startswith("nodejs")]
    missing = pytest.param(None, marks=pytest.mark.skip(reason="no Node.js 16 or later under /usr"))
    return [pytest.param(each, id=each.name) for each in found] or [missing]


@pytest.fixture(params=_nodes())
def node(request: pytest.FixtureRequest) -> AvailableRuntime:
    return request.param


@pytest.fixture(scope="session")
def prepared_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("prepared")


@pytest.fixture
def node_argv(node: AvailableRuntime, prepared_dir: Path) -> list[str]:
    """The Node.js runtime with its bootstrap as the catalogue prepares it."""
    program = Path(node.program)
    folder = prepare_bootstrap(
        "nodejs", Interpreter(node.program, program, version=node.version), prepared_dir
    )
    return [node.program, str(folder / "bootstrap.cjs")]
