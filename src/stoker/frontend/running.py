"""Running one admitted invocation: a sandbox, the worker's answer, the sandbox given back in any case."""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

import msgspec
import structlog

from stoker.core.errors import ServiceError
from stoker.core.promise import Promise, promise_of
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
    caller: Promise[Any]
    shape: Callable[[InvocationResult], Any]
    reservation: Reservation | None = None
    awaited: Promise[Any] | None = None
    """What it waits for: a sandbox, or the worker's answer."""
    placed: int = 0
    """How often a sandbox was asked for because none was idle, or the one there was had gone."""


class Runner:
    """Callers may leave; what was started runs to its end and is accounted for until then.

    No step is a task: each begins in the turn of the event loop in which what it waited for was told.
    """

    def __init__(self, manager: WorkerManager, workers: Mapping[str, Worker], admission: Admission) -> None:
        self._manager = manager
        self._workers = workers
        self._admission = admission
        self._runs: set[Run] = set()
        self._emptied: asyncio.Future[None] | None = None

    def run(
        self,
        function: FunctionVersion,
        invocation: Invocation,
        admitted: Admitted,
        shape: Callable[[InvocationResult], T],
    ) -> Promise[T]:
        """Run an invocation to its end; cancelling the answer leaves it running.

        The answer is what ``shape`` makes of the result, or a ServiceError: it could not be run, or its
        worker fell silent. The admission ends with the invocation, never before.
        """
        caller: Promise[T] = Promise()
        run = Run(function, invocation, admitted, caller, shape)
        run.reservation = self._manager.reserve(function)
        self._runs.add(run)
        if run.reservation is not None:
            self._invoke(run, run.reservation)
        else:
            self._place(run)
        return caller

    def _place(self, run: Run) -> None:
        run.placed += 1
        placed = promise_of(self._manager.place(run.function))
        run.awaited = placed
        placed.when_done(partial(self._placed, run))

    def _placed(self, run: Run, placed: Promise[Reservation]) -> None:
        if placed.error is not None:
            self._fail(run, placed.error)
            return
        run.reservation = placed.result()
        self._invoke(run, run.reservation)

    def _invoke(self, run: Run, reservation: Reservation) -> None:
        sandbox = reservation.sandbox
        answer = promise_of(self._workers[sandbox.worker_id].invoke(sandbox, run.invocation))
        run.awaited = answer
        answer.when_done(partial(self._answered, run, reservation))

    def _answered(self, run: Run, reservation: Reservation, answer: Promise[InvocationResult]) -> None:
        error = answer.error
        if error is None:
            result = answer.result()
            self._manager.release(reservation, healthy=result.healthy)
            self._end(run)
            if not run.caller.done:
                run.caller.succeed(run.shape(result))
            return
        self._manager.release(reservation, healthy=False)
        if not isinstance(error, StaleReference):
            self._fail(run, error)
        elif run.placed < STALE_MAX:
            # Others of the same worker are likely gone too: rather a new sandbox than trying them all.
            self._place(run)
        else:
            self._fail(run, _too_stale())

    def _fail(self, run: Run, error: BaseException) -> None:
        self._end(run)
        run.caller.fail(_service_error(error))

    def _end(self, run: Run) -> None:
        self._admission.leave(run.admitted)
        self._runs.discard(run)
        if self._emptied is not None and not self._runs and not self._emptied.done():
            self._emptied.set_result(None)

    def in_background(self) -> int:
        """Invocations that are cold, or whose caller has left."""
        return sum(run.placed > 0 or run.caller.cancelled for run in self._runs)

    async def close(self, grace_s: float) -> None:
        """Wait for what runs, ``grace_s`` at most; what is left is the workers' to end."""
        if not self._runs:
            return
        self._emptied = asyncio.get_running_loop().create_future()
        await asyncio.wait((self._emptied,), timeout=grace_s)
        for run in tuple(self._runs):
            if run.awaited is not None:
                run.awaited.cancel()
        await self._emptied


def _too_stale() -> ServiceError:
    return ServiceError("ServiceException", "New execution environments end before they can be used.")


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
