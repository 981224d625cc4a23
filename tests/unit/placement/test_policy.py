"""The placement policy, as a table of snapshots and decisions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.placement.policy import DensePacking, has_room
from stoker.services.placement import PlacementRequest, WorkerSnapshot


def worker(worker_id: str, reserved_mb: int = 0, **changes: object) -> WorkerSnapshot:
    members: dict[str, object] = {"memory_total_mb": 1000, "sandboxes": 0, "sandboxes_max": 100} | changes
    return WorkerSnapshot(worker_id=worker_id, memory_reserved_mb=reserved_mb, **members)


def choose(*workers: WorkerSnapshot, memory_mb: int = 100) -> str | None:
    return DensePacking().choose(workers, PlacementRequest(memory_mb, "x86_64"))


def test_nobody_has_room() -> None:
    assert choose() is None
    assert choose(worker("a", 950), worker("b", 901)) is None
    assert choose(worker("a", draining=True)) is None
    assert choose(worker("a", sandboxes=100)) is None


def test_the_fullest_with_headroom_is_taken() -> None:
    assert choose(worker("a", 100), worker("b", 600), worker("c", 300)) == "b"


def test_the_last_of_the_memory_is_left_while_another_has_headroom() -> None:
    assert choose(worker("full", 880), worker("empty", 0)) == "empty"


def test_the_emptiest_is_taken_when_nobody_has_headroom() -> None:
    assert choose(worker("fuller", 890), worker("emptier", 870)) == "emptier"


def test_the_count_of_sandboxes_fills_a_worker_too() -> None:
    assert choose(worker("a", 300), worker("b", 100, sandboxes=60)) == "b"


def test_sandboxes_of_the_same_function_spread_mildly() -> None:
    assert choose(worker("a", 320, same_function=3), worker("b", 300)) == "b"
    assert choose(worker("a", 700, same_function=3), worker("b", 0)) == "a"


def test_ties_go_to_the_lowest_id_in_whatever_order_they_come() -> None:
    assert choose(worker("b"), worker("a"), worker("c")) == "a"


@given(
    st.lists(
        st.builds(
            WorkerSnapshot,
            worker_id=st.sampled_from("abcdef"),
            memory_total_mb=st.integers(1, 2000),
            memory_reserved_mb=st.integers(0, 2000),
            sandboxes=st.integers(0, 5),
            sandboxes_max=st.integers(1, 5),
            draining=st.booleans(),
            same_function=st.integers(0, 5),
        ),
        max_size=6,
        unique_by=lambda snapshot: snapshot.worker_id,
    ),
    st.integers(1, 1000),
    st.randoms(use_true_random=False),
)
def test_a_decision_fits_and_does_not_depend_on_the_order(
    workers: list[WorkerSnapshot], memory_mb: int, random: object
) -> None:
    request = PlacementRequest(memory_mb, "x86_64")
    chosen = DensePacking().choose(tuple(workers), request)
    assert (chosen is None) == (not any(has_room(each, request) for each in workers))
    if chosen is not None:
        assert has_room(next(each for each in workers if each.worker_id == chosen), request)
    shuffled = list(workers)
    random.shuffle(shuffled)
    assert DensePacking().choose(tuple(shuffled), request) == chosen


@pytest.mark.parametrize("memory_mb", [1001, 5000])
def test_what_is_larger_than_a_worker_fits_nowhere(memory_mb: int) -> None:
    assert choose(worker("a"), memory_mb=memory_mb) is None
