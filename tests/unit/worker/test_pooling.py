"""How many pre-warmed sandboxes there should be."""

from hypothesis import given, settings
from hypothesis import strategies as st

from stoker.worker.pooling import KEEP_S, KINDS_MAX, PEAK_HALF_LIFE_S, PoolLimits, PoolPlan, Step

PYTHON, NODE = "python3.11", "nodejs20.x"


def plan(memory_mb: int = 256, floor: int = 2, ceiling: int = 64) -> PoolPlan:
    return PoolPlan(PoolLimits(memory_mb=memory_mb, floor=floor, ceiling=ceiling))


def test_nothing_is_kept_for_nobody() -> None:
    assert plan().next_step(0.0, {}, 100) is None


def test_a_kind_that_was_used_keeps_the_floor_and_is_forgotten_in_the_end() -> None:
    sizes = plan()
    sizes.expect(PYTHON, 10, 0.0)
    sizes.took(PYTHON, 0.0)
    assert sizes.targets(KEEP_S - 1, 100) == {PYTHON: 2}
    assert sizes.targets(KEEP_S, 100) == {PYTHON: 0}
    assert sizes.next_step(KEEP_S, {PYTHON: 2}, 100) == Step(PYTHON, grow=False)
    sizes.forget_unused(KEEP_S)
    assert sizes.targets(KEEP_S, 100) == {}
    assert sizes.next_step(KEEP_S, {PYTHON: 2}, 100) == Step(PYTHON, grow=False)


def test_the_target_follows_a_burst_and_comes_back() -> None:
    sizes = plan(memory_mb=10_000)
    sizes.expect(PYTHON, 10, 0.0)
    for _ in range(20):
        sizes.took(PYTHON, 1.0)
    assert sizes.targets(1.0, 100)[PYTHON] == 20
    assert sizes.targets(1.0 + PEAK_HALF_LIFE_S, 100)[PYTHON] == 10
    assert sizes.targets(1.0 + 5 * PEAK_HALF_LIFE_S, 100)[PYTHON] == 2


def test_takes_far_apart_are_no_burst() -> None:
    sizes = plan()
    sizes.expect(PYTHON, 10, 0.0)
    for minute in range(30):
        sizes.took(PYTHON, minute * 60.0)
    assert sizes.targets(30 * 60.0, 100)[PYTHON] == 2


def test_the_budget_is_shared_so_that_a_flood_leaves_the_others_theirs() -> None:
    sizes = plan(memory_mb=100)
    sizes.expect(PYTHON, 10, 0.0)
    sizes.expect(NODE, 40, 0.0)
    for _ in range(1000):
        sizes.took(PYTHON, 1.0)
    assert sizes.targets(1.0, 100) == {PYTHON: 2, NODE: 2}
    assert sizes.targets(1.0, 3) == {PYTHON: 2, NODE: 1}


def test_what_is_weighed_replaces_the_guess() -> None:
    sizes = plan(memory_mb=40)
    sizes.expect(NODE, 45, 0.0)
    assert sizes.targets(0.0, 100) == {NODE: 0}
    sizes.weigh(NODE, 20)
    assert sizes.targets(0.0, 100) == {NODE: 2}
    assert sizes.memory_mb({NODE: 2, "gone": 1}) == 40


def test_the_emptiest_grows_first_and_what_is_over_goes_before() -> None:
    sizes = plan()
    sizes.expect(PYTHON, 10, 0.0)
    sizes.expect(NODE, 40, 1.0)
    assert sizes.next_step(1.0, {}, 100) == Step(NODE, grow=True)
    assert sizes.next_step(1.0, {NODE: 1}, 100) == Step(PYTHON, grow=True)
    assert sizes.next_step(1.0, {NODE: 2, PYTHON: 2}, 100) is None
    assert sizes.next_step(1.0, {NODE: 1, PYTHON: 3}, 100) == Step(PYTHON, grow=False)


def test_kinds_are_bounded() -> None:
    sizes = plan(memory_mb=100_000)
    for number in range(KINDS_MAX + 10):
        sizes.expect(f"kind{number}", 1, float(number))
    kept = sizes.targets(0.0, 10_000)
    assert len(kept) == KINDS_MAX
    assert "kind0" not in kept


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["take", "weigh", "wait"]),
        st.sampled_from([PYTHON, NODE, "provided"]),
        st.floats(0.1, 200),
    ),
    max_size=60,
)


@settings(deadline=None)
@given(ACTIONS, st.integers(0, 400), st.integers(0, 30))
def test_steps_end_within_every_bound(
    actions: list[tuple[str, str, float]], memory_mb: int, room: int
) -> None:
    sizes, now_s, stock = plan(memory_mb, ceiling=8), 0.0, dict[str, int]()
    for action, kind, number in actions:
        sizes.expect(kind, 10, now_s)
        if action == "take":
            sizes.took(kind, now_s)
            stock[kind] = max(0, stock.get(kind, 0) - 1)
        elif action == "weigh":
            sizes.weigh(kind, number)
        else:
            now_s += number
    for _ in range(200):
        step = sizes.next_step(now_s, stock, room)
        if step is None:
            break
        stock[step.kind] = stock.get(step.kind, 0) + (1 if step.grow else -1)
    assert step is None
    assert sizes.memory_mb(stock) <= memory_mb
    assert sum(stock.values()) <= room
    assert all(0 <= count <= 8 for count in stock.values())
