"""The worker: a host agent that makes sandboxes, runs invocations in them and ends them."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

import msgspec

from stoker.core.errors import StokerError
from stoker.services.functions import FunctionVersion
from stoker.services.invocation import Invocation, InvocationResult
from stoker.services.placement import WorkerSnapshot


class SandboxReference(msgspec.Struct, frozen=True):
    """A token for one sandbox in one life of one worker; a worker refuses tokens of an earlier life."""

    worker_id: str
    incarnation: str
    sandbox_id: str
    epoch: int
    """Rises with every reservation: a stale holder cannot invoke a sandbox that was given to another."""


class SandboxStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One row of ``stoker ps``."""

    sandbox_id: str
    worker_id: str
    state: str
    function_arn: str
    created_at_s: float
    invocations: int
    memory_mb: int
    memory_used_bytes: int
    last_used_at_s: float
    layers: Mapping[str, str] = {}
    """What stands around it, as its driver says: guest_os, kernel, vmm_pid, jail, cgroup, seccomp."""


class WorkerUnavailable(StokerError):
    """The worker cannot make a sandbox now (no room, driver down); try another or later."""


class CodeNotHere(WorkerUnavailable):
    """The worker cannot get the function's code.

    ``outage`` says why, in words for callers; None when that is nobody's business but the operator's.
    """

    def __init__(self, message: str, outage: str | None) -> None:
        super().__init__(message)
        self.outage = outage


class RuntimeUnavailable(StokerError):
    """No sandbox of this host can run the function's runtime; the message says what to install."""


class StaleReference(StokerError):
    """The sandbox named is gone or was given to another; nothing was run."""


class InitFailed(StokerError):
    """A provisioned sandbox's Init failed or took too long, by the function's own doing; nothing is left."""


class Worker(Protocol):
    """One host's agent."""

    @property
    def worker_id(self) -> str: ...

    def snapshot(self) -> WorkerSnapshot:
        """Capacity as of now; plain, cheap, no I/O."""
        ...

    async def create(self, function: FunctionVersion, *, provisioned: bool = False) -> SandboxReference:
        """Make a sandbox for a version and start its Init phase.

        Returns as soon as an invocation may be handed to it: Init may still run, or may have failed; the
        first ``invoke`` waits for it, repeats a failed Init under the function's own timeout as Lambda does,
        and answers with the function error if that fails too. With ``provisioned``, returns when Init has
        ended; it has 130 s, or the function's time-out if that is longer.

        Raises:
            WorkerUnavailable: nothing is left of the attempt.
            RuntimeUnavailable: this host cannot run the function's runtime; the message says what to install.
            ServiceError: its environment or code cannot be decrypted, as the caller is to be told.
            InitFailed: only with ``provisioned``; nothing is left of the attempt.
        """
        ...

    def invoke(self, sandbox: SandboxReference, invocation: Invocation) -> Awaitable[InvocationResult]:
        """Run one invocation to its end: response, function error, time-out, crash or out-of-memory.

        It may begin at once; whatever goes wrong is told to whoever awaits. Cancelling the wait frees the
        caller, not the function. A ``Promise`` is told without a turn of the event loop.

        Raises:
            StaleReference: nothing was run.
            WorkerUnavailable: it could not be run, or nobody knows how it ended.
        """
        ...

    def idle(self, sandbox: SandboxReference) -> None:
        """The sandbox has no invocation for now: freeze it soon."""
        ...

    def retire(self, sandbox: SandboxReference) -> None:
        """End a sandbox: shutdown phase, then removal. Returns at once."""
        ...

    def on_sandbox_lost(self, callback: Callable[[SandboxReference], None]) -> None:
        """Call ``callback`` when a sandbox dies on its own."""
        ...

    def sandboxes(self) -> list[SandboxStatus]:
        """Every sandbox of this worker, for people."""
        ...

    async def close(self, grace_s: float) -> None:
        """Finish what runs within ``grace_s``, then destroy every sandbox."""
        ...
