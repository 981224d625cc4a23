"""The functions that are measured and how they are called: echoes in every runtime of this host, signed requests
to replay, single invocations, and the service's own metrics.
"""

import contextlib
import functools
import http.client
import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from bench.figures import Missing
from bench.percentiles import grown, parse_metrics
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
PROVIDED_ECHO = Path(__file__).parent / "provided_echo.c"
MEMORY_MB = 1769
"""One whole CPU under AWS's rule."""
BODY_BYTES = 1024
ERRORS_MAX_SHARE = 0.01


class Echo(msgspec.Struct, frozen=True):
    """A function that answers with its event."""

    label: str
    archive: bytes
    settings: dict[str, str]
    bare: list[str]
    """The yardstick of its start: the interpreter that runs the handler once, or the program itself."""
    bare_source: str = ""
    bare_suffix: str = ""


def body_of(size_bytes: int) -> bytes:
    """A JSON event of exactly this size."""
    frame = len(json.dumps({"text": ""}))
    return json.dumps({"text": "x" * (size_bytes - frame)}).encode()


BODY = body_of(BODY_BYTES)


@functools.cache
def echoes() -> tuple[Echo, ...]:
    """Python, then Node and provided where this host has what they need."""
    python = Echo(
        "python",
        python_zip(PYTHON_ECHO),
        {"Runtime": PYTHON_RUNTIME, "Handler": "lambda_function.lambda_handler"},
        [shutil.which(PYTHON_RUNTIME, path="/usr/bin:/usr/local/bin") or PYTHON_RUNTIME],
        f"import sys, json\n{PYTHON_ECHO}print(json.dumps(lambda_handler(json.load(sys.stdin), None)))\n",
        ".py",
    )
    found = [python]
    if NODE:
        settings = {"Runtime": str(node_runtime()), "Handler": "index.handler"}
        source = (
            f"{NODE_ECHO}let s='';process.stdin.on('data',d=>s+=d).on('end',async()=>"
            "console.log(JSON.stringify(await exports.handler(JSON.parse(s)))));"
        )
        found.append(Echo("node", zip_of({"index.js": NODE_ECHO}), settings, [NODE], source, ".cjs"))
    if shutil.which("cc"):
        settings = {"Runtime": "provided.al2023", "Handler": "bootstrap"}
        found.append(Echo("provided", zip_of({"bootstrap": compiled()}), settings, ["/bin/true"]))
    return tuple(found)


@contextlib.contextmanager
def serving(**settings: object) -> Iterator[RunningStoker]:
    """A Stoker of its own that lets 128 clients have a sandbox of a whole CPU each, whatever this host's memory."""
    stoker = RunningStoker(**{"memory_overcommit": 100, **settings})
    try:
        stoker.start()
        yield stoker
    finally:
        stoker.remove()


def compiled() -> bytes:
    """The static program of the provided runtime."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "bootstrap"
        subprocess.run(["cc", "-O2", "-static", "-s", "-o", program, PROVIDED_ECHO], check=True)
        return program.read_bytes()


def create_echo(stoker: RunningStoker, echo: Echo, name: str, **settings: Any) -> None:
    """One active function."""
    stoker.create(name, echo.archive, **{"MemorySize": MEMORY_MB, "Timeout": 30, **echo.settings, **settings})


def create_many(stoker: RunningStoker, echo: Echo, prefix: str, count: int, **settings: Any) -> list[str]:
    """Functions of the same code that have no sandbox yet; their names."""
    service = stoker.client("lambda")
    names = [f"{prefix}-{number}" for number in range(count)]
    options = {"MemorySize": MEMORY_MB, "Timeout": 30, **echo.settings, **settings}
    for name in names:
        service.create_function(FunctionName=name, Role=ROLE, Code={"ZipFile": echo.archive}, **options)
    service.get_waiter("function_active_v2").wait(FunctionName=names[-1], WaiterConfig={"Delay": 1})
    return names


def signed(endpoint: str, name: str, body: bytes = BODY, **more: str) -> tuple[str, dict[str, str]]:
    """URL and headers of one signed Invoke; ``more`` are further headers, signed too."""
    url = f"{endpoint}/2015-03-31/functions/{name}/invocations"
    request = AWSRequest(
        method="POST", url=url, data=body, headers={"Content-Type": "application/json", **more}
    )
    SigV4Auth(Credentials(ACCESS_KEY_ID, SECRET_ACCESS_KEY), "lambda", REGION).add_auth(request)
    return url, dict(request.headers.items())


def load(
    stoker: RunningStoker,
    name: str,
    *,
    clients: int,
    seconds: float,
    warm_up_s: float = 2,
    body: bytes = BODY,
    pause_ms: int = 0,
    elsewhere: bool = False,
) -> Load:
    """Warm the sandboxes, then measure. Some refusals are part of an overloaded run and are in its errors.

    Raises:
        Missing: functions failed, or so many requests that the figures would mean nothing.
    """
    url, headers = signed(stoker.endpoint, name, body)
    if warm_up_s:
        drive(url, headers, body, clients=clients, seconds=warm_up_s)
    before = metrics(stoker)
    url, headers = signed(stoker.endpoint, name, body)
    result = drive(
        url, headers, body, clients=clients, seconds=seconds, pause_ms=pause_ms, elsewhere=elsewhere
    )
    after = metrics(stoker)
    failed = grown(before, after, "stoker_worker_function_errors_total")
    if failed or result.errors > result.requests * ERRORS_MAX_SHARE:
        reasons = {
            key: grown(before, after, key) for key in after if "_throttled" in key or "_refused" in key
        }
        raise Missing(
            f"{clients} clients of {name}: {result.errors} requests and {failed:.0f} functions failed "
            f"of {result.requests}; { ({key: count for key, count in reasons.items() if count}) }"
        )
    return result


class Caller:
    """Single signed invocations over one kept connection."""

    def __init__(self, stoker: RunningStoker) -> None:
        self._endpoint = stoker.endpoint
        self._connection = http.client.HTTPConnection("127.0.0.1", stoker.port, timeout=60)
        self._connection.connect()

    def invoke_ms(self, name: str, body: bytes = BODY) -> float:
        """Time from sending an event to having its whole answer, checked, in milliseconds."""
        url, headers = signed(self._endpoint, name, body)
        path = url.removeprefix(self._endpoint)
        begun_s = time.perf_counter()
        self._connection.request("POST", path, body, headers)
        answer = self._connection.getresponse()
        text = answer.read()
        taken_ms = (time.perf_counter() - begun_s) * 1000
        if answer.status != 200 or answer.headers.get("X-Amz-Function-Error"):
            raise SystemExit(f"{name}: {answer.status} {text[:300]!r}")
        if json.loads(text) != json.loads(body):
            raise SystemExit(f"{name} did not answer with its event: {text[:100]!r}")
        return taken_ms

    def close(self) -> None:
        self._connection.close()


def bare_start_ms(echo: Echo, count: int) -> list[float]:
    """Times of the echo's yardstick: started, given one event, ended."""
    with tempfile.TemporaryDirectory() as folder:
        command = list(echo.bare)
        if echo.bare_source:
            file = Path(folder) / f"echo{echo.bare_suffix}"
            file.write_text(echo.bare_source)
            command.append(str(file))
        return [
            timed_ms(lambda: subprocess.run(command, input=BODY, check=True, capture_output=True))
            for _ in range(count)
        ]


def timed_ms(action: Callable[[], object]) -> float:
    """Milliseconds that a call takes."""
    begun_s = time.perf_counter()
    action()
    return (time.perf_counter() - begun_s) * 1000


def metrics(stoker: RunningStoker) -> dict[str, float]:
    """The service's /metrics now."""
    with urllib.request.urlopen(f"{stoker.endpoint}/metrics", timeout=10) as answer:
        return parse_metrics(answer.read().decode())
