"""Which sandboxes are idle, busy or draining, and what to do with them. Decisions only: plain functions over
values that return what is to be done. Never a clock, never chance, never I/O."""

from collections import OrderedDict

import msgspec

from stoker.core.errors import IllegalTransition
from stoker.manager.sandbox import Sandbox, State
from stoker.manager.scaling import ScalingRate
from stoker.services.functions import FunctionKey, FunctionVersion
from stoker.services.manager import Reservation
from stoker.services.placement import WorkerSnapshot
from stoker.services.worker import SandboxReference

IDLE_TIMEOUT_S = 600.0
LEASE_S = 14 * 3600.0
"""The age that no sandbox outlives, an invocation under way included."""


class PoolLimits(msgspec.Struct, frozen=True):
    """How long sandboxes are kept."""

    idle_timeout_s: float = IDLE_TIMEOUT_S
    lease_s: float = LEASE_S


class PoolStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Sandboxes by state, and what became of those that were."""

    idle: int
    busy: int
    draining: int
    placing: int
    reserved_warm: int
    adopted: int
    throttled: int
    retired_idle: int
    retired_lease: int
    retired_evicted: int
    retired_forgotten: int
    retired_unhealthy: int
    lost: int
    proactive_made: int
    proactive_used: int
    provisioned: int


class Ticket(msgspec.Struct):
    """One sandbox that is being made. ``current`` turns false when its deployment is forgotten meanwhile."""

    key: FunctionKey
    version: str
    deployment_id: str
    current: bool = True


class Released(msgspec.Struct, frozen=True):
    """What to do with a sandbox that was given back: exactly one of the two, or nothing if it was lost."""

    idle: SandboxReference | None = None
    retire: SandboxReference | None = None


_NOTHING = Released()
_SandboxId = tuple[str, str, str]
_Stack = OrderedDict[_SandboxId, Sandbox]
"""Least recently used first; the next one to use is the last."""


class Pool:
    """Every sandbox of every worker. Times are of one monotonic clock, in seconds."""

    def __init__(self, limits: PoolLimits | None = None, scaling: ScalingRate | None = None) -> None:
        self._limits = limits or PoolLimits()
        self._scaling = scaling or ScalingRate()
        self._sandboxes: dict[_SandboxId, Sandbox] = {}
        self._functions: dict[FunctionKey, dict[_SandboxId, Sandbox]] = {}
        self._stacks: dict[str, _Stack] = {}
        self._idle: _Stack = OrderedDict()
        self._draining = 0
        self._tickets: dict[int, Ticket] = {}
        self._counts: dict[str, int] = dict.fromkeys(
            (
                *(
                    "warm",
                    "adopted",
                    "throttled",
                    "idle",
                    "lease",
                    "evicted",
                    "forgotten",
                    "unhealthy",
                    "lost",
                ),
                *("proactive_made", "proactive_used"),
            ),
            0,
        )

    def reserve(self, deployment_id: str, now_s: float) -> Reservation | None:
        """The most recently used idle sandbox of a deployment, busy from now on; None when there is none.

        Sandboxes near the end of their lease are passed over; ``reclaim`` retires them.
        """
        stack = self._stacks.get(deployment_id)
        if not stack:
            return None
        for identity in reversed(stack):
            sandbox = stack[identity]
            if now_s < sandbox.drain_at_s:
                break
        else:
            return None
        self._unstack(identity, sandbox)
        sandbox.state = State.BUSY
        old = sandbox.reference
        sandbox.reference = SandboxReference(old.worker_id, old.incarnation, old.sandbox_id, old.epoch + 1)
        self._counts["warm"] += 1
        if sandbox.proactive:
            sandbox.proactive = False
            self._counts["proactive_used"] += 1
            return Reservation(sandbox.reference, False, True)
        return Reservation(sandbox.reference, False)

    def plan(self, function: FunctionVersion, now_s: float) -> Ticket | None:
        """Permission to make a sandbox; None over the scaling rate. Ends with ``adopt`` or ``abandon``."""
        if not self._scaling.take(function.key, now_s):
            self._counts["throttled"] += 1
            return None
        ticket = Ticket(function.key, function.version, function.deployment_id)
        self._tickets[id(ticket)] = ticket
        return ticket

    def adopt(
        self,
        ticket: Ticket,
        function: FunctionVersion,
        reference: SandboxReference,
        now_s: float,
        *,
        proactive: bool = False,
        provisioned: bool = False,
    ) -> Reservation:
        """A sandbox was made: it is known from now on, busy for whoever is given the reservation."""
        identity = _identity(reference)
        if identity in self._sandboxes:
            raise IllegalTransition(f"sandbox {reference.sandbox_id} is in the pool already")
        self._end(ticket)
        # No invocation may outlive the lease, so the last one starts a full time-out before its end.
        drain_at_s = now_s + self._limits.lease_s - function.timeout_s
        sandbox = Sandbox(reference, function, drain_at_s)
        sandbox.proactive, sandbox.provisioned = proactive, provisioned
        self._counts["proactive_made"] += proactive
        if not ticket.current:
            self._drain(sandbox)
        self._sandboxes[identity] = sandbox
        self._functions.setdefault(function.key, {})[identity] = sandbox
        self._counts["adopted"] += 1
        return Reservation(reference, True)

    def abandon(self, ticket: Ticket) -> None:
        """The sandbox was not made: it does not count against the scaling rate."""
        self._end(ticket)
        self._scaling.give_back(ticket.key)

    def _end(self, ticket: Ticket) -> None:
        if self._tickets.pop(id(ticket), None) is None:
            raise IllegalTransition("the ticket was used before")

    def release(self, reference: SandboxReference, *, healthy: bool, now_s: float) -> Released:
        """End a reservation: the sandbox becomes idle when it is healthy, current and within its lease.

        Raises:
            IllegalTransition: the sandbox is not reserved, or not by the holder of this reference.
        """
        identity = _identity(reference)
        sandbox = self._sandboxes.get(identity)
        if sandbox is None:
            return _NOTHING  # lost while it was busy
        if sandbox.state is State.IDLE or sandbox.reference.epoch != reference.epoch:
            raise IllegalTransition(f"sandbox {reference.sandbox_id} is not held by epoch {reference.epoch}")
        if healthy and sandbox.state is State.BUSY and now_s < sandbox.drain_at_s:
            self._stack(identity, sandbox, now_s)
            return Released(reference)
        reason = "forgotten" if sandbox.state is State.DRAINING else "lease" if healthy else "unhealthy"
        return Released(None, self._retire(identity, sandbox, reason))

    def hand_over(self, reference: SandboxReference, *, healthy: bool, now_s: float) -> Reservation | None:
        """Give a released sandbox straight to the next holder; None when it may not serve on."""
        sandbox = self._sandboxes.get(_identity(reference))
        if sandbox is None or not healthy or sandbox.state is not State.BUSY:
            return None
        if sandbox.reference.epoch != reference.epoch or now_s >= sandbox.drain_at_s:
            return None
        old = sandbox.reference
        sandbox.reference = SandboxReference(old.worker_id, old.incarnation, old.sandbox_id, old.epoch + 1)
        self._counts["warm"] += 1
        return Reservation(sandbox.reference, False)

    def deployment_of(self, reference: SandboxReference) -> str | None:
        """The deployment of a sandbox, or None when it is not known any more."""
        sandbox = self._sandboxes.get(_identity(reference))
        return None if sandbox is None else sandbox.deployment_id

    def lost(self, reference: SandboxReference) -> bool:
        """A sandbox died on its own; whether it was known."""
        identity = _identity(reference)
        sandbox = self._sandboxes.get(identity)
        if sandbox is None:
            return False
        self._retire(identity, sandbox, "lost")
        return True

    def versions(self, key: FunctionKey) -> frozenset[str]:
        """Versions of a function that have sandboxes, those in the making included."""
        making = {ticket.version for ticket in self._tickets.values() if ticket.key == key}
        return frozenset(making.union(each.version for each in self._functions.get(key, {}).values()))

    def forget(
        self, key: FunctionKey, version: str, *, keep_deployment_id: str | None
    ) -> list[SandboxReference]:
        """Idle sandboxes of a version's other deployments, to be retired now; busy ones and those in the
        making drain."""
        for ticket in self._tickets.values():
            if (ticket.key, ticket.version) == (key, version) and ticket.deployment_id != keep_deployment_id:
                ticket.current = False
        retired: list[SandboxReference] = []
        for identity, sandbox in list(self._functions.get(key, {}).items()):
            if sandbox.version != version or sandbox.deployment_id == keep_deployment_id:
                continue
            if sandbox.state is State.IDLE:
                retired.append(self._retire(identity, sandbox, "forgotten"))
            elif sandbox.state is State.BUSY:
                self._drain(sandbox)
        return retired

    def reclaim(self, now_s: float) -> list[SandboxReference]:
        """Idle sandboxes to retire: unused for the idle time-out, or near the end of their lease."""
        retired: list[SandboxReference] = []
        for identity, sandbox in list(self._idle.items()):
            if now_s >= sandbox.drain_at_s:
                retired.append(self._retire(identity, sandbox, "lease"))
            elif not sandbox.provisioned and now_s - sandbox.last_used_s >= self._limits.idle_timeout_s:
                retired.append(self._retire(identity, sandbox, "idle"))
        self._scaling.prune(now_s)
        return retired

    def make_room(self, workers: tuple[WorkerSnapshot, ...], memory_mb: int) -> list[SandboxReference]:
        """The fewest least recently used idle sandboxes of one worker whose end makes room for a new one.

        Empty when no worker could be made to fit; nothing is retired then.
        """
        best: list[_SandboxId] = []
        for worker in sorted(workers, key=lambda snapshot: snapshot.worker_id):
            victims = self._victims(worker, memory_mb)
            if victims and (not best or len(victims) < len(best)):
                best = victims
        return [self._retire(identity, self._sandboxes[identity], "evicted") for identity in best]

    def sandboxes_by_worker(self, key: FunctionKey) -> dict[str, int]:
        """How many sandboxes of a function each worker has."""
        counts: dict[str, int] = {}
        for identity in self._functions.get(key, {}):
            counts[identity[0]] = counts.get(identity[0], 0) + 1
        return counts

    def in_use(self, key: FunctionKey, deployment_id: str) -> int:
        """Busy sandboxes of a deployment."""
        return sum(
            sandbox.state is State.BUSY and sandbox.deployment_id == deployment_id
            for sandbox in self._functions.get(key, {}).values()
        )

    def idle_of(self, deployment_id: str) -> int:
        """Idle sandboxes of a deployment."""
        return len(self._stacks.get(deployment_id, ()))

    def provisioned_of(self, key: FunctionKey, deployment_id: str) -> int:
        """Sandboxes that a deployment's provisioned concurrency holds, busy or idle."""
        return sum(
            sandbox.provisioned and sandbox.deployment_id == deployment_id
            for sandbox in self._functions.get(key, {}).values()
        )

    def unprovision(self, key: FunctionKey, deployment_id: str, count: int) -> list[SandboxReference]:
        """Let ``count`` provisioned sandboxes go: idle ones, retired now, before busy ones, which drain."""
        held = [
            (identity, sandbox)
            for identity, sandbox in self._functions.get(key, {}).items()
            if sandbox.provisioned and sandbox.deployment_id == deployment_id
        ]
        held.sort(key=lambda entry: entry[1].state is not State.IDLE)
        retired: list[SandboxReference] = []
        for identity, sandbox in held[:count]:
            sandbox.provisioned = False
            if sandbox.state is State.IDLE:
                retired.append(self._retire(identity, sandbox, "forgotten"))
            elif sandbox.state is State.BUSY:
                self._drain(sandbox)
        return retired

    def is_empty(self) -> bool:
        """Whether nothing is left that ``reclaim`` could act on, now or later."""
        return not self._sandboxes and not self._tickets and not len(self._scaling)

    def statistics(self) -> PoolStatistics:
        """Counts as of now."""
        counts, idle = self._counts, len(self._idle)
        return PoolStatistics(
            idle=idle,
            busy=len(self._sandboxes) - idle - self._draining,
            draining=self._draining,
            placing=len(self._tickets),
            reserved_warm=counts["warm"],
            adopted=counts["adopted"],
            throttled=counts["throttled"],
            retired_idle=counts["idle"],
            retired_lease=counts["lease"],
            retired_evicted=counts["evicted"],
            retired_forgotten=counts["forgotten"],
            retired_unhealthy=counts["unhealthy"],
            lost=counts["lost"],
            proactive_made=counts["proactive_made"],
            proactive_used=counts["proactive_used"],
            provisioned=sum(sandbox.provisioned for sandbox in self._sandboxes.values()),
        )

    def _victims(self, worker: WorkerSnapshot, memory_mb: int) -> list[_SandboxId]:
        if worker.draining or memory_mb > worker.memory_total_mb:
            return []
        needed_mb = worker.memory_reserved_mb + memory_mb - worker.memory_total_mb
        needed_count = worker.sandboxes + 1 - worker.sandboxes_max
        victims: list[_SandboxId] = []
        for identity, sandbox in self._idle.items():
            if needed_mb <= 0 and needed_count <= 0:
                break
            if identity[0] == worker.worker_id and not sandbox.provisioned:
                victims.append(identity)
                needed_mb -= sandbox.memory_mb
                needed_count -= 1
        return victims if needed_mb <= 0 and needed_count <= 0 else []

    def _stack(self, identity: _SandboxId, sandbox: Sandbox, now_s: float) -> None:
        sandbox.state = State.IDLE
        sandbox.last_used_s = now_s
        stack = self._stacks.get(sandbox.deployment_id)
        if stack is None:
            stack = self._stacks[sandbox.deployment_id] = OrderedDict()
        stack[identity] = sandbox
        self._idle[identity] = sandbox

    def _unstack(self, identity: _SandboxId, sandbox: Sandbox) -> None:
        del self._stacks[sandbox.deployment_id][identity]
        del self._idle[identity]

    def _drain(self, sandbox: Sandbox) -> None:
        sandbox.state = State.DRAINING
        self._draining += 1

    def _retire(self, identity: _SandboxId, sandbox: Sandbox, reason: str) -> SandboxReference:
        if sandbox.state is State.IDLE:
            self._unstack(identity, sandbox)
        elif sandbox.state is State.DRAINING:
            self._draining -= 1
        del self._sandboxes[identity]
        siblings = self._functions[sandbox.key]
        del siblings[identity]
        if not siblings:
            del self._functions[sandbox.key]
        if not self._stacks.get(sandbox.deployment_id):
            self._stacks.pop(sandbox.deployment_id, None)
        self._counts[reason] += 1
        return sandbox.reference


def _identity(reference: SandboxReference) -> _SandboxId:
    return (reference.worker_id, reference.incarnation, reference.sandbox_id)
