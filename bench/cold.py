"""Cold starts by where the sandbox comes from: a pool, or made on demand; beside the bare interpreter's start.

    python -m bench.cold [--functions 100] [--memory 1769]

Every sample is the first signed invocation of a function that never ran, over an open connection. The functions
of one language share one zip. Functions are started one after another with a rest between, so that a pool of
the default size is full again; the other run has no pools. Phases are the service's own metrics.
"""

import argparse
import http.client
import json
import re
import statistics
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import msgspec
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

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
BARE_STARTS = 40
REST_S = 0.1
PHASES = ("reserve", "sandbox", "mount", "assign", "launch", "init", "duration")

PROVIDED_SOURCE = r"""
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char in[65536], out[65536];

int main(void)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(9001)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&to, sizeof to) < 0)
        return 1;
    int length = sprintf(out, "GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: x\r\n\r\n");
    for (;;) {
        char *body = NULL, id[64] = "";
        size_t got = 0, size = 0;
        if (write(fd, out, length) != length)
            return 1;
        for (;;) {
            ssize_t more = read(fd, in + got, sizeof in - 1 - got);
            if (more <= 0)
                return 1;
            in[got += more] = 0;
            char *event = strstr(in, "Request-Id: ");
            if (event && (body = strstr(event, "\r\n\r\n"))) {
                size = atoi(strstr(event, "Content-Length: ") + 16);
                if ((size_t)(in + got - body - 4) >= size) {
                    sscanf(event, "Request-Id: %63s", id);
                    break;
                }
            }
        }
        length = sprintf(out,
                         "POST /2018-06-01/runtime/invocation/%s/response HTTP/1.1\r\nHost: x\r\n"
                         "Content-Length: %zu\r\n\r\n%.*s"
                         "GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: x\r\n\r\n",
                         id, size, (int)size, body + 4);
    }
}
"""


class Cold(msgspec.Struct, frozen=True):
    """Milliseconds."""

    p50_ms: float
    p95_ms: float
    n: int


class Language(msgspec.Struct, frozen=True):
    """What to deploy, the kind of pool that serves it, and what to compare with."""

    name: str
    settings: dict[str, str]
    archive: bytes
    bare: Cold
    bare_name: str


def summary(samples: Sequence[float]) -> Cold:
    """Median and 95th percentile."""
    ordered = sorted(samples)
    return Cold(statistics.median(ordered), ordered[int(len(ordered) * 0.95) - 1], len(ordered))


def bare(command: list[str], source: str = "", suffix: str = "") -> Cold:
    """The yardstick of a cold start: a program, started with the handler, answering one event."""
    samples: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, f"echo{suffix}")
        file.write_text(source)
        full = [*command, str(file)] if source else command
        for _ in range(BARE_STARTS):
            begun = time.perf_counter()
            subprocess.run(full, input=BODY, check=True, capture_output=True)
            samples.append((time.perf_counter() - begun) * 1000)
    return summary(samples)


def signed(endpoint: str, name: str) -> tuple[str, dict[str, str]]:
    """URL and headers of one signed Invoke."""
    url = f"{endpoint}/2015-03-31/functions/{name}/invocations"
    request = AWSRequest(method="POST", url=url, data=BODY, headers={"Content-Type": "application/json"})
    SigV4Auth(Credentials(ACCESS_KEY_ID, SECRET_ACCESS_KEY), "lambda", REGION).add_auth(request)
    return url, dict(request.headers.items())


def python_settings() -> dict[str, str]:
    """Runtime and handler of the Python echo."""
    return {"Runtime": PYTHON_RUNTIME, "Handler": "lambda_function.lambda_handler"}


def provided_zip() -> bytes:
    """A static C program as bootstrap: the least a runtime can be."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "bootstrap")
        command = ["cc", "-O2", "-static", "-xc", "-", "-o", str(program)]
        subprocess.run(command, input=PROVIDED_SOURCE.encode(), check=True)
        return zip_of({"bootstrap": program.read_bytes()})


def languages() -> list[Language]:
    """Those this host has, with their yardsticks measured now."""
    script = f"import sys, json\n{PYTHON_ECHO}print(json.dumps(lambda_handler(json.load(sys.stdin), None)))\n"
    python = bare([str(Path("/usr/bin") / PYTHON_RUNTIME)], script, ".py")
    found = [Language("Python", python_settings(), python_zip(PYTHON_ECHO), python, "bare python")]
    if NODE:
        script = (
            f"{NODE_ECHO}let s='';process.stdin.on('data',d=>s+=d).on('end',async()=>"
            "console.log(JSON.stringify(await exports.handler(JSON.parse(s)))));"
        )
        settings = {"Runtime": str(node_runtime()), "Handler": "index.handler"}
        archive = zip_of({"index.js": NODE_ECHO})
        found.append(Language("Node", settings, archive, bare([NODE], script, ".cjs"), "bare node"))
    settings = {"Runtime": "provided.al2023", "Handler": "any"}
    found.append(Language("provided", settings, provided_zip(), bare(["/bin/true"]), "/bin/true"))
    return found


def create_all(stoker: RunningStoker, language: Language, count: int, memory_mb: int) -> list[str]:
    """Functions that never ran, all of the same zip."""
    service = stoker.client("lambda")
    names = [f"{language.name.lower()}-{number}" for number in range(count + 1)]
    for name in names:
        service.create_function(
            FunctionName=name,
            Role=ROLE,
            Code={"ZipFile": language.archive},
            MemorySize=memory_mb,
            Timeout=30,
            **language.settings,
        )
    service.get_waiter("function_active_v2").wait(FunctionName=names[-1], WaiterConfig={"Delay": 1})
    return names


def first_ms(stoker: RunningStoker, name: str) -> float:
    """Milliseconds of one first invocation; signing and connecting are not measured."""
    url, headers = signed(stoker.endpoint, name)
    connection = http.client.HTTPConnection("127.0.0.1", stoker.port, timeout=60)
    connection.connect()
    begun = time.perf_counter()
    connection.request("POST", url.removeprefix(stoker.endpoint), BODY, headers)
    answer = connection.getresponse()
    body = answer.read()
    taken_ms = (time.perf_counter() - begun) * 1000
    if answer.status != 200 or answer.headers.get("X-Amz-Function-Error"):
        raise SystemExit(f"{name}: {answer.status} {body[:300]!r}")
    connection.close()
    return taken_ms


def metrics(stoker: RunningStoker) -> dict[str, float]:
    """Every plain figure of /metrics."""
    with urllib.request.urlopen(f"{stoker.endpoint}/metrics") as answer:
        text = answer.read().decode()
    return {name: float(value) for name, value in re.findall(r"^(\w+) ([\d.e+-]+)$", text, re.MULTILINE)}


def measure(
    pool_memory_mb: int, found: list[Language], count: int, memory_mb: int
) -> dict[str, tuple[Cold, dict[str, float]]]:
    """Medians by language, and the mean of each phase in milliseconds with the share of pool hits."""
    stoker = RunningStoker(pool_memory_mb=pool_memory_mb)
    results: dict[str, tuple[Cold, dict[str, float]]] = {}
    try:
        stoker.start()
        for language in found:
            first, *names = create_all(stoker, language, count, memory_mb)
            first_ms(stoker, first)  # finds the interpreter, makes the pool known and the code ready
            time.sleep(3 if pool_memory_mb else REST_S)
            before, samples = metrics(stoker), []
            for name in names:
                samples.append(first_ms(stoker, name))
                time.sleep(REST_S)
            results[language.name] = summary(samples), phases(before, metrics(stoker), count)
    finally:
        stoker.remove()
    return results


def phases(before: dict[str, float], after: dict[str, float], count: int) -> dict[str, float]:
    """The mean of each phase between two looks, and how many of a hundred came from the pool."""

    def more(name: str) -> float:
        return after.get(name, 0.0) - before.get(name, 0.0)

    means: dict[str, float] = {}
    for phase in PHASES:
        number = more(f"stoker_worker_{phase}_seconds_count")
        means[phase] = more(f"stoker_worker_{phase}_seconds_sum") / number * 1000 if number else 0.0
    means["hits"] = more("stoker_worker_pool_hits_total") / count * 100
    return means


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--functions", type=int, default=100)
    parser.add_argument("--memory", type=int, default=1769)
    parser.add_argument("--pool-memory", type=int, default=256)
    options, _ = parser.parse_known_args()
    found = languages()
    print(
        f"{'cold start, ms':26} {'p50':>7} {'p95':>7} {'yardstick p50':>28} {'ratio':>6}  hits  mean ms by phase"
    )
    for label, pool_memory_mb in (("from the pool", options.pool_memory), ("pool empty", 0)):
        results = measure(pool_memory_mb, found, options.functions, options.memory)
        for language in found:
            cold, means = results[language.name]
            parts = " ".join(f"{phase} {means[phase]:.2f}" for phase in PHASES if means[phase])
            print(
                f"{f'{language.name} {label} (n={cold.n})':26} {cold.p50_ms:7.2f} {cold.p95_ms:7.2f} "
                f"{f'{language.bare_name} {language.bare.p50_ms:.2f} (n={language.bare.n})':>28} "
                f"{cold.p50_ms / language.bare.p50_ms:6.2f}  {means['hits']:3.0f}%  {parts}"
            )


if __name__ == "__main__":
    main()
