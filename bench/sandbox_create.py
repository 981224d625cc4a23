"""How long a sandbox takes: create, launch, first byte, removal; beside the spawn of /bin/true in the same run.

Needs root. Run: python -m bench.sandbox_create [count]
"""

import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

import uvloop

from stoker.sandbox.container import ContainerDriver
from stoker.sandbox.driver import Launch
from tests.integration.sandbox.running_jail import ENVIRONMENT, RunningJail, create, missing

COUNT = 100
WARM_UP = 5


async def one(driver: ContainerDriver, egress: bool) -> tuple[float, float, float, float]:
    """Seconds until created, until launched, until the first byte, and for removal."""
    loop = asyncio.get_running_loop()
    first = loop.create_future()
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
    return created - began, launched - began, printed - began, time.perf_counter() - ended


def show(name: str, seconds: Sequence[float]) -> None:
    ordered = sorted(seconds)
    low, high = ordered[len(ordered) // 20], ordered[-1 - len(ordered) // 20]
    median = statistics.median(ordered)
    print(f"{name:34} {median * 1e3:7.2f} ms [{low * 1e3:.2f}, {high * 1e3:.2f}]  n={len(ordered)}")


def spawn_true() -> float:
    began = time.perf_counter()
    subprocess.run(["/bin/true"], check=True)
    return time.perf_counter() - began


async def rate(driver: ContainerDriver, count: int) -> float:
    """Sandboxes a second, created and removed eight at a time."""
    gate = asyncio.Semaphore(8)

    async def make() -> None:
        async with gate:
            await (await create(driver)).destroy()

    began = time.perf_counter()
    await asyncio.gather(*(make() for _ in range(count)))
    return count / (time.perf_counter() - began)


async def measure(socket_owner: RunningJail, count: int) -> None:
    driver = await socket_owner.driver()
    for egress in (False, True):
        for _ in range(WARM_UP):
            await one(driver, egress)
        figures = [await one(driver, egress) for _ in range(count)]
        label = "with egress" if egress else "loopback only"
        for name, values in zip(
            ("created", "launched", "first byte", "removed"), zip(*figures, strict=True), strict=True
        ):
            show(f"{label}: {name}", values)
    print(f"{'created and removed, 8 at a time':34} {await rate(driver, count):7.0f} /s")
    await driver.close()


def main() -> None:
    if missing():
        sys.exit(missing())
    count = int(sys.argv[-1]) if sys.argv[-1].isdigit() else COUNT
    jail = RunningJail("--egress-range", "169.254.64.0/18")
    jail.start()
    try:
        uvloop.run(measure(jail, count))
    finally:
        jail.stop()
    show("spawn of /bin/true", [spawn_true() for _ in range(count)])


if __name__ == "__main__":
    main()
