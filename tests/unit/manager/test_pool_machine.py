"""The pool against a plain model, driven by Hypothesis through whatever order of calls it can think of."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from stoker.core.errors import IllegalTransition
from stoker.manager.pool import Pool, PoolLimits, Ticket
from stoker.manager.scaling import ScalingRate
from stoker.services.functions import LATEST, FunctionVersion
from stoker.services.manager import Reservation
from stoker.services.placement import WorkerSnapshot
from stoker.services.worker import SandboxReference
from tests.simulation.frontend.world import version_of

IDLE_TIMEOUT_S = 50.0
LEASE_S = 300.0
FUNCTIONS = [
    version_of(
        name, f"{name}-{number}", version="7" if number == 3 else LATEST, memory_mb=memory_mb, timeout_s=3
    )
    for name, memory_mb in (("f", 128), ("g", 256))
    for number in (1, 2, 3)
]
functions = st.sampled_from(FUNCTIONS)


def _same_version(one: FunctionVersion, other: FunctionVersion) -> bool:
    return (one.key, one.version) == (other.key, other.version)


class Known:
    """The model of one sandbox."""

    def __init__(self, function: FunctionVersion, reference: SandboxReference, made_s: float) -> None:
        self.function = function
        self.reference = reference
        self.made_s = made_s
        self.used_s = 0.0
        self.busy = True
        self.condemned = False

    def may_serve(self, now_s: float) -> bool:
        return now_s < self.made_s + LEASE_S - self.function.timeout_s


class PoolMachine(RuleBasedStateMachine):
    tickets = Bundle("tickets")
    held = Bundle("held")

    def __init__(self) -> None:
        super().__init__()
        self.pool = Pool(PoolLimits(IDLE_TIMEOUT_S, LEASE_S), ScalingRate(burst=8, refill_per_s=0.5))
        self.now_s = 1000.0
        self.known: dict[str, Known] = {}
        self.order: list[str] = []
        self.making: list[tuple[Ticket, FunctionVersion, list[bool]]] = []
        self.made = 0

    @rule(seconds=st.floats(0.0, 80.0))
    def time_passes(self, seconds: float) -> None:
        self.now_s += seconds

    @rule(target=tickets, function=functions)
    def plan(self, function: FunctionVersion) -> object:
        ticket = self.pool.plan(function, self.now_s)
        if ticket is None:
            return multiple()
        entry = (ticket, function, [True])
        self.making.append(entry)
        return entry

    @rule(target=held, entry=consumes(tickets), worker=st.sampled_from("ab"))
    def adopt(self, entry: tuple[Ticket, FunctionVersion, list[bool]], worker: str) -> Reservation:
        ticket, function, current = entry
        self.made += 1
        reference = SandboxReference(worker, "life", f"s{self.made}", 0)
        reservation = self.pool.adopt(ticket, function, reference, self.now_s)
        assert reservation.cold
        known = self.known[reference.sandbox_id] = Known(function, reservation.sandbox, self.now_s)
        known.condemned = not current[0]
        self._no_longer_making(entry)
        return reservation

    @rule(entry=consumes(tickets))
    def abandon(self, entry: tuple[Ticket, FunctionVersion, list[bool]]) -> None:
        self.pool.abandon(entry[0])
        self._no_longer_making(entry)

    @rule(target=held, function=functions)
    def reserve(self, function: FunctionVersion) -> object:
        reservation = self.pool.reserve(function.deployment_id, self.now_s)
        fitting = [
            name
            for name in self.order
            if self.known[name].function.deployment_id == function.deployment_id
            and self.known[name].may_serve(self.now_s)
        ]
        if reservation is None:
            assert not fitting
            return multiple()
        name = reservation.sandbox.sandbox_id
        assert name == fitting[-1], "not the most recently used"
        known = self.known[name]
        assert not known.condemned
        assert reservation.sandbox.epoch > known.reference.epoch
        known.reference, known.busy = reservation.sandbox, True
        self.order.remove(name)
        return reservation

    @rule(reservation=consumes(held), healthy=st.booleans())
    def release(self, reservation: Reservation, healthy: bool) -> None:
        name = reservation.sandbox.sandbox_id
        released = self.pool.release(reservation.sandbox, healthy=healthy, now_s=self.now_s)
        known = self.known.get(name)
        if known is None:
            assert (released.idle, released.retire) == (None, None)
            return
        if healthy and not known.condemned and known.may_serve(self.now_s):
            assert released.idle == reservation.sandbox
            known.busy, known.used_s = False, self.now_s
            self.order.append(name)
        else:
            assert released.retire == reservation.sandbox
            del self.known[name]

    @rule(target=held, reservation=consumes(held), healthy=st.booleans())
    def hand_over(self, reservation: Reservation, healthy: bool) -> Reservation:
        next_one = self.pool.hand_over(reservation.sandbox, healthy=healthy, now_s=self.now_s)
        known = self.known.get(reservation.sandbox.sandbox_id)
        may = known is not None and healthy and not known.condemned and known.may_serve(self.now_s)
        assert (next_one is not None) == may
        if next_one is None or known is None:
            return reservation
        assert next_one.sandbox.epoch == reservation.sandbox.epoch + 1
        known.reference = next_one.sandbox
        return next_one

    @rule(index=st.integers(0, 50))
    def a_stale_holder_releases(self, index: int) -> None:
        if not self.known:
            return
        known = list(self.known.values())[index % len(self.known)]
        reference = known.reference
        stale = SandboxReference(
            reference.worker_id, reference.incarnation, reference.sandbox_id, reference.epoch - 1
        )
        with pytest.raises(IllegalTransition):
            self.pool.release(stale, healthy=True, now_s=self.now_s)

    @rule(index=st.integers(0, 50))
    def lose(self, index: int) -> None:
        if self.known:
            name = list(self.known)[index % len(self.known)]
            assert self.pool.lost(self.known.pop(name).reference)
            if name in self.order:
                self.order.remove(name)

    @rule(function=functions, keep=st.booleans())
    def forget(self, function: FunctionVersion, keep: bool) -> None:
        kept = function.deployment_id if keep else None
        retired = {
            each.sandbox_id
            for each in self.pool.forget(function.key, function.version, keep_deployment_id=kept)
        }
        for name, known in list(self.known.items()):
            if not _same_version(known.function, function) or known.function.deployment_id == kept:
                assert name not in retired
                continue
            assert (name in retired) == (not known.busy)
            known.condemned = True
            if not known.busy:
                del self.known[name]
                self.order.remove(name)
        for _, planned, current in self.making:
            if _same_version(planned, function) and planned.deployment_id != kept:
                current[0] = False

    @rule()
    def reclaim(self) -> None:
        retired = {reference.sandbox_id for reference in self.pool.reclaim(self.now_s)}
        expected = {
            name
            for name in self.order
            if self.now_s - self.known[name].used_s >= IDLE_TIMEOUT_S
            or not self.known[name].may_serve(self.now_s)
        }
        assert retired == expected
        for name in expected:
            del self.known[name]
            self.order.remove(name)

    @rule(memory_mb=st.sampled_from([128, 256, 900]))
    def make_room(self, memory_mb: int) -> None:
        snapshots: list[WorkerSnapshot] = []
        for worker in "ab":
            mine = [known for known in self.known.values() if known.reference.worker_id == worker]
            reserved_mb = sum(known.function.memory_mb for known in mine)
            snapshots.append(WorkerSnapshot(worker, 1024, reserved_mb, len(mine), 6))
        victims = self.pool.make_room(tuple(snapshots), memory_mb)
        assert len({victim.worker_id for victim in victims}) <= 1
        on_worker = [name for name in self.order if victims and self._worker_of(name) == victims[0].worker_id]
        assert [victim.sandbox_id for victim in victims] == on_worker[: len(victims)], "not the oldest"
        for victim in victims:
            del self.known[victim.sandbox_id]
            self.order.remove(victim.sandbox_id)

    def _worker_of(self, name: str) -> str:
        return self.known[name].reference.worker_id

    def _no_longer_making(self, entry: tuple[Ticket, FunctionVersion, list[bool]]) -> None:
        # By identity: two tickets for one deployment are equal.
        self.making = [other for other in self.making if other[0] is not entry[0]]

    @invariant()
    def counts_agree(self) -> None:
        statistics = self.pool.statistics()
        busy = [known for known in self.known.values() if known.busy]
        assert statistics.idle == len(self.order)
        assert statistics.busy == sum(1 for known in busy if not known.condemned)
        assert statistics.draining == sum(1 for known in busy if known.condemned)
        assert statistics.placing == len(self.making)
        for function in FUNCTIONS:
            mine = [known for known in self.known.values() if known.function.key == function.key]
            assert sum(self.pool.sandboxes_by_worker(function.key).values()) == len(mine)


PoolMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestPool = PoolMachine.TestCase
