"""Percentiles and metrics pages, against values worked out by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.percentiles import grown, mean_ms, median, parse_metrics, percentile

PAGE = """# HELP stoker_worker_init_seconds Worker: init_ms
# TYPE stoker_worker_init_seconds histogram
stoker_worker_init_seconds_bucket{le="0.01"} 3.0
stoker_worker_init_seconds_bucket{le="+Inf"} 4.0
stoker_worker_init_seconds_count 4.0
stoker_worker_init_seconds_sum 0.05
stoker_worker_invocations_total 1.5e+06
"""


def test_percentile_is_the_nearest_rank() -> None:
    samples = [15.0, 20.0, 35.0, 40.0, 50.0]
    assert [percentile(samples, percent) for percent in (0, 5, 30, 40, 50, 100)] == [15, 15, 20, 20, 35, 50]


def test_tail_of_a_hundred() -> None:
    samples = [float(number) for number in range(100, 0, -1)]
    assert (percentile(samples, 99), percentile(samples, 99.9)) == (99, 100)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1), st.floats(0, 100))
def test_percentile_is_a_sample_that_enough_do_not_exceed(samples: list[float], percent: float) -> None:
    found = percentile(samples, percent)
    assert found in samples
    assert sum(sample <= found for sample in samples) >= len(samples) * percent / 100 - 1e-9


@pytest.mark.parametrize(("samples", "percent"), [([], 50.0), ([1.0], -1.0), ([1.0], 101.0)])
def test_no_percentile_of_nothing(samples: list[float], percent: float) -> None:
    with pytest.raises(ValueError, match="no percentile"):
        percentile(samples, percent)


def test_median_of_odd_and_even() -> None:
    assert median([3, 1, 2]) == 2
    assert median([4, 1, 2, 3]) == 2.5
    with pytest.raises(ValueError, match="no median"):
        median([])


def test_metrics_page() -> None:
    page = parse_metrics(PAGE)
    assert page['stoker_worker_init_seconds_bucket{le="0.01"}'] == 3
    assert page["stoker_worker_invocations_total"] == 1_500_000
    assert len(page) == 5


def test_what_a_histogram_took_in_between() -> None:
    before = {"x_seconds_count": 2.0, "x_seconds_sum": 0.01, "hits": 1.0}
    after = {"x_seconds_count": 6.0, "x_seconds_sum": 0.03, "hits": 4.0}
    assert mean_ms(before, after, "x_seconds") == pytest.approx((5.0, 4))
    assert mean_ms(after, after, "x_seconds") is None
    assert mean_ms({}, {}, "unknown") is None
    assert grown(before, after, "hits") == 3
    assert grown(before, after, "unknown") == 0
