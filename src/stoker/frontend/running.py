"""Running one admitted invocation: a sandbox, the worker's answer, the sandbox given back in any case."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec
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


class Run(msgspec.Struct, eq=False):
    """One admitted invocation under way, and whoever waits for ``shape(result)``."""

    function: FunctionVersion
    invocation: Invocation
    admitted: Admitted
    caller: asyncio.Future[Any]
    shape: Callable[[InvocationResult], Any]
    reservation: Reservation | None = None

    def succeed(self, result: InvocationResult) -> None:
        """Tell the caller, if it is still there."""
        if not self.caller.done():
            self.caller.set_result(self.shape(result))

    def fail(self, error: BaseException) -> None:
        """The same for what was not run, or nobody knows how."""
        if not self.caller.done():
            self.caller.set_exception(error)


class Runner:
    """Callers may leave; what was started runs to its end and is accounted for until then.

    A warm invocation is a few plain calls before and after the worker's answer. A cold one is a task.
    """

    def __init__(self, manager: WorkerManager, workers: Mapping[str, Worker], admission: Admission) -> None:
        self._manager = manager
        self._workers = workers
        self._admission = admission
        self._loop = asyncio.get_running_loop()
        self._warm: dict[asyncio.Future[InvocationResult], Run] = {}
        self._cold: set[asyncio.Task[None]] = set()

    def run(
        self,
        function: FunctionVersion,
        invocation: Invocation,
        admitted: Admitted,
        shape: Callable[[InvocationResult], T],
    ) -> "asyncio.Future[T]":
        """Run an invocation to its end; cancelling the future leaves it running.

        The future has what ``shape`` makes of the result, or a ServiceError: it could not be run, or its
        worker fell silent. The admission ends with the invocation, never before.
        """
        run = Run(function, invocation, admitted, self._loop.create_future(), shape)
        run.reservation = self._manager.reserve(function)
        if run.reservation is None:
            self._begin_cold(run)
            return run.caller
        sandbox = run.reservation.sandbox
        answer = asyncio.ensure_future(self._workers[sandbox.worker_id].invoke(sandbox, invocation))
        self._warm[answer] = run
        answer.add_done_callback(self._answered)
        return run.caller

    def _answered(self, answer: "asyncio.Future[InvocationResult]") -> None:
        """The end of a warm invocation."""
        run = self._warm.pop(answer)
        assert run.reservation is not None
        error = _WORKER_LOST if answer.cancelled() else answer.exception()
        if error is None:
            result = answer.result()
            self._manager.release(run.reservation, healthy=result.healthy)
            self._admission.leave(run.admitted)
            run.succeed(result)
            return
        self._manager.release(run.reservation, healthy=False)
        if isinstance(error, StaleReference):
            # Others of the same worker are likely gone too: rather a new sandbox than trying them all.
            self._begin_cold(run)
            return
        self._admission.leave(run.admitted)
        run.fail(_service_error(error))

    def in_background(self) -> int:
        """Invocations that are cold, or whose caller has left."""
        return len(self._cold) + sum(run.caller.cancelled() for run in self._warm.values())

    async def close(self, grace_s: float) -> None:
        """Wait for what runs, ``grace_s`` at most; what is left is the workers' to end."""
        running: set[asyncio.Future[Any]] = {*self._cold, *self._warm}
        if not running:
            return
        _, late = await asyncio.wait(running, timeout=grace_s)
        for each in late:
            each.cancel()
        if late:
            await asyncio.wait(late)

    def _begin_cold(self, run: Run) -> None:
        task = self._loop.create_task(self._run_cold(run))
        self._cold.add(task)
        task.add_done_callback(self._cold.discard)

    async def _run_cold(self, run: Run) -> None:
        try:
            result = await self._place_and_invoke(run.function, run.invocation)
        except BaseException as error:
            self._admission.leave(run.admitted)
            run.fail(_service_error(error))
            if not isinstance(error, Exception):
                raise
        else:
            self._admission.leave(run.admitted)
            run.succeed(result)

    async def _place_and_invoke(self, function: FunctionVersion, invocation: Invocation) -> InvocationResult:
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


_WORKER_LOST = WorkerUnavailable("the service is shutting down")


def _service_error(error: BaseException) -> BaseException:
    """What a caller is told."""
    if isinstance(error, RuntimeUnavailable):
        return ServiceError("InvalidRuntimeException", str(error))
    if isinstance(error, WorkerUnavailable):
        return ServiceError("ServiceException", str(error))
    if isinstance(error, asyncio.CancelledError):
        return ServiceError("ServiceException", str(_WORKER_LOST))
    if not isinstance(error, ServiceError):
        _log.error("an invocation failed for a reason of Stoker's own", reason=repr(error))
    return error
