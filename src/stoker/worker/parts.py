"""What every sandbox of a worker shares: ports, callbacks and settings, wired once by the application."""

from collections.abc import Callable

import msgspec

from stoker.core.clock import Clock
from stoker.sandbox.driver import SandboxDriver
from stoker.services.credentials import Credential
from stoker.services.functions import FunctionVersion
from stoker.services.images import ImageStore
from stoker.services.logs import LogStore
from stoker.worker.environment import ServeServiceApi
from stoker.worker.freezer import Freezer
from stoker.worker.pool import Pool
from stoker.worker.statistics import WorkerStatistics
from stoker.worker.tasks import Background

SessionCredentials = Callable[[FunctionVersion], Credential]
"""Temporary keys of a function's role, valid for the life of one sandbox."""


class WorkerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Capacity and policies of one worker."""

    worker_id: str
    memory_total_mb: int
    sandboxes_max: int
    memory_reserve_mb: int = 0
    """What the host keeps available, whatever was promised; 0: nobody looks."""
    cpu_policy: str = "quota"
    egress: bool = False
    pool_memory_mb: int = 0
    """What pre-warmed sandboxes of no function yet may use together; 0: there are none."""
    pool_runtimes: tuple[str, ...] = ()
    """Runtimes that are pre-warmed before their first use."""
    zygotes: bool = False
    """Pooled runtimes that can be forked are, instead of launched."""
    pool_makers: int = 1
    """Pre-warmed sandboxes in the making at one time."""


class Parts(msgspec.Struct, frozen=True):
    """Handed to every sandbox of the worker."""

    settings: WorkerSettings
    driver: SandboxDriver
    clock: Clock
    logs: LogStore
    images: ImageStore
    session_credentials: SessionCredentials
    serve_service_api: ServeServiceApi | None
    freezer: Freezer
    statistics: WorkerStatistics
    background: Background
    pool: Pool | None = None
