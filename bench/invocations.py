"""The invoke path: warm latency and throughput, and cold starts, of a Python (and Node) echo of 1 KB."""

import http.client
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from bench.hello import hello_server
from bench.wrk import Load, drive
from tests.running import (
    ACCESS_KEY_ID,
    NODE,
    PYTHON_RUNTIME,
    REGION,
    ROLE,
    SECRET_ACCESS_KEY,
    RunningStoker,
    node_runtime,
    python_zip,
    zip_of,
)

PYTHON_ECHO = "def lambda_handler(event, context):\n    return event\n"
NODE_ECHO = "exports.handler = async (event) => event;\n"
BODY = json.dumps({"text": "x" * 1000}).encode()
MEMORY_MB = 1769
COLD_STARTS = 100
WARM_SECONDS = 8


class Cold(msgspec.Struct, frozen=True):
    """Milliseconds."""

    p50_ms: float
    p95_ms: float
    n: int


def signed(endpoint: str, name: str) -> tuple[str, dict[str, str]]:
    """URL and headers of one signed Invoke."""
    url = f"{endpoint}/2015-03-31/functions/{name}/invocations"
    request = AWSRequest(method="POST", url=url, data=BODY, headers={"Content-Type": "application/json"})
    SigV4Auth(Credentials(ACCESS_KEY_ID, SECRET_ACCESS_KEY), "lambda", REGION).add_auth(request)
    return url, dict(request.headers.items())


def warm(stoker: RunningStoker, name: str, clients: int) -> Load:
    """Warm the sandboxes, then measure."""
    url, headers = signed(stoker.endpoint, name)
    drive(url, headers, BODY, clients=clients, seconds=2)
    return drive(url, headers, BODY, clients=clients, seconds=WARM_SECONDS)


def cold(stoker: RunningStoker, prefix: str, archive: bytes, **settings: str) -> Cold:
    """First invocations of functions that have no sandbox yet, one after another."""
    service = stoker.client("lambda")
    names = [f"{prefix}-{number}" for number in range(COLD_STARTS)]
    for name in names:
        service.create_function(
            FunctionName=name,
            Role=ROLE,
            Code={"ZipFile": archive},
            MemorySize=MEMORY_MB,
            Timeout=30,
            **settings,
        )
    service.get_waiter("function_active_v2").wait(FunctionName=names[-1], WaiterConfig={"Delay": 1})
    return summary([timed(lambda name=name: invoke_once(stoker, name)) for name in names])


def invoke_once(stoker: RunningStoker, name: str) -> None:
    """One signed invocation over a connection of its own."""
    url, headers = signed(stoker.endpoint, name)
    connection = http.client.HTTPConnection("127.0.0.1", stoker.port, timeout=60)
    connection.request("POST", url.removeprefix(stoker.endpoint), BODY, headers)
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 200 or answer.headers.get("X-Amz-Function-Error"):
        raise SystemExit(f"{name}: {answer.status} {body[:300]!r}")
    connection.close()


def bare_interpreter(command: list[str], source: str, suffix: str) -> Cold:
    """The yardstick of a cold start: the interpreter, started with the handler, answering one event."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"echo{suffix}"
        file.write_text(source)
        full = [*command, str(file)]
        return summary(
            [
                timed(lambda: subprocess.run(full, input=BODY, check=True, capture_output=True))
                for _ in range(40)
            ]
        )


def timed(action: Callable[[], object]) -> float:
    """Milliseconds."""
    begun = time.perf_counter()
    action()
    return (time.perf_counter() - begun) * 1000


def summary(samples: list[float]) -> Cold:
    """Median and 95th percentile."""
    ordered = sorted(samples)
    return Cold(statistics.median(ordered), ordered[int(len(ordered) * 0.95) - 1], len(ordered))


def main() -> None:
    """Print one table."""
    with hello_server() as url:
        hello_1 = drive(url, {}, BODY, clients=1, seconds=4)
        hello_32 = drive(url, {}, BODY, clients=32, seconds=4)
    stoker = RunningStoker()
    try:
        stoker.start()
        stoker.create("echo", python_zip(PYTHON_ECHO), **python_settings(), MemorySize=MEMORY_MB)
        one, many = warm(stoker, "echo", 1), warm(stoker, "echo", 32)
        python_cold = cold(stoker, "cold-python", python_zip(PYTHON_ECHO), **python_settings())
        node_cold = None
        if NODE:
            node = {"Runtime": str(node_runtime()), "Handler": "index.handler"}
            node_cold = cold(stoker, "cold-node", zip_of({"index.js": NODE_ECHO}), **node)
    finally:
        stoker.remove()
    report(hello_1, hello_32, one, many, python_cold, node_cold)


def python_settings() -> dict[str, str]:
    """Runtime and handler of the Python echo."""
    return {"Runtime": PYTHON_RUNTIME, "Handler": "lambda_function.lambda_handler"}


def report(
    hello_1: Load, hello_32: Load, one: Load, many: Load, python_cold: Cold, node_cold: Cold | None
) -> None:
    """Every figure beside its yardstick."""
    interpreter = Path("/usr/bin") / PYTHON_RUNTIME
    python_bare = bare_interpreter(
        [str(interpreter)],
        f"import sys, json\n{PYTHON_ECHO}print(json.dumps(lambda_handler(json.load(sys.stdin), None)))\n",
        ".py",
    )
    print(f"{'measure':44} {'stoker':>14} {'yardstick':>14}  ratio")
    row("warm echo, 1 client, p50 (us) / bare hello", one.p50_us, hello_1.p50_us)
    row("warm echo, 1 client, p99 (us) / bare hello", one.p99_us, hello_1.p99_us)
    row("warm echo, 32 clients (1/s) / bare hello", many.per_second, hello_32.per_second)
    row("warm echo, 32 clients, p99 (us) / bare hello", many.p99_us, hello_32.p99_us)
    row(f"cold Python p50 (ms, n={python_cold.n}) / bare python", python_cold.p50_ms, python_bare.p50_ms)
    row("cold Python p95 (ms) / bare python", python_cold.p95_ms, python_bare.p95_ms)
    if node_cold is not None and NODE:
        script = (
            f"{NODE_ECHO}let s='';process.stdin.on('data',d=>s+=d).on('end',async()=>"
            "console.log(JSON.stringify(await exports.handler(JSON.parse(s)))));"
        )
        node_bare = bare_interpreter([NODE], script, ".cjs")
        row(f"cold Node p50 (ms, n={node_cold.n}) / bare node", node_cold.p50_ms, node_bare.p50_ms)
        row("cold Node p95 (ms) / bare node", node_cold.p95_ms, node_bare.p95_ms)
    print(f"requests with errors: {one.errors + many.errors} of {one.requests + many.requests}")


def row(label: str, figure: float, yardstick: float) -> None:
    """One line of the table."""
    print(f"{label:44} {figure:14.1f} {yardstick:14.1f}  {figure / yardstick:5.2f}")


if __name__ == "__main__":
    main()
