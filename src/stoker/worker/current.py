"""The one invocation that a sandbox is busy with."""

from stoker.core.promise import Promise
from stoker.services.invocation import Invocation, InvocationResult
from stoker.worker.outcome import Outcome


class Current:
    """The invocation a sandbox is busy with."""

    __slots__ = ("answer", "init_ms", "invocation", "started_s")

    def __init__(self, invocation: Invocation) -> None:
        self.invocation = invocation
        self.answer: Promise[InvocationResult] = Promise()
        self.started_s = 0.0
        self.init_ms: float | None = None

    def finish(self, outcome: Outcome, duration_ms: float, tail: bytes | None) -> None:
        """Tell the caller, who may use the sandbox for the next invocation before this returns."""
        self.answer.succeed(
            InvocationResult(
                outcome.payload, outcome.function_error, outcome.healthy, duration_ms, self.init_ms, tail
            )
        )

    def fail(self, error: Exception) -> None:
        """Nothing was run."""
        self.answer.fail(error)
