"""Dense packing: the fullest worker that still has room gets the next sandbox. No clock, no chance."""

from stoker.services.placement import PlacementRequest, WorkerSnapshot

SAME_FUNCTION_WEIGHT = 0.02
"""How much of a worker's fill one sandbox of the asking function outweighs: mixes workloads, mildly."""
HEADROOM = 0.05
"""Share of a worker's memory that is used only when no worker has room without it."""


def has_room(worker: WorkerSnapshot, request: PlacementRequest, *, headroom: float = 0.0) -> bool:
    """Whether the worker could take the sandbox now and keep ``headroom`` of its memory free."""
    usable_mb = worker.memory_total_mb * (1.0 - headroom)
    return (
        not worker.draining
        and worker.sandboxes < worker.sandboxes_max
        and worker.memory_reserved_mb + request.memory_mb <= usable_mb
    )


def preference(worker: WorkerSnapshot, request: PlacementRequest) -> float:
    """How much a worker is wanted: its fill after the placement, less for sandboxes of the same function."""
    memory_fill = (worker.memory_reserved_mb + request.memory_mb) / max(1, worker.memory_total_mb)
    count_fill = (worker.sandboxes + 1) / max(1, worker.sandboxes_max)
    return max(memory_fill, count_fill) - SAME_FUNCTION_WEIGHT * worker.same_function


class DensePacking:
    """Load is kept on the fewest workers, so that the others can be emptied; ties go to the lowest id."""

    def choose(self, workers: tuple[WorkerSnapshot, ...], request: PlacementRequest) -> str | None:
        """The worker to use: the fullest with headroom, else the emptiest that has room at all, else None."""
        roomy = [worker for worker in workers if has_room(worker, request, headroom=HEADROOM)]
        if roomy:
            best = min(roomy, key=lambda worker: (-preference(worker, request), worker.worker_id))
            return best.worker_id
        tight = [worker for worker in workers if has_room(worker, request)]
        if tight:
            best = min(tight, key=lambda worker: (preference(worker, request), worker.worker_id))
            return best.worker_id
        return None
