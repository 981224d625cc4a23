"""What a worker counts, for /metrics. Plain numbers, written on the event loop, read by whoever likes."""

from bisect import bisect_left

from stoker.worker.outcome import EXIT_ERROR, OUT_OF_MEMORY, Outcome

INIT_BOUNDS_MS: tuple[float, ...] = (10, 20, 40, 60, 80, 100, 150, 200, 300, 500, 1000, 2000, 5000, 10_000)
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
        "crashes",
        "create_ms",
        "duration_ms",
        "function_errors",
        "init_failures",
        "init_ms",
        "invocations",
        "out_of_memory",
        "sandboxes_created",
        "sandboxes_destroyed",
        "sandboxes_lost",
        "timeouts",
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
        self.create_ms = Histogram(INIT_BOUNDS_MS)
        """From the request for a sandbox to its runtime's start."""
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
