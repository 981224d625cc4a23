"""The warm path: an echo of 1 KB per runtime at 1 to 128 clients, and 32 clients over 8 sandboxes, beside a bare
HTTP hello on the same stack. Each run says what the load generator, the service and the sandboxes cost in CPU.
"""

import msgspec

from bench.figures import Figure, Missing, Options
from bench.functions import BODY, create_echo, echoes, load, serving, signed
from bench.hello import hello_server
from bench.machine import cpu_s, cpu_spent_s, descendants, named
from bench.wrk import Load, drive
from tests.running import RunningStoker

CLIENTS = (1, 8, 32, 128)
SANDBOXES = 8
HELLO = "bare HTTP hello"
GOALS = {
    "warm.python.1.p50": "under 300 us, under 4x",
    "warm.python.1.p99": "under 1000 us",
    "warm.python.8sandboxes.32.rate": "over 8,000/s",
}


class Cost(msgspec.Struct, frozen=True):
    """CPU time a request, in microseconds."""

    service_us: float
    sandbox_us: float


def measure(options: Options) -> list[Figure]:
    """Every runtime at every number of clients."""
    with hello_server() as url:
        drive(url, {}, BODY, clients=8, seconds=1)
        hello = {
            clients: drive(url, {}, BODY, clients=clients, seconds=options.seconds) for clients in CLIENTS
        }
    figures = [figure for clients in CLIENTS for figure in rows(f"hello.{clients}", hello[clients], None)]
    for echo in echoes():
        # A Stoker each, so that the sandboxes of one runtime do not weigh on the next.
        with serving() as stoker:
            create_echo(stoker, echo, "echo")
            for clients in CLIENTS:
                name = f"warm.{echo.label}.{clients}"
                figures += one(stoker, name, clients, options.seconds, hello[clients])
        with serving(sandboxes_max=SANDBOXES, pool_memory_mb=0) as stoker:
            create_echo(stoker, echo, "echo")
            name = f"warm.{echo.label}.{SANDBOXES}sandboxes.32"
            figures += one(stoker, name, 32, options.seconds, hello[32])
    return figures


def one(stoker: RunningStoker, name: str, clients: int, seconds: float, hello: Load) -> list[Figure]:
    """The figures of one run; none, and a line that says why, when it failed."""
    try:
        result, cost = loaded(stoker, clients, seconds, warm_up_s=2 + clients / 16)
    except Missing as missing:
        print(f"no figures for {name}: {missing}", flush=True)
        return []
    return rows(name, result, hello, cost)


def loaded(stoker: RunningStoker, clients: int, seconds: float, *, warm_up_s: float) -> tuple[Load, Cost]:
    """One run, and what it cost. The warm-up is a run of its own, outside the cost."""
    url, headers = signed(stoker.endpoint, "echo")
    drive(url, headers, BODY, clients=clients, seconds=warm_up_s)
    before = _cpu(stoker)
    result = load(stoker, "echo", clients=clients, seconds=seconds, warm_up_s=0)
    after = _cpu(stoker)
    service_s, sandbox_s = map(cpu_spent_s, before, after)
    return result, Cost(service_s * 1e6 / result.requests, sandbox_s * 1e6 / result.requests)


def _cpu(stoker: RunningStoker) -> tuple[dict[int, float], dict[int, float]]:
    """CPU time so far of the service's processes, and of everything below the jail."""
    assert stoker.process is not None
    below = descendants(stoker.process.pid)
    jails = named(below, "stoker-jail")
    sandboxes = {pid for jail in jails for pid in descendants(jail)}
    return cpu_s(pid for pid in below if pid not in sandboxes and pid not in jails), cpu_s(sandboxes)


def rows(name: str, result: Load, hello: Load | None, cost: Cost | None = None) -> list[Figure]:
    """The figures of one run beside the hello's of as many clients."""
    yardstick = HELLO if hello else ""
    figures: list[Figure] = []
    for part, tolerance in (("p50", 0.5), ("p90", None), ("p99", None), ("p999", None)):
        figures.append(
            Figure(
                name=f"{name}.{part}",
                value=getattr(result, f"{part}_us"),
                unit="us",
                n=result.requests,
                yardstick=getattr(hello, f"{part}_us") if hello else None,
                yardstick_name=yardstick,
                tolerance=tolerance,
                goal=GOALS.get(f"{name}.{part}", ""),
            )
        )
    figures.append(
        Figure(
            name=f"{name}.rate",
            value=result.per_second,
            unit="1/s",
            n=result.requests,
            yardstick=hello.per_second if hello else None,
            yardstick_name=yardstick,
            higher_is_better=True,
            goal=GOALS.get(f"{name}.rate", ""),
        )
    )
    if result.errors:
        figures.append(
            Figure(name=f"{name}.refused", value=result.errors, unit="requests", n=result.requests)
        )
    costs = {"generator": result.generator_cpu_us}
    if cost:
        costs |= {"service": cost.service_us, "sandboxes": cost.sandbox_us}
    figures += [
        Figure(name=f"{name}.cpu_{who}", value=value, unit="us/call", n=result.requests)
        for who, value in costs.items()
    ]
    return figures
