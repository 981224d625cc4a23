"""The one invocation that a sandbox is busy with."""

import asyncio

from stoker.services.invocation import Invocation, InvocationResult
from stoker.worker.outcome import Outcome


class Current:
    """The invocation a sandbox is busy with."""

    __slots__ = ("future", "init_ms", "invocation", "started_s")

    def __init__(self, invocation: Invocation, future: asyncio.Future[InvocationResult]) -> None:
        self.invocation = invocation
        self.future = future
        self.started_s = 0.0
        self.init_ms: float | None = None

    def finish(self, outcome: Outcome, duration_ms: float, tail: bytes | None) -> None:
        """Tell the caller, if it is still there."""
        if not self.future.done():
            result = InvocationResult(
                outcome.payload, outcome.function_error, outcome.healthy, duration_ms, self.init_ms, tail
            )
            self.future.set_result(result)

    def fail(self, error: Exception) -> None:
        """Nothing was run."""
        if not self.future.done():
            self.future.set_exception(error)
