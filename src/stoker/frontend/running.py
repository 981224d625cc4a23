"""Running one admitted invocation: a sandbox, the worker's answer, the sandbox given back in any case."""

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

import structlog

from stoker.core.errors import ServiceError
from stoker.frontend.admission import Admission, Admitted
from stoker.services.functions import FunctionVersion
from stoker.services.invocation import Invocation, InvocationResult
from stoker.services.manager import Reservation, WorkerManager
from stoker.services.worker import RuntimeUnavailable, StaleReference, Worker, WorkerUnavailable

STALE_MAX = 3
"""New sandboxes that may be gone before their first invocation, before the caller is told."""

T = TypeVar("T")

_log = structlog.get_logger("stoker.frontend")


class Runner:
    """Callers may leave; what was started runs to its end and is accounted for until then.

    A warm invocation runs in its caller's task, and in a task of its own only once the caller has left. A
    cold one has its own task from the start.
    """

    def __init__(self, manager: WorkerManager, workers: Mapping[str, Worker], admission: Admission) -> None:
        self._manager = manager
        self._workers = workers
        self._admission = admission
        self._tasks: set[asyncio.Task[Any]] = set()

    async def run(
        self, function: FunctionVersion, invocation: Invocation, admitted: Admitted
    ) -> InvocationResult:
        """Run an invocation to its end; cancelling the call leaves it running.

        The admission ends with the invocation, never before.

        Raises:
            ServiceError: it could not be run, or its worker fell silent.
        """
        reservation = self._manager.reserve(function)
        if reservation is None:
            return await self._detached(self._run_cold(function, invocation, admitted))
        sandbox = reservation.sandbox
        try:
            result = await self._workers[sandbox.worker_id].invoke(sandbox, invocation)
        except asyncio.CancelledError:
            self._spawn(self._finish(reservation, admitted))
            raise
        except StaleReference:
            # Others of the same worker are likely gone too: rather a new sandbox than trying them all.
            self._manager.release(reservation, healthy=False)
            return await self._detached(self._run_cold(function, invocation, admitted))
        except BaseException as error:
            self._manager.release(reservation, healthy=False)
            self._admission.leave(admitted)
            if isinstance(error, RuntimeUnavailable | WorkerUnavailable):
                raise _service_error(error) from error
            raise
        self._manager.release(reservation, healthy=result.healthy)
        self._admission.leave(admitted)
        return result

    def in_background(self) -> int:
        """Invocations that are cold, or whose caller has left."""
        return len(self._tasks)

    async def close(self, grace_s: float) -> None:
        """Wait for what runs in the background, ``grace_s`` at most; what is left is the workers' to end."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=grace_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _run_cold(
        self, function: FunctionVersion, invocation: Invocation, admitted: Admitted
    ) -> InvocationResult:
        try:
            for _ in range(STALE_MAX):
                reservation = await self._manager.place(function)
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
        except (RuntimeUnavailable, WorkerUnavailable) as error:
            raise _service_error(error) from error
        finally:
            self._admission.leave(admitted)

    async def _finish(self, reservation: Reservation, admitted: Admitted) -> None:
        """Wait for an invocation whose caller has left."""
        healthy = False
        try:
            sandbox = reservation.sandbox
            healthy = (await self._workers[sandbox.worker_id].outcome(sandbox)).healthy
        except StaleReference:
            # It ended in the very turn its caller left, and how is lost: the sandbox goes, to be safe.
            return
        finally:
            self._manager.release(reservation, healthy=healthy)
            self._admission.leave(admitted)

    async def _detached(self, work: Coroutine[Any, Any, T]) -> T:
        """Await work that goes on when the caller is cancelled."""
        return await asyncio.shield(self._spawn(work))

    def _spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, ServiceError):
            _log.error("an invocation failed for a reason of Stoker's own", reason=repr(error))


def _service_error(error: RuntimeUnavailable | WorkerUnavailable) -> ServiceError:
    """What a caller is told."""
    missing_runtime = isinstance(error, RuntimeUnavailable)
    return ServiceError("InvalidRuntimeException" if missing_runtime else "ServiceException", str(error))
