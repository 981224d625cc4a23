"""Every hop inside one process: plain calls with deadlines, or each message through msgpack and back.
Knows the ports, never the rooms behind them."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from stoker.services.context import RequestContext
from stoker.services.functions import FunctionKey, FunctionVersion
from stoker.services.invocation import Frontend, Invocation, InvocationResult, InvokeRequest, InvokeResponse
from stoker.services.manager import Reservation, WorkerManager
from stoker.services.placement import WorkerSnapshot
from stoker.services.worker import SandboxReference, SandboxStatus, Worker, WorkerUnavailable
from stoker.transport.messages import Messages

CREATE_DEADLINE_S = 60.0
"""A worker that has not made a sandbox by then counts as unavailable."""
INVOKE_DEADLINE_S = 1200.0
"""Longer than any invocation with its Init: a worker that is still silent is lost."""

T = TypeVar("T")


async def _within(call: Awaitable[T], deadline_s: float, what: str) -> T:
    try:
        async with asyncio.timeout(deadline_s):
            return await call
    except TimeoutError as error:
        raise WorkerUnavailable(f"the worker did not {what} within {deadline_s:g} s") from error


class LocalWorker:
    """A Worker reached by plain calls."""

    def __init__(
        self,
        worker: Worker,
        *,
        encode: bool = False,
        create_deadline_s: float = CREATE_DEADLINE_S,
        invoke_deadline_s: float = INVOKE_DEADLINE_S,
    ) -> None:
        self._worker = worker
        self._messages = Messages(encode=encode)
        self._create_deadline_s = create_deadline_s
        self._invoke_deadline_s = invoke_deadline_s

    @property
    def worker_id(self) -> str:
        return self._worker.worker_id

    def snapshot(self) -> WorkerSnapshot:
        return self._messages.carry(self._worker.snapshot(), WorkerSnapshot)

    async def create(self, function: FunctionVersion, *, provisioned: bool = False) -> SandboxReference:
        call = self._worker.create(self._messages.carry(function, FunctionVersion), provisioned=provisioned)
        deadline_s = self._invoke_deadline_s if provisioned else self._create_deadline_s
        try:
            reference = await _within(call, deadline_s, "make a sandbox")
        except Exception as error:
            raise self._messages.carry_error(error) from error
        return self._messages.carry(reference, SandboxReference)

    async def invoke(self, sandbox: SandboxReference, invocation: Invocation) -> InvocationResult:
        carry = self._messages.carry
        call = self._worker.invoke(carry(sandbox, SandboxReference), carry(invocation, Invocation))
        try:
            result = await _within(call, self._invoke_deadline_s, "answer an invocation")
        except Exception as error:
            raise self._messages.carry_error(error) from error
        return carry(result, InvocationResult)

    def idle(self, sandbox: SandboxReference) -> None:
        self._worker.idle(self._messages.carry(sandbox, SandboxReference))

    def retire(self, sandbox: SandboxReference) -> None:
        self._worker.retire(self._messages.carry(sandbox, SandboxReference))

    def on_sandbox_lost(self, callback: Callable[[SandboxReference], None]) -> None:
        carry = self._messages.carry
        self._worker.on_sandbox_lost(lambda sandbox: callback(carry(sandbox, SandboxReference)))

    def sandboxes(self) -> list[SandboxStatus]:
        return self._messages.carry(self._worker.sandboxes(), list[SandboxStatus])

    async def close(self, grace_s: float) -> None:
        await self._worker.close(grace_s)


class LocalManager:
    """A WorkerManager reached by plain calls."""

    def __init__(self, manager: WorkerManager, *, encode: bool = False) -> None:
        self._manager = manager
        self._messages = Messages(encode=encode)

    def reserve(self, function: FunctionVersion) -> Reservation | None:
        reservation = self._manager.reserve(self._messages.carry(function, FunctionVersion))
        return self._messages.carry(reservation, Reservation | None)

    async def place(self, function: FunctionVersion) -> Reservation:
        try:
            reservation = await self._manager.place(self._messages.carry(function, FunctionVersion))
        except Exception as error:
            raise self._messages.carry_error(error) from error
        return self._messages.carry(reservation, Reservation)

    def release(self, reservation: Reservation, *, healthy: bool) -> None:
        self._manager.release(self._messages.carry(reservation, Reservation), healthy=healthy)

    def versions(self, key: FunctionKey) -> frozenset[str]:
        return self._manager.versions(self._messages.carry(key, FunctionKey))

    def forget(self, key: FunctionKey, version: str, *, keep_deployment_id: str | None) -> None:
        carried = self._messages.carry(key, FunctionKey)
        self._manager.forget(carried, version, keep_deployment_id=keep_deployment_id)


class LocalFrontend:
    """A Frontend reached by plain calls."""

    def __init__(self, frontend: Frontend, *, encode: bool = False) -> None:
        self._frontend = frontend
        self._messages = Messages(encode=encode)

    async def invoke(self, context: RequestContext, request: InvokeRequest) -> InvokeResponse:
        carry = self._messages.carry
        try:
            response = await self._frontend.invoke(
                carry(context, RequestContext), carry(request, InvokeRequest)
            )
        except Exception as error:
            raise self._messages.carry_error(error) from error
        return carry(response, InvokeResponse)
