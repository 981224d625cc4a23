"""Running one admitted invocation: a sandbox, the worker's answer, the sandbox given back in any case."""

import asyncio
from collections.abc import Mapping

import structlog

from stoker.core.errors import ServiceError
from stoker.frontend.admission import Admission, Admitted
from stoker.services.functions import FunctionVersion
from stoker.services.invocation import Invocation, InvocationResult
from stoker.services.manager import WorkerManager
from stoker.services.worker import RuntimeUnavailable, StaleReference, Worker

STALE_WARM_MAX = 2
"""Idle sandboxes that may turn out to be gone before a new one is made."""
STALE_COLD_MAX = 2
"""New sandboxes that may be gone before their first invocation, before the caller is told."""

_log = structlog.get_logger("stoker.frontend")


class Runner:
    """Callers may leave; what was started runs to its end and is accounted for until then."""

    def __init__(self, manager: WorkerManager, workers: Mapping[str, Worker], admission: Admission) -> None:
        self._manager = manager
        self._workers = workers
        self._admission = admission
        self._abandoned: set[asyncio.Task[InvocationResult]] = set()

    async def run(
        self, function: FunctionVersion, invocation: Invocation, admitted: Admitted
    ) -> InvocationResult:
        """Run an invocation to its end; cancelling the call leaves it running.

        The admission ends with the invocation, never before.

        Raises:
            ServiceError: it could not be run; nothing of it ran.
        """
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._execute(function, invocation, admitted))
        # A future of our own instead of asyncio.shield: the same, at two thirds of the cost.
        ended: asyncio.Future[None] = loop.create_future()

        def wake(_: asyncio.Task[InvocationResult]) -> None:
            if not ended.done():
                ended.set_result(None)

        task.add_done_callback(wake)
        try:
            await ended
        except asyncio.CancelledError:
            self._abandon(task)
            raise
        return task.result()

    def abandoned(self) -> int:
        """Invocations that run on without a caller."""
        return len(self._abandoned)

    async def close(self, grace_s: float) -> None:
        """Wait for the invocations without a caller, ``grace_s`` at most."""
        if self._abandoned:
            await asyncio.wait(self._abandoned, timeout=grace_s)

    async def _execute(
        self, function: FunctionVersion, invocation: Invocation, admitted: Admitted
    ) -> InvocationResult:
        try:
            for _ in range(STALE_WARM_MAX):
                reservation = self._manager.reserve(function)
                if reservation is None:
                    break
                healthy = False
                try:
                    worker = self._workers[reservation.sandbox.worker_id]
                    result = await worker.invoke(reservation.sandbox, invocation)
                    healthy = result.healthy
                    return result
                except StaleReference:
                    continue
                finally:
                    self._manager.release(reservation, healthy=healthy)
            return await self._execute_cold(function, invocation)
        finally:
            self._admission.leave(admitted)

    async def _execute_cold(self, function: FunctionVersion, invocation: Invocation) -> InvocationResult:
        for _ in range(STALE_COLD_MAX):
            try:
                reservation = await self._manager.place(function)
            except RuntimeUnavailable as error:
                raise ServiceError("InvalidRuntimeException", str(error)) from error
            healthy = False
            try:
                worker = self._workers[reservation.sandbox.worker_id]
                result = await worker.invoke(reservation.sandbox, invocation)
                healthy = result.healthy
                return result
            except StaleReference:
                continue
            finally:
                self._manager.release(reservation, healthy=healthy)
        raise ServiceError("ServiceException", "New execution environments end before they can be used.")

    def _abandon(self, task: asyncio.Task[InvocationResult]) -> None:
        self._abandoned.add(task)
        task.add_done_callback(self._settle_abandoned)

    def _settle_abandoned(self, task: asyncio.Task[InvocationResult]) -> None:
        self._abandoned.discard(task)
        if not task.cancelled():
            error = task.exception()
            if error is not None:
                _log.warning("an invocation without a caller failed", reason=repr(error))
