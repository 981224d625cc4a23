"""What every sandbox of a worker shares: ports, callbacks and settings, wired once by the application."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from stoker.core.clock import Clock
from stoker.sandbox.driver import SandboxDriver
from stoker.services.credentials import Credential
from stoker.services.functions import FunctionVersion
from stoker.services.logs import LogStore
from stoker.worker.environment import ServeServiceApi
from stoker.worker.freezer import Freezer
from stoker.worker.statistics import WorkerStatistics

SessionCredentials = Callable[[FunctionVersion], Credential]
"""Temporary keys of a function's role, valid for the life of one sandbox."""


class WorkerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Capacity and policies of one worker."""

    worker_id: str
    memory_total_mb: int
    sandboxes_max: int
    cpu_policy: str = "quota"
    egress: bool = False


class Background:
    """Tasks nobody waits for: kept until they end; what they raise reaches the loop's exception handler."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            context = {"message": "a background task of the worker failed", "exception": error, "task": task}
            task.get_loop().call_exception_handler(context)

    async def wait(self) -> None:
        """Until all have ended, those included that they start."""
        while self._tasks:
            await asyncio.wait(tuple(self._tasks))


class Parts(msgspec.Struct, frozen=True):
    """Handed to every sandbox of the worker."""

    settings: WorkerSettings
    driver: SandboxDriver
    clock: Clock
    logs: LogStore
    session_credentials: SessionCredentials
    serve_service_api: ServeServiceApi | None
    freezer: Freezer
    statistics: WorkerStatistics
    background: Background
