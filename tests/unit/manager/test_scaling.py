"""The scaling rate: 1,000 environments at once, then 100 a second, nothing saved up."""

from stoker.manager.scaling import ScalingRate
from stoker.services.functions import FunctionKey

ONE = FunctionKey("000000000000", "us-east-1", "one")
OTHER = FunctionKey("000000000000", "us-east-1", "other")


def taken(rate: ScalingRate, now_s: float, key: FunctionKey = ONE) -> int:
    count = 0
    while rate.take(key, now_s):
        count += 1
    return count


def test_a_burst_then_a_hundred_a_second() -> None:
    rate = ScalingRate()
    assert taken(rate, 0.0) == 1000
    assert taken(rate, 0.005) == 0
    assert taken(rate, 1.0) == 100
    assert taken(rate, 11.0) == 1000


def test_nothing_is_saved_up() -> None:
    rate = ScalingRate()
    assert taken(rate, 0.0) == 1000
    assert taken(rate, 3600.0) == 1000


def test_functions_do_not_share_a_rate() -> None:
    rate = ScalingRate()
    assert taken(rate, 0.0) == 1000
    assert taken(rate, 0.0, OTHER) == 1000


def test_full_buckets_are_forgotten() -> None:
    rate = ScalingRate()
    rate.take(ONE, 0.0)
    rate.prune(0.005)
    assert len(rate) == 1
    rate.prune(0.02)
    assert len(rate) == 0
    assert taken(rate, 0.02) == 1000


def test_what_was_not_made_does_not_count() -> None:
    rate = ScalingRate()
    assert taken(rate, 0.0) == 1000
    rate.give_back(ONE)
    assert taken(rate, 0.0) == 1
    rate.give_back(OTHER)
    assert taken(rate, 0.0, OTHER) == 1000
