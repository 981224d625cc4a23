"""A world for simulations: real front end, manager, pool and placement over a worker that only pretends."""

import asyncio
from collections.abc import Callable
from random import Random

import msgspec

from stoker.core.arn import parse_function_reference
from stoker.frontend.admission import Admission
from stoker.frontend.authorisation import AccountAuthoriser
from stoker.frontend.invoke import InvokeFrontend
from stoker.manager.manager import LocalWorkerManager
from stoker.manager.pool import PoolLimits
from stoker.placement.policy import DensePacking
from stoker.services.aliases import ALIAS, Alias, alias_key, alias_record, alias_shelf
from stoker.services.context import RequestContext
from stoker.services.functions import (
    FunctionKey,
    FunctionRecord,
    FunctionVersion,
    LogSettings,
    Publication,
    Status,
)
from stoker.services.invocation import Invocation, InvocationResult, InvokeRequest, InvokeResponse
from stoker.services.manager import WorkerManager
from stoker.services.placement import WorkerSnapshot
from stoker.services.records import ANY_REVISION, Put
from stoker.services.worker import (
    RuntimeUnavailable,
    SandboxReference,
    SandboxStatus,
    StaleReference,
    Worker,
    WorkerUnavailable,
)
from stoker.store.memory import MemoryEventQueue, MemoryFunctionMetadata
from stoker.store.memory_records import MemoryRecords
from tests.simulation.frontend.virtual_time import LoopClock

ACCOUNT = "000000000000"
REGION = "us-east-1"


def key_of(name: str) -> FunctionKey:
    return FunctionKey(ACCOUNT, REGION, name)


def version_of(name: str, deployment_id: str = "", **changes: object) -> FunctionVersion:
    base = FunctionVersion(
        key=key_of(name),
        deployment_id=deployment_id or f"{name}-1",
        revision_id=f"revision-{deployment_id or name}",
        last_modified="2026-01-31T12:00:00.000+0000",
        role="arn:aws:iam::000000000000:role/test",
        runtime="python3.11",
        handler="app.handler",
        code_sha256="c2hh",
        code_size_bytes=1,
        logging=LogSettings(log_group=f"/aws/lambda/{name}"),
        state=Status(value="Active"),
    )
    return msgspec.structs.replace(base, **changes)


def context_of(request_id: str = "request", account: str = ACCOUNT) -> RequestContext:
    return RequestContext(
        request_id=request_id,
        account=account,
        region=REGION,
        access_key_id="AKIA",
        principal_arn=f"arn:aws:iam::{account}:root",
        source_ip="127.0.0.1",
        endpoint="http://127.0.0.1:9797",
    )


class Broadcast:
    """The Invalidation port within a process."""

    def __init__(self) -> None:
        self._callbacks: list[Callable[[FunctionKey], None]] = []

    def publish(self, key: FunctionKey) -> None:
        for callback in self._callbacks:
            callback(key)

    def subscribe(self, callback: Callable[[FunctionKey], None]) -> None:
        self._callbacks.append(callback)


class PretendSandbox:
    def __init__(self, function: FunctionVersion, reference: SandboxReference, now_s: float) -> None:
        self.function = function
        self.reference = reference
        self.epoch = reference.epoch
        self.created_s = now_s
        self.invocations = 0
        self.current: asyncio.Future[InvocationResult] | None = None
        self.retiring = False


class Behaviour(msgspec.Struct):
    """What a function of the pretended worker does with an invocation."""

    duration_s: float = 0.1
    function_error: str | None = None
    healthy: bool = True
    payload: bytes = b"{}"


class PretendWorker:
    """The Worker port without sandboxes. It checks what every worker may rely on and records what it saw."""

    def __init__(
        self,
        worker_id: str = "worker",
        *,
        memory_total_mb: int = 1_000_000,
        sandboxes_max: int = 10_000,
        create_s: float = 0.05,
        shutdown_s: float = 0.02,
    ) -> None:
        self.worker_id = worker_id
        self.memory_total_mb = memory_total_mb
        self.sandboxes_max = sandboxes_max
        self.create_s = create_s
        self.shutdown_s = shutdown_s
        self.live: dict[str, PretendSandbox] = {}
        self.reserved_mb = 0
        self.behave: Callable[[FunctionVersion, Invocation], Behaviour] = lambda _f, _i: Behaviour()
        self.refuse_runtime: str | None = None
        self.served: list[tuple[str, str, str]] = []
        """(request id, deployment, sandbox) of every invocation that began."""
        self.created = 0
        self.busy = 0
        self.busy_most = 0
        self.oldest_at_end_s = 0.0
        self._lost: list[Callable[[SandboxReference], None]] = []

    def snapshot(self) -> WorkerSnapshot:
        return WorkerSnapshot(
            self.worker_id, self.memory_total_mb, self.reserved_mb, len(self.live), self.sandboxes_max
        )

    async def create(self, function: FunctionVersion, *, provisioned: bool = False) -> SandboxReference:
        if function.runtime == self.refuse_runtime:
            raise RuntimeUnavailable(f"{function.runtime} is not here")
        if self.reserved_mb + function.memory_mb > self.memory_total_mb or (
            len(self.live) >= self.sandboxes_max
        ):
            raise WorkerUnavailable("full")
        self.created += 1
        reference = SandboxReference(self.worker_id, "life", f"{self.worker_id}-{self.created}", 0)
        self.reserved_mb += function.memory_mb
        sandbox = PretendSandbox(function, reference, _now_s())
        self.live[reference.sandbox_id] = sandbox
        await asyncio.sleep(self.create_s)
        return reference

    def invoke(
        self, reference: SandboxReference, invocation: Invocation
    ) -> "asyncio.Future[InvocationResult]":
        return (
            asyncio.ensure_future(self._never(reference))
            if self._stale(reference)
            else self._begin(reference, invocation)
        )

    def idle(self, reference: SandboxReference) -> None:
        assert self.live[reference.sandbox_id].current is None, "idle while it is busy"

    def retire(self, reference: SandboxReference) -> None:
        sandbox = self.live.get(reference.sandbox_id)
        if sandbox is None or sandbox.retiring:
            return
        assert sandbox.current is None, "retired while it is busy"
        sandbox.retiring = True
        asyncio.get_running_loop().call_later(self.shutdown_s, self._gone, sandbox)

    def lose(self, sandbox_id: str) -> None:
        """An idle sandbox dies on its own."""
        sandbox = self.live[sandbox_id]
        self._gone(sandbox)
        for callback in self._lost:
            callback(sandbox.reference)

    def vanish(self, sandbox_id: str) -> None:
        """A sandbox dies and nobody is told."""
        self._gone(self.live[sandbox_id])

    def on_sandbox_lost(self, callback: Callable[[SandboxReference], None]) -> None:
        self._lost.append(callback)

    def sandboxes(self) -> list[SandboxStatus]:
        return []

    async def close(self, grace_s: float) -> None:
        self.live.clear()

    async def _never(self, reference: SandboxReference) -> InvocationResult:
        raise StaleReference(reference.sandbox_id)

    def _stale(self, reference: SandboxReference) -> bool:
        sandbox = self.live.get(reference.sandbox_id)
        if sandbox is None or sandbox.retiring:
            return True
        # An epoch is good for one invocation: its message may arrive twice.
        return reference.epoch < sandbox.epoch or (
            sandbox.invocations > 0 and reference.epoch == sandbox.epoch
        )

    def _begin(
        self, reference: SandboxReference, invocation: Invocation
    ) -> "asyncio.Future[InvocationResult]":
        loop = asyncio.get_running_loop()
        sandbox = self.live[reference.sandbox_id]
        assert sandbox.current is None, "two invocations in one sandbox"
        sandbox.epoch = reference.epoch
        sandbox.invocations += 1
        sandbox.current = loop.create_future()
        self.busy += 1
        self.busy_most = max(self.busy_most, self.busy)
        self.served.append((invocation.request_id, sandbox.function.deployment_id, reference.sandbox_id))
        behaviour = self.behave(sandbox.function, invocation)
        loop.call_later(behaviour.duration_s, self._end, sandbox, behaviour)
        return sandbox.current

    def _end(self, sandbox: PretendSandbox, behaviour: Behaviour) -> None:
        self.busy -= 1
        future, sandbox.current = sandbox.current, None
        self.oldest_at_end_s = max(self.oldest_at_end_s, _now_s() - sandbox.created_s)
        if future is not None and not future.done():
            future.set_result(
                InvocationResult(
                    behaviour.payload,
                    behaviour.function_error,
                    behaviour.healthy,
                    behaviour.duration_s * 1000,
                )
            )

    def _gone(self, sandbox: PretendSandbox) -> None:
        if self.live.pop(sandbox.reference.sandbox_id, None) is not None:
            self.reserved_mb -= sandbox.function.memory_mb


class World:
    """Everything from the front end down, with the stores in memory."""

    def __init__(
        self,
        *workers: PretendWorker,
        account_concurrency: int = 1000,
        requests_per_concurrency: float = 1e9,
        limits: PoolLimits | None = None,
        wrap: Callable[[Worker], Worker] | None = None,
        wrap_manager: Callable[[WorkerManager], WorkerManager] | None = None,
    ) -> None:
        self.workers = workers or (PretendWorker(),)
        self.worker = self.workers[0]
        self.metadata = MemoryFunctionMetadata()
        self.records = MemoryRecords(self.metadata)
        self.invalidation = Broadcast()
        self.queue = MemoryEventQueue(capacity_bytes=100_000_000)
        self.clock = LoopClock()
        reached = {worker.worker_id: wrap(worker) if wrap else worker for worker in self.workers}
        self.manager = LocalWorkerManager(reached, DensePacking(), self.clock, limits=limits)
        self.admission = Admission(account_concurrency, requests_per_concurrency)
        self.frontend = InvokeFrontend(
            metadata=self.metadata,
            records=self.records,
            invalidation=self.invalidation,
            manager=wrap_manager(self.manager) if wrap_manager else self.manager,
            workers=reached,
            events=self.queue,
            authoriser=AccountAuthoriser(),
            clock=self.clock,
            random=Random(1),
            admission=self.admission,
        )
        self._requests = 0

    async def create(
        self, name: str, *, reserved_concurrency: int | None = None, **changes: object
    ) -> FunctionVersion:
        version = version_of(name, **changes)
        record = FunctionRecord(key=version.key, created_at_s=0.0, reserved_concurrency=reserved_concurrency)
        await self.metadata.create(record, version)
        self.invalidation.publish(version.key)
        return version

    async def update(self, version: FunctionVersion, **changes: object) -> FunctionVersion:
        """As the control plane does: write, then publish."""
        stored = await self.metadata.version(version.key, version.version)
        assert stored is not None
        new = msgspec.structs.replace(stored, **{"revision_id": f"{stored.revision_id}+", **changes})
        await self.metadata.replace_version(new, stored.revision_id)
        self.invalidation.publish(version.key)
        return new

    async def publish(self, name: str, **changes: object) -> FunctionVersion:
        """$LATEST as a new version, of a deployment of its own."""

        def decide(latest: FunctionVersion, newest: FunctionVersion | None, number: int) -> Publication:
            members = {"version": str(number), "deployment_id": f"{name}-v{number}", **changes}
            return Publication(latest=latest, published=msgspec.structs.replace(latest, **members))

        made = await self.metadata.publish(key_of(name), decide)
        self.invalidation.publish(key_of(name))
        return made.result

    async def unpublish(self, name: str, version: str) -> None:
        await self.metadata.delete_version(key_of(name), version, unless=(ALIAS, f"{name}:{version}"))
        self.invalidation.publish(key_of(name))

    async def point(self, name: str, alias: str, version: str, **shares: float) -> None:
        """An alias at a version; ``v2=0.25`` gives version 2 a quarter."""
        shelf = alias_shelf(self.records)
        additional = {number.removeprefix("v"): share for number, share in shares.items()}
        value = Alias(version=version, additional=additional)
        record = alias_record(shelf, alias_key(key_of(name), alias), value, "revision")
        await shelf.write(Put(record, ANY_REVISION))
        self.invalidation.publish(key_of(name))

    async def delete(self, key: FunctionKey) -> None:
        await self.metadata.delete(key)
        self.invalidation.publish(key)

    async def invoke(
        self, name: str, *, qualifier: str | None = None, kind: str = "RequestResponse", **members: object
    ) -> InvokeResponse:
        self._requests += 1
        account = str(members.pop("caller", ACCOUNT))
        request_id = str(members.pop("request_id", f"request-{self._requests}"))
        request = InvokeRequest(
            parse_function_reference(name, qualifier), b"{}", invocation_type=kind, **members
        )
        return await self.frontend.invoke(context_of(request_id, account), request)

    def check_nothing_leaked(self) -> None:
        """With nobody calling: nothing is busy, and pool and workers know the same sandboxes."""
        statistics = self.manager.statistics()
        assert (statistics.busy, statistics.draining, statistics.placing) == (0, 0, 0)
        assert self.admission.statistics().in_flight == 0
        live = sum(1 for worker in self.workers for sandbox in worker.live.values() if not sandbox.retiring)
        assert statistics.idle == live

    async def close(self) -> None:
        await self.frontend.close(0.0)
        await self.manager.close(0.0)


def _now_s() -> float:
    return asyncio.get_running_loop().time()
