"""What of a failure callers may be told: that the service's disk is full, or its object store away."""

from typing import Final

from stoker.core.disk import DiskFull, disk_full
from stoker.services.object_store import ObjectStoreUnavailable

_CAUSES_MAX: Final = 16


def outage(problem: BaseException) -> str | None:
    """The outage behind an error, in words that name no paths and hosts; None: it is something else."""
    cause: BaseException | None = problem
    for _ in range(_CAUSES_MAX):
        if isinstance(cause, DiskFull):
            return cause.why
        if isinstance(cause, OSError) and (full := disk_full(cause.errno)) is not None:
            return full.why
        if isinstance(cause, ObjectStoreUnavailable):
            return "the object store of the service does not answer"
        if cause is None:
            return None
        cause = cause.__cause__
    return None
