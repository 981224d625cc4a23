"""The host's available memory as the worker sees it: cached for a moment, compared with the reserve."""

from stoker.core.clock import ManualClock
from stoker.worker.headroom import READING_MAX_AGE_S, Headroom


class Host:
    def __init__(self, available_mb: int) -> None:
        self.available_mb = available_mb
        self.readings = 0

    def read(self) -> int:
        self.readings += 1
        return self.available_mb


def test_what_is_missing_of_the_reserve() -> None:
    for available_mb, missing_mb in ((1000, 0), (256, 0), (255, 1), (0, 256)):
        assert Headroom(ManualClock(), 256, Host(available_mb).read).missing_mb() == missing_mb


def test_the_host_is_read_once_for_a_burst_and_again_after_it() -> None:
    clock, host = ManualClock(), Host(100)
    headroom = Headroom(clock, 256, host.read)
    assert [headroom.missing_mb() for _ in range(50)] == [156] * 50
    assert host.readings == 1
    host.available_mb = 300
    clock.advance(READING_MAX_AGE_S / 2)
    assert headroom.missing_mb() == 156
    clock.advance(READING_MAX_AGE_S)
    assert headroom.missing_mb() == 0
    assert host.readings == 2


def test_no_reserve_looks_at_nothing() -> None:
    host = Host(0)
    assert Headroom(ManualClock(), 0, host.read).missing_mb() == 0
    assert host.readings == 0
