"""First invocations of functions without a sandbox, from the pool and without one, and where the time goes by
the service's own phase metrics; beside the bare interpreter that runs the handler once.
"""

import time

from bench.figures import Figure, Options
from bench.functions import Caller, Echo, bare_start_ms, create_many, echoes, metrics, serving
from bench.percentiles import grown, mean_ms, median, percentile
from tests.running import RunningStoker

PHASES = ("reserve", "sandbox", "mount", "assign", "launch", "init", "duration")
"""As /metrics names them (``stoker_worker_<phase>_seconds``); ``duration`` is the invocation's own."""
MODES: dict[str, dict[str, object]] = {"pool": {}, "empty": {"pool_memory_mb": 0}}
GOALS = {
    "cold.pool.python.p50": "under 6 ms",
    "cold.pool.node.p50": "under 15 ms",
    "cold.pool.provided.p50": "under 8 ms",
    "cold.empty.python.p50": "under 25 ms",
    "cold.empty.node.p50": "under 100 ms",
}
POOL_WAIT_S = 3.0
PAUSE_S = 0.05


def measure(options: Options) -> list[Figure]:
    """Both modes, every runtime."""
    figures: list[Figure] = []
    for echo in echoes():
        bare = bare_start_ms(echo, 30)
        for mode, settings in MODES.items():
            pooled = {"pool_runtimes": echo.settings["Runtime"]} if mode == "pool" else {}
            with serving(**settings, **pooled) as stoker:
                figures += started(stoker, echo, mode, options.cold_starts, bare)
    return figures


def started(stoker: RunningStoker, echo: Echo, mode: str, count: int, bare: list[float]) -> list[Figure]:
    """``count`` cold starts, one after another."""
    # The first start of a service looks for the interpreter and makes the code ready.
    (first,) = create_many(stoker, echo, "first", 1)
    names = create_many(stoker, echo, "cold", count)
    caller = Caller(stoker)
    caller.invoke_ms(first)
    before = metrics(stoker)
    samples: list[float] = []
    for name in names:
        wait_for_pool(stoker, mode)
        samples.append(caller.invoke_ms(name))
    after = metrics(stoker)
    caller.close()
    prefix = f"cold.{mode}.{echo.label}"
    yardstick = "bare interpreter with the handler" if echo.bare_source else "spawn of /bin/true"
    figures = [
        Figure(
            name=f"{prefix}.{part}",
            value=percentile(samples, percent) if percent != 50 else median(samples),
            unit="ms",
            n=len(samples),
            yardstick=median(bare),
            yardstick_name=yardstick,
            tolerance=tolerance,
            goal=GOALS.get(f"{prefix}.{part}", ""),
        )
        for part, percent, tolerance in (("p50", 50, 0.5), ("p90", 90, None), ("p99", 99, None))
    ]
    for phase in PHASES:
        spent = mean_ms(before, after, f"stoker_worker_{phase}_seconds")
        if spent is not None:
            figures.append(Figure(name=f"{prefix}.phase_{phase}", value=spent[0], unit="ms mean", n=spent[1]))
    if mode == "pool":
        hits = grown(before, after, "stoker_worker_pool_hits_total")
        figures.append(
            Figure(
                name=f"{prefix}.pool_hits", value=hits / count * 100, unit="%", n=count, higher_is_better=True
            )
        )
    return figures


def wait_for_pool(stoker: RunningStoker, mode: str) -> None:
    """Let the pool have its sandbox again, or just let the last start settle."""
    time.sleep(PAUSE_S)
    deadline_s = time.monotonic() + POOL_WAIT_S
    while mode == "pool" and time.monotonic() < deadline_s:
        if metrics(stoker).get("stoker_worker_pool_size", 0) >= 1:
            return
        time.sleep(PAUSE_S)
