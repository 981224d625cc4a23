"""Choosing a worker for a new sandbox: a snapshot and a request in, a decision out."""

from typing import Protocol

import msgspec


class WorkerSnapshot(msgspec.Struct, frozen=True):
    """What is known of a worker when a sandbox is to be placed."""

    worker_id: str
    memory_total_mb: int
    memory_reserved_mb: int
    sandboxes: int
    sandboxes_max: int
    draining: bool = False
    same_function: int = 0
    """Sandboxes of the asking function it has already."""


class PlacementRequest(msgspec.Struct, frozen=True):
    """The sandbox that is wanted."""

    memory_mb: int
    architecture: str


class Placement(Protocol):
    """A policy. No clock, no randomness, no I/O: equal snapshots give equal decisions."""

    def choose(self, workers: tuple[WorkerSnapshot, ...], request: PlacementRequest) -> str | None:
        """The worker_id to use, or None when no worker has room."""
        ...
