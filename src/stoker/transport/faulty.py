"""A hop that misbehaves on command, for simulations: it fails, delays and duplicates what crosses it."""

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable

import msgspec

from stoker.services.functions import FunctionVersion
from stoker.services.invocation import Invocation, InvocationResult
from stoker.services.placement import WorkerSnapshot
from stoker.services.worker import SandboxReference, SandboxStatus, Worker


class Fault(msgspec.Struct, frozen=True):
    """What happens to one call: a delay, then an error, or the call and maybe once more."""

    delay_s: float = 0.0
    error: Exception | None = None
    """Raised instead of the call: the message was lost on its way there."""
    error_after: Exception | None = None
    """Raised after the call: the answer was lost on its way back."""
    duplicate: bool = False
    """The call is made a second time; the second answer is dropped."""


_NO_FAULT = Fault()


class Faults:
    """The faults to come, per operation, in order; once they are used up all is well."""

    def __init__(self) -> None:
        self._coming: defaultdict[str, deque[Fault]] = defaultdict(deque)

    def add(self, operation: str, fault: Fault, times: int = 1) -> None:
        """Let the next ``times`` calls of an operation suffer a fault, after those added before."""
        self._coming[operation].extend([fault] * times)

    def next(self, operation: str) -> Fault:
        """The fault of this call."""
        coming = self._coming.get(operation)
        return coming.popleft() if coming else _NO_FAULT


class FaultyWorker:
    """A Worker behind a bad line. ``create`` cannot be duplicated: it has no token to know it by."""

    def __init__(self, worker: Worker, faults: Faults) -> None:
        self._worker = worker
        self._faults = faults

    @property
    def worker_id(self) -> str:
        return self._worker.worker_id

    def snapshot(self) -> WorkerSnapshot:
        return self._worker.snapshot()

    async def create(self, function: FunctionVersion, *, provisioned: bool = False) -> SandboxReference:
        fault = await self._before("create")
        if fault.duplicate:
            raise ValueError("create cannot be duplicated")
        reference = await self._worker.create(function, provisioned=provisioned)
        if fault.error_after is not None:
            raise fault.error_after
        return reference

    async def invoke(self, sandbox: SandboxReference, invocation: Invocation) -> InvocationResult:
        fault = await self._before("invoke")
        if fault.duplicate:
            first, _ = await asyncio.gather(
                self._worker.invoke(sandbox, invocation),
                self._worker.invoke(sandbox, invocation),
                return_exceptions=True,
            )
            if isinstance(first, BaseException):
                raise first
            result = first
        else:
            result = await self._worker.invoke(sandbox, invocation)
        if fault.error_after is not None:
            raise fault.error_after
        return result

    def idle(self, sandbox: SandboxReference) -> None:
        self._send("idle", sandbox, self._worker.idle)

    def retire(self, sandbox: SandboxReference) -> None:
        self._send("retire", sandbox, self._worker.retire)

    def on_sandbox_lost(self, callback: Callable[[SandboxReference], None]) -> None:
        self._worker.on_sandbox_lost(callback)

    def sandboxes(self) -> list[SandboxStatus]:
        return self._worker.sandboxes()

    async def close(self, grace_s: float) -> None:
        await self._worker.close(grace_s)

    async def _before(self, operation: str) -> Fault:
        fault = self._faults.next(operation)
        if fault.delay_s:
            await asyncio.sleep(fault.delay_s)
        if fault.error is not None:
            raise fault.error
        return fault

    def _send(
        self, operation: str, sandbox: SandboxReference, call: Callable[[SandboxReference], None]
    ) -> None:
        """A message without an answer: an error only loses it."""
        fault = self._faults.next(operation)
        if fault.error is not None:
            return
        if fault.delay_s:
            asyncio.get_running_loop().call_later(fault.delay_s, call, sandbox)
        else:
            call(sandbox)
        if fault.duplicate:
            call(sandbox)
