"""What a worker counts, for /metrics. Plain numbers, written on the event loop, read by whoever likes."""

from bisect import bisect_left

from stoker.worker.outcome import EXIT_ERROR, OUT_OF_MEMORY, Outcome

PHASE_BOUNDS_MS: tuple[float, ...] = (
    *(0.1, 0.2, 0.5, 1, 1.5, 2, 3, 4, 5, 7, 10, 15, 20, 30, 50, 100, 500, 5000),
)
INIT_BOUNDS_MS: tuple[float, ...] = (
    *(1, 2, 3, 4, 5, 7, 10, 15, 20, 40, 60, 80, 100, 150, 200, 300, 500, 1000, 2000, 5000, 10_000),
)
DURATION_BOUNDS_MS: tuple[float, ...] = (0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000, 60_000)


class Histogram:
    """Counts by upper bound; the last one is for everything larger."""

    __slots__ = ("bounds_ms", "counts", "sum_ms")

    def __init__(self, bounds_ms: tuple[float, ...]) -> None:
        self.bounds_ms = bounds_ms
        self.counts = [0] * (len(bounds_ms) + 1)
        self.sum_ms = 0.0

    def add(self, value_ms: float) -> None:
        self.counts[bisect_left(self.bounds_ms, value_ms)] += 1
        self.sum_ms += value_ms


class WorkerStatistics:
    """Counters since the worker started."""

    __slots__ = (
        "assign_ms",
        "crashes",
        "create_ms",
        "duration_ms",
        "function_errors",
        "init_failures",
        "init_ms",
        "invocations",
        "launch_ms",
        "memory_refusals",
        "mount_ms",
        "mounts_lost",
        "out_of_memory",
        "pool_failures",
        "pool_hits",
        "pool_lost",
        "pool_memory_mb",
        "pool_misses",
        "pool_size",
        "reserve_ms",
        "sandbox_ms",
        "sandboxes_created",
        "sandboxes_destroyed",
        "sandboxes_lost",
        "timeouts",
        "zygote_failures",
        "zygote_forks",
        "zygotes",
    )

    def __init__(self) -> None:
        self.sandboxes_created = 0
        self.sandboxes_destroyed = 0
        self.sandboxes_lost = 0
        self.invocations = 0
        self.function_errors = 0
        self.init_failures = 0
        self.timeouts = 0
        self.crashes = 0
        self.out_of_memory = 0
        self.memory_refusals = 0
        self.mounts_lost = 0
        """Sandboxes ended because their image could no longer be read."""
        """Sandboxes refused because the host itself ran short of memory."""
        self.pool_hits = 0
        """Cold starts served by the pool that was wanted."""
        self.pool_misses = 0
        """Cold starts for which that pool was empty."""
        self.pool_lost = 0
        """Pooled sandboxes that died while they waited."""
        self.pool_failures = 0
        """Sandboxes that could not be made for a pool."""
        self.pool_size = 0
        self.pool_memory_mb = 0
        self.zygotes = 0
        self.zygote_forks = 0
        """Pooled runtimes that were forked; the others were launched."""
        self.zygote_failures = 0
        """Zygotes that could not be started, ended by themselves, or did not fork."""
        self.create_ms = Histogram(INIT_BOUNDS_MS)
        """From the request for a sandbox to its runtime's start: the sum of the phases up to ``init_ms``."""
        self.reserve_ms = Histogram(PHASE_BOUNDS_MS)
        """Room, code and plan."""
        self.sandbox_ms = Histogram(PHASE_BOUNDS_MS)
        """Making a sandbox, where none came from a pool."""
        self.mount_ms = Histogram(PHASE_BOUNDS_MS)
        """Putting a function's code and limits into a pooled sandbox."""
        self.assign_ms = Histogram(PHASE_BOUNDS_MS)
        """Telling a pooled runtime what it is for."""
        self.launch_ms = Histogram(PHASE_BOUNDS_MS)
        """Starting a runtime's process, where none was pooled."""
        self.init_ms = Histogram(INIT_BOUNDS_MS)
        self.duration_ms = Histogram(DURATION_BOUNDS_MS)

    def count(self, outcome: Outcome, duration_ms: float) -> None:
        """One invocation ended."""
        self.invocations += 1
        self.duration_ms.add(duration_ms)
        if outcome.function_error is None:
            return
        self.function_errors += 1
        if outcome.status == "timeout":
            self.timeouts += 1
        elif outcome.error_type == OUT_OF_MEMORY:
            self.out_of_memory += 1
        elif outcome.error_type == EXIT_ERROR:
            self.crashes += 1
