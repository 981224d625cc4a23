"""The pool's decisions, one at a time."""

import pytest

from stoker.core.errors import IllegalTransition
from stoker.manager.pool import Pool, PoolLimits
from stoker.services.functions import LATEST, FunctionVersion
from stoker.services.manager import Reservation
from stoker.services.placement import WorkerSnapshot
from stoker.services.worker import SandboxReference
from tests.simulation.frontend.world import version_of

F = version_of("f")
G = version_of("g", memory_mb=512)


class Making:
    """Puts sandboxes into a pool under the names s1, s2, …"""

    def __init__(self, pool: Pool, worker_id: str = "w") -> None:
        self.pool = pool
        self.worker_id = worker_id
        self.count = 0

    def busy(self, function: FunctionVersion = F, now_s: float = 0.0) -> Reservation:
        self.count += 1
        ticket = self.pool.plan(function, now_s)
        assert ticket is not None
        reference = SandboxReference(self.worker_id, "life", f"s{self.count}", 0)
        return self.pool.adopt(ticket, function, reference, now_s)

    def idle(self, function: FunctionVersion = F, now_s: float = 0.0) -> Reservation:
        reservation = self.busy(function, now_s)
        assert self.pool.release(reservation.sandbox, healthy=True, now_s=now_s).idle is not None
        return reservation


def reserved(pool: Pool, now_s: float = 0.0, function: FunctionVersion = F) -> str | None:
    reservation = pool.reserve(function.deployment_id, now_s)
    return None if reservation is None else reservation.sandbox.sandbox_id


def names(references: list[SandboxReference]) -> list[str]:
    return [reference.sandbox_id for reference in references]


def test_the_most_recently_used_comes_first() -> None:
    pool = Pool()
    making = Making(pool)
    first, second, third = (making.busy() for _ in range(3))
    for now_s, reservation in ((1.0, second), (2.0, third), (3.0, first)):
        pool.release(reservation.sandbox, healthy=True, now_s=now_s)
    assert [reserved(pool, 4.0) for _ in range(4)] == ["s1", "s3", "s2", None]


def test_a_deployment_gets_only_its_own_sandboxes() -> None:
    pool = Pool()
    Making(pool).idle(G)
    assert reserved(pool, function=F) is None
    assert reserved(pool, function=G) == "s1"


def test_the_epoch_rises_with_every_reservation() -> None:
    pool = Pool()
    Making(pool).idle()
    epochs: list[int] = []
    for _ in range(3):
        reservation = pool.reserve(F.deployment_id, 0.0)
        assert reservation is not None
        epochs.append(reservation.sandbox.epoch)
        pool.release(reservation.sandbox, healthy=True, now_s=0.0)
    assert epochs == [1, 2, 3]


def test_only_the_holder_releases() -> None:
    pool = Pool()
    first = Making(pool).idle()
    with pytest.raises(IllegalTransition):
        pool.release(first.sandbox, healthy=True, now_s=0.0)
    second = pool.reserve(F.deployment_id, 0.0)
    assert second is not None
    with pytest.raises(IllegalTransition):
        pool.release(first.sandbox, healthy=True, now_s=0.0)
    pool.release(second.sandbox, healthy=True, now_s=0.0)


def test_an_unhealthy_one_is_retired() -> None:
    pool = Pool()
    reservation = Making(pool).busy()
    released = pool.release(reservation.sandbox, healthy=False, now_s=0.0)
    assert (released.idle, released.retire) == (None, reservation.sandbox)
    assert reserved(pool) is None
    assert pool.statistics().retired_unhealthy == 1


def test_idle_ones_are_reclaimed_after_the_time_out_least_recently_used_first() -> None:
    pool = Pool(PoolLimits(idle_timeout_s=600.0))
    making = Making(pool)
    for now_s in (0.0, 10.0, 20.0):
        making.idle(now_s=now_s)
    assert pool.reclaim(599.9) == []
    assert names(pool.reclaim(610.0)) == ["s1", "s2"]
    assert reserved(pool, 615.0) == "s3"
    assert pool.reclaim(10_000.0) == [], "a busy one is never reclaimed"


def test_the_lease_ends_a_full_time_out_early() -> None:
    slow = version_of("slow", timeout_s=900)
    pool = Pool(PoolLimits(idle_timeout_s=1e9, lease_s=10_000.0))
    making = Making(pool)
    making.idle(slow)
    busy = making.busy(slow)
    assert pool.reclaim(9_099.9) == []
    assert reserved(pool, 9_100.0, slow) is None
    assert names(pool.reclaim(9_100.0)) == ["s1"]
    assert pool.release(busy.sandbox, healthy=True, now_s=9_100.0).retire == busy.sandbox
    assert pool.statistics().retired_lease == 2


def test_an_older_one_near_the_end_of_its_lease_is_passed_over() -> None:
    pool = Pool(PoolLimits(idle_timeout_s=1e9, lease_s=1000.0))
    making = Making(pool)
    old = making.busy(now_s=0.0)
    making.idle(now_s=500.0)
    pool.release(old.sandbox, healthy=True, now_s=600.0)
    assert reserved(pool, 998.0) == "s2"


def test_forgetting_retires_idle_ones_now_and_busy_ones_when_released() -> None:
    old, new = version_of("f", "f-1"), version_of("f", "f-2")
    pool = Pool()
    making = Making(pool)
    making.idle(old)
    busy = making.busy(old)
    making.idle(new)
    making.idle(G)
    assert names(pool.forget(F.key, LATEST, keep_deployment_id="f-2")) == ["s1"]
    assert reserved(pool, function=old) is None
    assert pool.release(busy.sandbox, healthy=True, now_s=0.0).retire == busy.sandbox
    assert reserved(pool, function=new) == "s3"
    assert reserved(pool, function=G) == "s4"
    assert pool.forget(F.key, LATEST, keep_deployment_id="f-2") == []


def test_forgetting_a_version_leaves_the_others() -> None:
    pool = Pool()
    making = Making(pool)
    published = version_of("f", "f-v1", version="1")
    making.idle(F)
    making.idle(published)
    ticket = pool.plan(version_of("f", "f-v2", version="2"), 0.0)
    assert pool.versions(F.key) == {LATEST, "1", "2"}
    assert names(pool.forget(F.key, "1", keep_deployment_id="f-v1")) == []
    assert names(pool.forget(F.key, "1", keep_deployment_id=None)) == ["s2"]
    assert ticket is not None
    assert ticket.current
    assert pool.versions(F.key) == {LATEST, "2"}
    assert reserved(pool) == "s1"


def test_a_sandbox_in_the_making_is_forgotten_too() -> None:
    pool = Pool()
    ticket = pool.plan(F, 0.0)
    assert ticket is not None
    pool.forget(F.key, LATEST, keep_deployment_id=None)
    reservation = pool.adopt(ticket, F, SandboxReference("w", "life", "late", 0), 1.0)
    assert pool.statistics().draining == 1
    assert pool.release(reservation.sandbox, healthy=True, now_s=2.0).retire == reservation.sandbox
    assert pool.statistics().draining == 0


def test_a_lost_one_is_gone_and_its_release_does_nothing() -> None:
    pool = Pool()
    making = Making(pool)
    idle, busy = making.idle(), making.busy()
    assert pool.lost(idle.sandbox)
    assert pool.lost(busy.sandbox)
    assert not pool.lost(busy.sandbox)
    released = pool.release(busy.sandbox, healthy=True, now_s=0.0)
    assert (released.idle, released.retire) == (None, None)
    assert reserved(pool) is None


def test_the_scaling_rate_refuses_a_ticket() -> None:
    pool = Pool()
    assert all(pool.plan(F, 0.0) for _ in range(1000))
    assert pool.plan(F, 0.0) is None
    assert pool.plan(G, 0.0) is not None
    assert pool.statistics().throttled == 1


def test_a_ticket_is_used_once() -> None:
    pool = Pool()
    ticket = pool.plan(F, 0.0)
    assert ticket is not None
    pool.abandon(ticket)
    with pytest.raises(IllegalTransition):
        pool.abandon(ticket)


def full(worker_id: str, *, reserved_mb: int, sandboxes: int = 1, sandboxes_max: int = 100) -> WorkerSnapshot:
    return WorkerSnapshot(worker_id, 1024, reserved_mb, sandboxes, sandboxes_max)


def test_room_is_made_by_the_least_recently_used_of_any_function() -> None:
    pool = Pool()
    making = Making(pool)
    making.idle(G, now_s=1.0)
    making.idle(F, now_s=2.0)
    making.busy(F, now_s=0.0)
    victims = pool.make_room((full("w", reserved_mb=1024),), 128)
    assert names(victims) == ["s1"]
    assert reserved(pool, function=G) is None
    assert reserved(pool, function=F) == "s2"


def test_nothing_is_evicted_when_it_would_not_be_enough() -> None:
    pool = Pool()
    making = Making(pool)
    making.idle(F)
    making.busy(G)
    assert pool.make_room((full("w", reserved_mb=1024),), 512) == []
    assert pool.make_room((full("w", reserved_mb=100),), 4096) == []
    assert reserved(pool) == "s1"


def test_the_worker_that_loses_fewest_makes_the_room() -> None:
    pool = Pool()
    small, large = Making(pool, "a"), Making(pool, "b")
    for _ in range(4):
        small.idle(F, now_s=0.0)
    large.idle(G, now_s=1.0)
    victims = pool.make_room((full("a", reserved_mb=1024), full("b", reserved_mb=1024)), 512)
    assert [(victim.worker_id, victim.sandbox_id) for victim in victims] == [("b", "s1")]


def test_room_among_the_count_of_sandboxes_is_made_too() -> None:
    pool = Pool()
    Making(pool).idle(F)
    worker = full("w", reserved_mb=128, sandboxes=3, sandboxes_max=3)
    assert names(pool.make_room((worker,), 128)) == ["s1"]


def test_workers_may_name_sandboxes_alike() -> None:
    pool = Pool()
    Making(pool, "a").idle(F, now_s=1.0)
    Making(pool, "b").idle(F, now_s=2.0)
    first, second = pool.reserve(F.deployment_id, 3.0), pool.reserve(F.deployment_id, 3.0)
    assert first is not None
    assert second is not None
    assert (first.sandbox.worker_id, second.sandbox.worker_id) == ("b", "a")
    assert pool.sandboxes_by_worker(F.key) == {"a": 1, "b": 1}


def test_an_empty_pool_is_empty_again_after_everything_ended() -> None:
    pool = Pool()
    assert pool.is_empty()
    Making(pool).idle()
    assert not pool.is_empty()
    pool.reclaim(601.0)
    assert pool.is_empty()
