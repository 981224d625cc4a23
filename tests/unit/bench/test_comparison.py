"""When a ratio counts as a regression."""

import pytest

from bench.comparison import compare, vanished
from bench.figures import Figure, Measured, read_record, write_record


def figure(name: str, value: float, yardstick: float | None = 10, **rest: object) -> Figure:
    return Figure(name=name, value=value, unit="ms", n=5, yardstick=yardstick, **rest)  # type: ignore[arg-type]


def test_lower_is_better() -> None:
    (change,) = compare([figure("a", 16)], [figure("a", 10)])
    assert (change.ratio, change.landed) == (1.6, 1.0)
    assert change.worse == pytest.approx(0.6)
    assert change.failed


def test_a_slower_machine_is_no_regression() -> None:
    (change,) = compare([figure("a", 30, yardstick=30)], [figure("a", 10)])
    assert change.worse == pytest.approx(0)
    assert not change.failed


def test_higher_is_better() -> None:
    now, landed = figure("rate", 4, higher_is_better=True), figure("rate", 10, higher_is_better=True)
    assert compare([now], [landed])[0].failed
    assert compare([now], [landed])[0].worse == pytest.approx(1.5)
    assert compare([landed], [now])[0].worse == pytest.approx(-0.6)


@pytest.mark.parametrize(
    ("tolerance", "slack", "failed"), [(0.5, 1, True), (0.5, 2, False), (None, 1, False)]
)
def test_tolerance_is_the_new_run_s(tolerance: float | None, slack: float, failed: bool) -> None:
    changes = compare([figure("a", 16, tolerance=tolerance)], [figure("a", 10)], slack)
    assert [change.failed for change in changes] == [failed]


def test_only_what_has_a_ratio_in_both_is_compared_worst_first() -> None:
    now = [figure("a", 11), figure("b", 12), figure("new", 1), figure("bare", 9, yardstick=None)]
    landed = [figure("a", 10), figure("b", 10), figure("bare", 1, yardstick=None)]
    assert [change.name for change in compare(now, landed)] == ["b", "a"]


def test_what_is_not_measured_any_more_is_named() -> None:
    landed = [figure("a", 1), figure("b", 1), figure("bare", 1, yardstick=None)]
    assert vanished([figure("a", 1), figure("b", 1, yardstick=None)], landed) == ["b"]


def test_record_comes_back_with_ratios_written(tmp_path) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "results" / "latest.json"
    measured = Measured(
        figures=[figure("a", 5), figure("b", 5, yardstick=None)],
        machine={"cpu": "x"},
        load_before=0.1,
        seconds=2,
    )
    write_record(file, {"warm": measured})
    assert read_record(file) == {"warm": measured}
    assert file.read_text().count('"ratio": 0.5') == 1
    assert read_record(tmp_path / "none.json") == {}
