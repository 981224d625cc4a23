"""From the start of ``stoker up`` until it is ready, on a new data folder and on one it has seen; beside the bare
interpreter, and with what loading the service's modules and the command's takes of it.
"""

import subprocess
import sys
from pathlib import Path

from bench.figures import Figure, Options
from bench.functions import timed_ms
from bench.percentiles import median
from tests.running import RunningStoker

STARTS = 7
BARE = "pass"
"""The yardstick: an interpreter with nothing to do."""
LOADS = {"service": "import stoker.app.service", "command": "import stoker.cli.main"}


def measure(options: Options) -> list[Figure]:
    """Everything in turns, so that other work on this machine meets all of it alike."""
    samples: dict[str, list[float]] = {name: [] for name in ("bare", "new", "again", *LOADS)}
    for _ in range(STARTS):
        samples["bare"].append(python_ms(BARE))
        for name, code in LOADS.items():
            samples[name].append(python_ms(code))
        for name, taken_ms in zip(("new", "again"), starts_ms(), strict=True):
            samples[name].append(taken_ms)
    bare_ms = median(samples.pop("bare"))
    return [
        Figure(
            name=f"startup.{name}",
            value=median(taken_ms),
            unit="ms",
            n=len(taken_ms),
            yardstick=bare_ms,
            yardstick_name="bare interpreter",
        )
        for name, taken_ms in samples.items()
    ]


def python_ms(code: str) -> float:
    """A process of this interpreter that runs ``code``."""
    command = [sys.executable, "-c", code]
    return timed_ms(lambda: subprocess.run(command, check=True, cwd=Path(__file__).parents[1]))


def starts_ms() -> tuple[float, float]:
    """(on a new data folder, on the same one again); ready is looked for every 50 ms."""
    stoker = RunningStoker()
    try:
        first_ms = timed_ms(stoker.start)
        stoker.stop()
        return first_ms, timed_ms(stoker.start)
    finally:
        stoker.remove()
