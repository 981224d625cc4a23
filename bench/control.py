"""The control plane: signed reads and creations a second, and the start with very many functions, on the real
service; beside a bare HTTP hello on the same stack and the start with none.
"""

import base64
import contextlib
import json
import sqlite3
import subprocess
import tempfile
import time
import urllib.parse
from pathlib import Path
from typing import Any

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from bench.figures import Figure, Missing, Options
from bench.functions import create_many, echoes, serving
from bench.hello import hello_server
from bench.percentiles import median
from bench.wrk import drive, find_wrk
from tests.running import (
    ACCESS_KEY_ID,
    PYTHON_RUNTIME,
    REGION,
    ROLE,
    SECRET_ACCESS_KEY,
    RunningStoker,
    python_zip,
)

CLIENTS = 16
CREATIONS_PER_SECOND = 1500
"""Signed ahead for each second; a faster service would need more."""
FUNCTIONS = 100_000
LISTED = 200
GOALS = {
    "control.get.rate": "over 3,000/s",
    "control.create.rate": "over 200/s",
    "control.start": "under 2 s",
}
REPLAY = """
local requests = {}
for size in io.lines(%s .. ".sizes") do requests[#requests + 1] = tonumber(size) end
local file = io.open(%s, "rb")
for index, size in ipairs(requests) do requests[index] = file:read(size) end
local next_one = 0
function request()
  next_one = next_one + 1
  return requests[math.min(next_one, #requests)]
end
function done(summary, latency)
  local errors = summary.errors
  io.stderr:write(string.format('{"requests":%%d,"duration_us":%%d,"failed":%%d,"p50_us":%%f}',
    summary.requests, summary.duration, errors.status + errors.timeout, latency:percentile(50)))
end
"""


def measure(options: Options) -> list[Figure]:
    """Reads, creations, the start."""
    with hello_server() as url:
        drive(url, {}, b"", clients=CLIENTS, seconds=1)
        hello = drive(url, {}, b"", clients=CLIENTS, seconds=options.seconds).per_second
    with serving(pool_memory_mb=0) as stoker:
        create_many(stoker, echoes()[0], "read", LISTED)
        figures = [reads(stoker, name, path, options, hello) for name, path in READS.items()]
    with serving(pool_memory_mb=0) as stoker:
        figures += creations(stoker, "create", options, distinct=True, hello=hello)
        figures += creations(stoker, "create_same_code", options, distinct=False, hello=hello)
    return [*figures, *starts()]


SEED = "seed-0"
COPIED = {
    "name": "printf('many-%06d', n)",
    "document": f"CAST(replace(CAST(document AS TEXT), '{SEED}', printf('many-%06d', n)) AS BLOB)",
}
READS = {
    "get": "/2015-03-31/functions/read-7",
    "get_configuration": "/2015-03-31/functions/read-7/configuration",
    "list": "/2015-03-31/functions/?MaxItems=50",
}


def reads(stoker: RunningStoker, name: str, path: str, options: Options, hello: float) -> Figure:
    """One signed GET, replayed."""
    request = signed_request(stoker, "GET", path, b"")
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "get.lua"
        lines = [f"wrk.headers[{json.dumps(k)}] = {json.dumps(v)}" for k, v in request.headers.items()]
        script.write_text("\n".join(lines) + REPORT)
        answer = wrk(script, f"{stoker.endpoint}{path}", options.seconds)
    if answer["failed"]:
        raise Missing(f"{answer['failed']} of {answer['requests']} reads failed")
    return rate(f"control.{name}.rate", answer, hello)


REPORT = "\nfunction done" + REPLAY.partition("function done")[2].replace("%%", "%")


def creations(
    stoker: RunningStoker, name: str, options: Options, *, distinct: bool, hello: float
) -> list[Figure]:
    """Creations of small Python functions, each with code of its own or all with the same, signed before."""
    signed = CREATIONS_PER_SECOND * max(1, round(options.seconds))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "requests"
        with file.open("wb") as stream, Path(f"{file}.sizes").open("w") as sizes:
            for number in range(signed):
                raw = creation(stoker, f"{name}-{number}", number if distinct else 0)
                stream.write(raw)
                sizes.write(f"{len(raw)}\n")
        script = Path(folder) / "replay.lua"
        script.write_text(REPLAY % (json.dumps(str(file)), json.dumps(str(file))))
        answer = wrk(script, stoker.endpoint, options.seconds)
    if answer["failed"]:
        raise Missing(
            f"{answer['failed']} of {answer['requests']} creations failed, of {signed} that were signed"
        )
    return [rate(f"control.{name}.rate", answer, hello)]


def creation(stoker: RunningStoker, name: str, number: int) -> bytes:
    """One signed CreateFunction as it goes over the wire."""
    archive = python_zip(f"def lambda_handler(event, context):\n    return {number}\n")
    body = json.dumps(
        {
            "FunctionName": name,
            "Role": ROLE,
            "Runtime": PYTHON_RUNTIME,
            "Handler": "lambda_function.lambda_handler",
            "Code": {"ZipFile": base64.b64encode(archive).decode()},
        }
    ).encode()
    request = signed_request(stoker, "POST", "/2015-03-31/functions", body)
    head = f"POST /2015-03-31/functions HTTP/1.1\r\nHost: 127.0.0.1:{stoker.port}\r\n"
    lines = "".join(f"{key}: {value}\r\n" for key, value in request.headers.items())
    return f"{head}{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body


def signed_request(stoker: RunningStoker, method: str, path: str, body: bytes) -> Any:
    """A request with its Authorization."""
    headers = {"Content-Type": "application/json"} if body else {}
    request = AWSRequest(method=method, url=f"{stoker.endpoint}{path}", data=body, headers=headers)
    query = urllib.parse.urlsplit(path).query
    request.params = dict(urllib.parse.parse_qsl(query))
    request.url = request.url.partition("?")[0]
    SigV4Auth(Credentials(ACCESS_KEY_ID, SECRET_ACCESS_KEY), "lambda", REGION).add_auth(request)
    return request


def wrk(script: Path, url: str, seconds: float) -> dict[str, Any]:
    """Run wrk with ``CLIENTS`` connections; its script reports."""
    command = [find_wrk(), "-t1", f"-c{CLIENTS}", f"-d{max(1, round(seconds))}s", "--timeout", "30s"]
    done = subprocess.run([*command, "-s", str(script), url], capture_output=True, text=True, check=True)
    return json.loads(done.stderr.strip().splitlines()[-1])


def rate(name: str, answer: dict[str, Any], hello: float) -> Figure:
    """Requests a second."""
    return Figure(
        name=name,
        value=answer["requests"] / answer["duration_us"] * 1e6,
        unit="1/s",
        n=answer["requests"],
        yardstick=hello,
        yardstick_name=f"bare HTTP hello, {CLIENTS} clients",
        higher_is_better=True,
        goal=GOALS.get(name, ""),
    )


def starts() -> list[Figure]:
    """From the command to /ready, with no function and with very many, three times each."""
    stoker = RunningStoker(pool_memory_mb=0)
    try:
        none = [started_s(stoker) for _ in range(3)]
        stoker.start()
        create_many(stoker, echoes()[0], SEED.removesuffix("-0"), 1)
        stoker.stop()
        fill(stoker.data / "metadata.db")
        many = [started_s(stoker) for _ in range(3)]
        return [
            Figure(
                name="control.start",
                value=median(many),
                unit="s",
                n=len(many),
                yardstick=median(none),
                yardstick_name="start with no function",
                goal=GOALS["control.start"],
            )
        ]
    finally:
        stoker.remove()


def started_s(stoker: RunningStoker) -> float:
    """One start, in seconds; stopped again."""
    begun_s = time.perf_counter()
    stoker.start()
    taken_s = time.perf_counter() - begun_s
    stoker.stop()
    return taken_s


def fill(file: Path) -> None:
    """``FUNCTIONS`` functions, each a copy of the one that is there under another name."""
    number = f"WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {FUNCTIONS}) "
    with contextlib.closing(sqlite3.connect(file)) as database, database:
        for table in ("functions", "function_versions"):
            columns = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
            values = [COPIED.get(column, column) for column in columns]
            database.execute(
                f"{number} INSERT INTO {table} ({', '.join(columns)}) "
                f"SELECT {', '.join(values)} FROM {table}, c WHERE name = '{SEED}'"
            )
