"""The built-in bootstraps: time from process start to the first ``/next``, and what one invocation costs.

    python -m bench.bootstrap [--rounds 40] [--invocations 3000] [--awslambdaric FOLDER]

Yardsticks in the same run, interleaved: the bare interpreter that imports the handler and sends one byte, the
same with ``json``, a process that answers each packet with a constant, and AWS's client where FOLDER holds it
(``pip install --target FOLDER awslambdaric``).
"""

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvloop

from stoker.runtimeapi import RuntimeApi, RuntimeInvocation
from stoker.runtimes import RuntimeCatalog, RuntimeUnavailable

PYTHON_HANDLER = "def handler(event, context):\n    return event\n"
NODE_HANDLER = "exports.handler = async (event) => event;\n"
PAYLOAD = json.dumps({"text": "x" * 1000}).encode()

BARE_PYTHON = """
import sys; sys.path.insert(0, sys.argv[2])
import {modules}index
s = _socket.socket(); s.connect(("127.0.0.1", int(sys.argv[1]))); s.sendall(b"x"); s.recv(1)
"""
BARE_NODE = """
require(process.argv[2] + "/index.js");
require("net").connect(Number(process.argv[1]), "127.0.0.1").write("x");
"""
PING_PONG = """
import _socket, sys
s = _socket.socket(); s.connect(("127.0.0.1", int(sys.argv[1]))); s.setsockopt(6, 1, 1)
answer = b"y" * 1200
s.sendall(answer)
while s.recv(65536):
    s.sendall(answer)
"""


def commands(
    task: Path, prepared: Path, aws: str | None
) -> dict[str, tuple[Callable[[int], list[str]], Any]]:
    """By name: argv for a port, and the environment it needs besides."""
    catalog = RuntimeCatalog(prepared_dir=prepared)
    version = f"python3.{sys.version_info.minor}"
    host: dict[str, tuple[Callable[[int], list[str]], Any]] = {}

    def planned(runtime: str) -> tuple[Callable[[int], list[str]], Any]:
        plan = catalog.plan(runtime)
        argv = [each.replace("/var/runtime", str(plan.mounts["/var/runtime"])) for each in plan.argv]
        return (lambda _: argv), {"LAMBDA_RUNTIME_DIR": str(plan.mounts["/var/runtime"])}

    python = catalog.plan(version).argv[0]
    for name, modules in (("bare", "_socket, "), ("bare + json", "_socket, json, ")):
        script = BARE_PYTHON.format(modules=modules)
        host[f"{version} {name}"] = (
            (lambda port, script=script: [python, "-S", "-c", script, str(port), str(task)]),
            {},
        )
    host[f"{version} stoker"] = planned(version)
    if aws:
        argv = [python, "-m", "awslambdaric", "index.handler"]
        host[f"{version} awslambdaric"] = (lambda _: argv), {"PYTHONPATH": aws}
    for runtime in ("nodejs18.x", "nodejs20.x", "nodejs22.x", "nodejs24.x"):
        try:
            node = catalog.plan(runtime).argv[0]
        except RuntimeUnavailable:
            continue
        host[f"{runtime} bare"] = (lambda port, node=node: [node, "-e", BARE_NODE, str(port), str(task)]), {}
        host[f"{runtime} stoker"] = planned(runtime)
    return host


def environment(address: str, task: Path, extra: dict[str, str]) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "AWS_LAMBDA_RUNTIME_API": address,
        "LAMBDA_TASK_ROOT": str(task),
        "_HANDLER": "index.handler",
        **extra,
    }


def time_to_first_byte_ms(argv: Callable[[int], list[str]], extra: dict[str, str], task: Path) -> float:
    """Start a process and wait for the first byte it sends."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(20)
        port = listening.getsockname()[1]
        variables = environment(f"127.0.0.1:{port}", task, extra)
        started_s = time.perf_counter()
        process = subprocess.Popen(argv(port), env=variables, cwd=task)
        try:
            connection, _ = listening.accept()
            connection.recv(1)
            taken_ms = (time.perf_counter() - started_s) * 1000
        finally:
            process.kill()
            process.wait()
        connection.close()
        return taken_ms


class Driver:
    """RuntimeEvents that hands out the next invocation as soon as the runtime is idle."""

    def __init__(self, count: int) -> None:
        self.api = RuntimeApi(self)
        self.left = count + 200
        self.warm = count
        self.started_s = 0.0
        self.done: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def on_ready(self) -> None:
        if self.left == self.warm:
            self.started_s = time.perf_counter()
        if self.left == 0:
            self.done.set_result((time.perf_counter() - self.started_s) / self.warm * 1e6)
            return
        self.left -= 1
        self.api.deliver(
            RuntimeInvocation(
                request_id=f"{self.left:036d}",
                deadline_ms=int(time.time() * 1000) + 3000,
                invoked_function_arn="arn:aws:lambda:us-east-1:000000000000:function:echo",
                trace_id="Root=1-5759e988-bd862e3fe1be46a994272793",
                payload=PAYLOAD,
            )
        )

    def on_response(self, request_id: str, body: bytes, content_type: str) -> None:
        assert len(body) >= len(PAYLOAD) - 10

    def on_error(self, request_id: str, error_type: str, body: bytes) -> None:
        self._failed(body)

    def on_init_error(self, error_type: str, body: bytes) -> None:
        self._failed(body)

    def on_connection_lost(self) -> None:
        self._failed(b"connection lost")

    def _failed(self, body: bytes) -> None:
        if not self.done.done():
            self.done.set_exception(RuntimeError(body.decode()))


class PingPong(asyncio.Protocol):
    """The floor: 1 KB there and back between uvloop and a Python process."""

    def __init__(self, count: int, done: "asyncio.Future[float]") -> None:
        self.left, self.count, self.done = count, count, done

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        if self.left == self.count:
            self.started_s = time.perf_counter()
        self.left -= 1
        if self.left < 0:
            if not self.done.done():
                self.done.set_result((time.perf_counter() - self.started_s) / self.count * 1e6)
            return
        self.transport.write(PAYLOAD)


async def invocation_us(argv: list[str], extra: dict[str, str], task: Path, count: int) -> float:
    """Microseconds from one idle moment to the next, through the real Runtime API server."""
    listening = socket.create_server(("127.0.0.1", 0))
    address = f"127.0.0.1:{listening.getsockname()[1]}"
    driver = Driver(count)
    await driver.api.start(listening)
    process = subprocess.Popen(argv, env=environment(address, task, extra), cwd=task)
    try:
        return await asyncio.wait_for(driver.done, 60)
    finally:
        process.kill()
        process.wait()
        await driver.api.close()


async def ping_pong_us(count: int) -> float:
    loop = asyncio.get_running_loop()
    done: asyncio.Future[float] = loop.create_future()
    server = await loop.create_server(lambda: PingPong(count, done), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    process = subprocess.Popen([sys.executable, "-S", "-c", PING_PONG, str(port)])
    try:
        return await asyncio.wait_for(done, 60)
    finally:
        process.kill()
        process.wait()
        server.close()


def main() -> None:
    """Measure and print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--invocations", type=int, default=3000)
    parser.add_argument("--awslambdaric", metavar="FOLDER")
    options, _ = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        task, prepared = Path(folder, "task"), Path(folder, "prepared")
        task.mkdir()
        prepared.mkdir()
        (task / "index.py").write_text(PYTHON_HANDLER)
        (task / "index.js").write_text(NODE_HANDLER)
        measure(commands(task, prepared, options.awslambdaric), task, options.rounds, options.invocations)


def measure(known: dict[str, Any], task: Path, rounds: int, invocations: int) -> None:
    times: dict[str, list[float]] = {name: [] for name in known}
    for _ in range(rounds):
        for name, (argv, extra) in known.items():
            times[name].append(time_to_first_byte_ms(argv, extra, task))
    print(f"start to first /next, median [p5 to p95] of {rounds}, ms")
    for name, values in times.items():
        low, *_, high = statistics.quantiles(values, n=20)
        print(f"  {name:28} {statistics.median(values):7.1f}  [{low:.1f} to {high:.1f}]")
    print(f"\none invocation of 1 KB, best of 3 runs of {invocations}, us")
    print(
        f"  {'ping-pong of two processes':28} {min(_run(ping_pong_us(invocations)) for _ in range(3)):7.0f}"
    )
    for name, (argv, extra) in known.items():
        if " bare" not in name:
            best = min(_run(invocation_us(argv(0), extra, task, invocations)) for _ in range(3))
            print(f"  {name:28} {best:7.0f}")


def _run(coroutine: Any) -> float:
    return uvloop.run(coroutine)


if __name__ == "__main__":
    main()
