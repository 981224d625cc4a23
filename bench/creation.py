"""How long a sandbox takes and how many a second can be made and removed, driver and jail alone, with and without
egress; beside the spawn of /bin/true. Needs root.
"""

import asyncio
import os
import subprocess
import time

import uvloop

from bench.figures import Figure, Missing, Options
from bench.functions import timed_ms
from bench.percentiles import median
from stoker.sandbox.container import ContainerDriver
from stoker.sandbox.driver import Launch
from tests.integration.sandbox.running_jail import ENVIRONMENT, RunningJail, create, missing

WARM_UP = 5
AT_ONCE = 8
STEPS = ("created", "launched", "first_byte", "removed")
EGRESS_RANGE = "169.254.64.0/18"
GOALS = {"loopback": "over 250/s", "egress": "over 150/s"}


def measure(options: Options) -> list[Figure]:
    """A jail of its own, which ends with the measurement.

    Raises:
        Missing: this is not root, or the native programs are not built.
    """
    if missing():
        raise Missing(missing())
    jail = RunningJail("--egress-range", EGRESS_RANGE)
    jail.start()
    try:
        measured = uvloop.run(_all(jail, options.creations))
    finally:
        jail.stop()
    spawn = [timed_ms(lambda: subprocess.run(["/bin/true"], check=True)) for _ in range(options.creations)]
    return [figure for mode, (steps, rate) in measured.items() for figure in rows(mode, steps, rate, spawn)]


def rows(mode: str, steps: dict[str, list[float]], rate: list[float], spawn: list[float]) -> list[Figure]:
    """Medians by step and the rate."""
    figures = [
        Figure(
            name=f"creation.{mode}.{step}",
            value=median(times),
            unit="ms",
            n=len(times),
            yardstick=median(spawn),
            yardstick_name="spawn of /bin/true",
        )
        for step, times in steps.items()
    ]
    figures.append(
        Figure(
            name=f"creation.{mode}.rate",
            value=median(rate),
            unit="1/s",
            n=len(rate),
            yardstick=1000 / median(spawn),
            yardstick_name="spawns of /bin/true, one by one",
            higher_is_better=True,
            goal=GOALS[mode],
        )
    )
    return figures


async def _all(jail: RunningJail, count: int) -> dict[str, tuple[dict[str, list[float]], list[float]]]:
    driver = await jail.driver()
    measured: dict[str, tuple[dict[str, list[float]], list[float]]] = {}
    for mode, egress in (("loopback", False), ("egress", True)):
        for _ in range(WARM_UP):
            await one(driver, egress)
        times = [await one(driver, egress) for _ in range(count)]
        steps = dict(zip(STEPS, map(list, zip(*times, strict=True)), strict=True))
        measured[mode] = steps, [await rate(driver, count * 2, egress) for _ in range(3)]
    await driver.close()
    return measured


async def one(driver: ContainerDriver, egress: bool) -> tuple[float, float, float, float]:
    """Milliseconds until created, until launched, until the first byte, and for removal."""
    loop = asyncio.get_running_loop()
    first: asyncio.Future[bytes] = loop.create_future()
    began = time.perf_counter()
    sandbox = await create(driver, egress=egress)
    created = time.perf_counter()

    def arrived() -> None:
        loop.remove_reader(sandbox.output)
        first.set_result(os.read(sandbox.output, 16))

    loop.add_reader(sandbox.output, arrived)
    await sandbox.launch(Launch(("/bin/echo", "ready"), ENVIRONMENT, "/tmp"))
    launched = time.perf_counter()
    assert await first == b"ready\n"
    printed = time.perf_counter()
    await sandbox.wait()
    ended = time.perf_counter()
    await sandbox.destroy()
    spans = (created - began, launched - began, printed - began, time.perf_counter() - ended)
    return spans[0] * 1e3, spans[1] * 1e3, spans[2] * 1e3, spans[3] * 1e3


async def rate(driver: ContainerDriver, count: int, egress: bool) -> float:
    """Sandboxes a second, made and removed, eight at a time."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def make() -> None:
        async with gate:
            await (await create(driver, egress=egress)).destroy()

    began = time.perf_counter()
    await asyncio.gather(*(make() for _ in range(count)))
    return count / (time.perf_counter() - began)
