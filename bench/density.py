"""Many idle Python sandboxes at once: what each costs (PSS of its processes, and the host's memory with the
kernel's share), and how fast a frozen one answers. Beside an idle bare interpreter. Needs root for PSS.
"""

import os
import subprocess
import time

from bench.figures import Figure, Missing, Options
from bench.functions import Caller, Echo, create_many, echoes, metrics, serving
from bench.machine import descendants, memory_bytes, named, pss_bytes
from bench.percentiles import percentile
from tests.running import RunningStoker

FUNCTION_MEMORY_MB = 128
KERNEL_FIELDS = {
    "slab": "Slab",
    "kernel_stacks": "KernelStack",
    "percpu": "Percpu",
    "page_tables": "PageTables",
}
SETTLE_S = 1.5
"""Until everything idle is frozen, and what was freed is free."""
POOL_WAIT_S = 1.0
WAKE_GOAL = "under 5 ms each"


def measure(options: Options) -> list[Figure]:
    """As many functions as sandboxes, each called once, and once more when all are frozen.

    Raises:
        Missing: this is not root.
    """
    if os.geteuid() != 0:
        raise Missing("root is needed to read the memory of sandboxes")
    count = options.sandboxes
    figures: list[Figure] = []
    for zygotes in (False, True):
        with serving(sandboxes_max=count + 64, idle_timeout_s=3600, zygotes=zygotes) as stoker:
            prefix = "density.zygotes" if zygotes else "density"
            figures += filled(stoker, echoes()[0], count, prefix, from_pool=zygotes)
    return figures


def filled(stoker: RunningStoker, echo: Echo, count: int, prefix: str, *, from_pool: bool) -> list[Figure]:
    """Fill the service and look at it. ``from_pool``: each sandbox waits for a pre-warmed one."""
    names = create_many(stoker, echo, "idle", count + 1, MemorySize=FUNCTION_MEMORY_MB)
    caller = Caller(stoker)
    caller.invoke_ms(names[-1])
    time.sleep(SETTLE_S)
    before, service_before = memory_bytes(), _service_pss(stoker)
    # The pool and its zygotes are there already; what they cost is no part of each further sandbox.
    pooled = pss_bytes(_sandbox_processes(stoker))
    for name in names[:count]:
        if from_pool:
            wait_for_pool(stoker)
        caller.invoke_ms(name)
    time.sleep(SETTLE_S)
    after, service_after = memory_bytes(), _service_pss(stoker)
    sandboxes = pss_bytes(_sandbox_processes(stoker)) - pooled
    wake = [caller.invoke_ms(name) for name in names[:count]]
    warm = [caller.invoke_ms(names[0]) for _ in range(count)]
    caller.close()
    figures = _memory(prefix, before, after, sandboxes, count)
    figures.append(per_sandbox(f"{prefix}.service_pss", service_after - service_before, count))
    return figures + _waking(prefix, wake, warm)


def wait_for_pool(stoker: RunningStoker) -> None:
    """Until a pre-warmed sandbox is there, for a while at most: without one the next is simply not shared."""
    ends_s = time.monotonic() + POOL_WAIT_S
    while metrics(stoker).get("stoker_worker_pool_size", 0) < 1 and time.monotonic() < ends_s:
        time.sleep(0.005)


def _memory(
    prefix: str, before: dict[str, int], after: dict[str, int], sandboxes: int, count: int
) -> list[Figure]:
    bare = idle_interpreter_bytes()
    used = before["MemAvailable"] - after["MemAvailable"]
    figures = [
        per_sandbox(f"{prefix}.host_used", used, count, yardstick=bare, goal="under 4 MiB"),
        per_sandbox(f"{prefix}.pss", sandboxes, count, yardstick=bare),
    ]
    for label, field in KERNEL_FIELDS.items():
        figures.append(per_sandbox(f"{prefix}.{label}", after[field] - before[field], count))
    return figures


def _waking(prefix: str, wake: list[float], warm: list[float]) -> list[Figure]:
    return [
        Figure(
            name=f"{prefix}.wake.{part}",
            value=percentile(wake, percent),
            unit="ms",
            n=len(wake),
            yardstick=percentile(warm, percent),
            yardstick_name="the same of as many calls to one that was just used",
            tolerance=tolerance,
            goal=WAKE_GOAL if part == "max" else "",
        )
        for part, percent, tolerance in (("p50", 50, 0.75), ("p99", 99, None), ("max", 100, None))
    ]


def per_sandbox(
    name: str, total_bytes: int, count: int, *, yardstick: int | None = None, goal: str = ""
) -> Figure:
    """Kibibytes each."""
    return Figure(
        name=name,
        value=total_bytes / count / 1024,
        unit="KiB each",
        n=count,
        yardstick=yardstick / 1024 if yardstick else None,
        yardstick_name="PSS of an idle bare interpreter" if yardstick else "",
        goal=goal,
    )


def idle_interpreter_bytes() -> int:
    """PSS of a bare interpreter that waits."""
    program = "import sys; print(flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        [*echoes()[0].bare, "-I", "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        return pss_bytes([process.pid])
    finally:
        process.kill()
        process.wait()


def _sandbox_processes(stoker: RunningStoker) -> list[int]:
    """Everything below the jail: the sandboxes' processes, pooled ones and zygotes included."""
    assert stoker.process is not None
    jails = named(descendants(stoker.process.pid), "stoker-jail")
    return [pid for jail in jails for pid in descendants(jail)]


def _service_pss(stoker: RunningStoker) -> int:
    assert stoker.process is not None
    inside = set(_sandbox_processes(stoker))
    return pss_bytes(pid for pid in descendants(stoker.process.pid) if pid not in inside)
