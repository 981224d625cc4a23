"""A quiet function, ten calls a second, alone and beside another that keeps 32 sandboxes computing."""

import threading
import time

from bench.figures import Figure, Options
from bench.functions import BODY, Echo, create_echo, echoes, load, serving, signed
from bench.wrk import Load, drive
from tests.running import RunningStoker, python_zip

BUSY = 32
PAUSE_MS = 100
BUSY_SOURCE = """
import time
def lambda_handler(event, context):
    until = time.process_time() + 0.02
    while time.process_time() < until:
        pass
    return event
"""
BUSY_WARM_UP_S = 8.0


def measure(options: Options) -> list[Figure]:
    """The quiet function's latency in both worlds."""
    seconds = max(10.0, options.seconds * 3)
    python = echoes()[0]
    busy = Echo("busy", python_zip(BUSY_SOURCE), python.settings, [])
    with serving() as stoker:
        create_echo(stoker, python, "quiet")
        create_echo(stoker, busy, "busy")
        alone = quiet(stoker, seconds)
        neighbour = threading.Thread(target=keep_busy, args=(stoker, seconds + BUSY_WARM_UP_S + 4))
        neighbour.start()
        time.sleep(BUSY_WARM_UP_S)
        beside = quiet(stoker, seconds)
        neighbour.join()
    return [
        Figure(
            name=f"fairness.{part}",
            value=getattr(beside, f"{part}_us") / 1000,
            unit="ms",
            n=beside.requests,
            yardstick=getattr(alone, f"{part}_us") / 1000,
            yardstick_name=f"the same function alone, n={alone.requests}",
            tolerance=None if part == "p99" else 1.0,
            goal="under 2x" if part == "p99" else "",
        )
        for part in ("p50", "p90", "p99")
    ]


def quiet(stoker: RunningStoker, seconds: float) -> Load:
    """One client that waits between its calls; the wait is no part of the latency."""
    return load(stoker, "quiet", clients=1, seconds=seconds, warm_up_s=1, pause_ms=PAUSE_MS, elsewhere=True)


def keep_busy(stoker: RunningStoker, seconds: float) -> None:
    """32 callers without a pause."""
    url, headers = signed(stoker.endpoint, "busy")
    drive(url, headers, BODY, clients=BUSY, seconds=seconds)
