"""What egress costs: sandboxes created and removed a second, loopback only against with links, in one run.

The two kinds take turns, so that a busy moment of the host meets both. In a network namespace of its own.
Needs root and, for the machine's CPU time, an idle machine.
Run: python -m bench.egress [count]
"""

import asyncio
import os
import socket
import statistics
import sys
import time
from pathlib import Path

import msgspec
import uvloop

from stoker.sandbox.container import ContainerDriver
from tests.integration.native.egress_world import ip
from tests.integration.native.jailparts import CLONE_NEWNET, unshare
from tests.integration.sandbox.running_jail import RunningJail, create, missing

COUNT = 200
TURNS = 4
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
DRAIN_WITHIN_S = 30.0


class Turn(msgspec.Struct, frozen=True):
    """One series of creations and removals."""

    creating_s: list[float]
    removing_s: list[float]
    elapsed_s: float
    jail_cpu_s: float
    machine_cpu_s: float
    """Of all processes and the kernel's workers, the bench's own included."""
    draining_s: float
    """From the last removal until the kernel had dropped the last link."""


def main() -> None:
    """Measure and print."""
    if missing():
        sys.exit(missing())
    count = int(sys.argv[1]) if len(sys.argv) > 1 else COUNT
    unshare(CLONE_NEWNET)
    ip("link", "set", "lo", "up")
    jail = RunningJail("--egress-range", "169.254.64.0/18")
    jail.start()
    try:
        uvloop.run(_measure(jail, count))
    finally:
        jail.stop()


async def _measure(jail: RunningJail, count: int) -> None:
    driver = await jail.driver()
    assert jail.process
    for at_once in (1, 8):
        turns: dict[bool, list[Turn]] = {False: [], True: []}
        await _turn(driver, jail.process.pid, True, at_once, 10)
        for number in range(TURNS * 2):
            egress = bool(number % 2)
            turns[egress].append(await _turn(driver, jail.process.pid, egress, at_once, count // TURNS))
        for egress, done in turns.items():
            _show(f"{at_once} at a time, {'with links' if egress else 'loopback only'}", done)
    await driver.close()


async def _turn(driver: ContainerDriver, jail: int, egress: bool, at_once: int, count: int) -> Turn:
    gate = asyncio.Semaphore(at_once)
    creating: list[float] = []
    removing: list[float] = []

    async def one() -> None:
        async with gate:
            began = time.perf_counter()
            sandbox = await create(driver, egress=egress)
            creating.append(time.perf_counter() - began)
            began = time.perf_counter()
            await sandbox.destroy()
            removing.append(time.perf_counter() - began)

    links = _links()
    jail_cpu, machine_cpu, began = _cpu_s(jail), _machine_cpu_s(), time.perf_counter()
    await asyncio.gather(*(one() for _ in range(count)))
    ended = time.perf_counter()
    await _drained(links)
    drained = time.perf_counter()
    return Turn(
        creating,
        removing,
        ended - began,
        _cpu_s(jail) - jail_cpu,
        _machine_cpu_s() - machine_cpu,
        drained - ended,
    )


async def _drained(links: int) -> None:
    deadline = time.perf_counter() + DRAIN_WITHIN_S
    while _links() > links and time.perf_counter() < deadline:
        await asyncio.sleep(0.005)


def _show(name: str, turns: list[Turn]) -> None:
    creating = sorted(one for turn in turns for one in turn.creating_s)
    removing = sorted(one for turn in turns for one in turn.removing_s)
    count = len(creating)
    rate = count / sum(turn.elapsed_s for turn in turns)
    jail_ms = sum(turn.jail_cpu_s for turn in turns) / count * 1e3
    machine_ms = sum(turn.machine_cpu_s for turn in turns) / count * 1e3
    draining_ms = max(turn.draining_s for turn in turns) * 1e3
    print(f"{name:30} {rate:6.0f} /s   n={count}")
    for what, ordered in (("create", creating), ("remove", removing)):
        low, high = ordered[count // 20], ordered[-1 - count // 20]
        print(f"    {what:8} {statistics.median(ordered) * 1e3:7.2f} ms [{low * 1e3:.2f}, {high * 1e3:.2f}]")
    print(
        f"    CPU a sandbox: jail {jail_ms:.2f} ms, machine {machine_ms:.2f} ms; links gone {draining_ms:.0f} ms after"
    )


def _links() -> int:
    return sum(name.startswith("stk") for _, name in socket.if_nameindex())


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def _machine_cpu_s() -> float:
    """Busy time: user, nice, system, interrupts."""
    fields = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:8]]
    return (fields[0] + fields[1] + fields[2] + fields[5] + fields[6]) / TICKS_PER_S


if __name__ == "__main__":
    main()
