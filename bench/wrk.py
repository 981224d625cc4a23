"""Drives an HTTP endpoint with wrk (not Python), replaying one signed request inside its time window."""

import json
import math
import resource
import shutil
import subprocess
import tempfile
from pathlib import Path

import msgspec

from bench.priority import come_first

SCRIPT = """
wrk.method = "POST"
wrk.body = %s
wrk.headers = %s
%s
function done(summary, latency, requests)
  local errors = summary.errors
  io.stderr:write(string.format(
    '{"requests":%%d,"duration_us":%%d,"errors":%%d,"p50_us":%%f,"p90_us":%%f,"p99_us":%%f,"p999_us":%%f,"mean_us":%%f}',
    summary.requests, summary.duration,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50), latency:percentile(90), latency:percentile(99), latency:percentile(99.9), latency.mean))
end
"""


class Load(msgspec.Struct, frozen=True):
    """One run's outcome."""

    requests: int
    duration_us: int
    errors: int
    p50_us: float
    p90_us: float
    p99_us: float
    p999_us: float
    mean_us: float
    generator_cpu_s: float = 0.0
    """CPU time of the load generator, which shares the machine with what it measures."""

    @property
    def per_second(self) -> float:
        return self.requests / self.duration_us * 1e6

    @property
    def generator_cpu_us(self) -> float:
        """Per request."""
        return self.generator_cpu_s * 1e6 / max(1, self.requests)


def find_wrk() -> str:
    """The wrk program, installed with apt where root may."""
    if shutil.which("wrk") is None:
        subprocess.run(["apt-get", "install", "-y", "-qq", "wrk"], check=True, stdout=subprocess.DEVNULL)
    found = shutil.which("wrk")
    if found is None:
        raise SystemExit("bench needs wrk: apt-get install wrk")
    return found


def drive(
    url: str,
    headers: dict[str, str],
    body: bytes,
    *,
    clients: int,
    seconds: float,
    pause_ms: int = 0,
    elsewhere: bool = False,
) -> Load:
    """Keep ``clients`` connections busy for ``seconds``; each waits ``pause_ms`` before a request.

    ``elsewhere``: take the CPU as soon as an answer is there, as a client on another machine would. Root only.
    """
    command = [find_wrk(), "-t1", f"-c{clients}", f"-d{max(1, math.ceil(seconds))}s", "--timeout", "30s"]
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "request.lua"
        script.write_text(script_of(headers, body, pause_ms))
        before = _children_cpu_s()
        done = subprocess.run(
            [*command, "-s", str(script), url],
            capture_output=True,
            text=True,
            check=True,
            preexec_fn=come_first if elsewhere else None,
        )
        used = _children_cpu_s() - before
    load = msgspec.json.decode(done.stderr.strip().splitlines()[-1], type=Load)
    return msgspec.structs.replace(load, generator_cpu_s=used)


def script_of(headers: dict[str, str], body: bytes, pause_ms: int) -> str:
    """What wrk sends, in Lua; the answers' latency does not include the pause."""
    table = "{" + ", ".join(f"[{lua(name)}] = {lua(value)}" for name, value in headers.items()) + "}"
    pause = f"function delay() return {pause_ms} end" if pause_ms else ""
    return SCRIPT % (lua(body.decode()), table, pause)


def lua(text: str) -> str:
    """A Lua string literal; JSON's escapes of printable text are Lua's too."""
    return json.dumps(text)


def _children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
