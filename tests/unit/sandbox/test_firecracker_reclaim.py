"""Idle memory is taken back before a freeze, and always given back."""

import asyncio

import pytest

from stoker.sandbox.firecracker import reclaim
from stoker.sandbox.firecracker import records as fc
from stoker.sandbox.firecracker.api import FirecrackerApi
from stoker.sandbox.firecracker.faults import VmmRefused
from stoker.sandbox.firecracker.reclaim import Reclaimer


class Balloons(FirecrackerApi):
    """Keeps what it was asked; ``slow_s`` is how long an answer takes."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.slow_s = 0.0
        self.refuses = False

    async def patch_balloon(self, update: fc.BalloonUpdate) -> None:
        self.asked.append(update.amount_mib)
        await asyncio.sleep(self.slow_s)
        if self.refuses:
            raise VmmRefused("PATCH /balloon", 400, "Device not activated yet")


@pytest.fixture
def balloons(monkeypatch: pytest.MonkeyPatch) -> Balloons:
    monkeypatch.setattr(reclaim, "RECLAIM_WITHIN_S", 0.02)
    return Balloons()


async def test_what_is_free_is_taken_and_given_back(balloons: Balloons) -> None:
    reclaimer = Reclaimer(balloons, 512, lambda: 100)
    await reclaimer.shrink()
    await reclaimer.give_back()
    await reclaimer.give_back()
    assert balloons.asked == [512 - 100 - reclaim.KEEP_MIB, 0]


async def test_little_is_left_alone(balloons: Balloons) -> None:
    reclaimer = Reclaimer(balloons, 192, lambda: 150)
    await reclaimer.shrink()
    await reclaimer.give_back()
    assert balloons.asked == []


async def test_a_thaw_in_the_middle_gives_back_what_was_asked(balloons: Balloons) -> None:
    balloons.slow_s = 1.0
    reclaimer = Reclaimer(balloons, 512, lambda: 100)
    shrinking = asyncio.create_task(reclaimer.shrink())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    shrinking.cancel()
    balloons.slow_s = 0
    await reclaimer.give_back()
    assert balloons.asked[-1] == 0


async def test_a_guest_that_refuses_is_frozen_all_the_same(balloons: Balloons) -> None:
    balloons.refuses = True
    reclaimer = Reclaimer(balloons, 512, lambda: 100)
    await reclaimer.shrink()
    balloons.slow_s = 1.0
    balloons.refuses = False
    await asyncio.wait_for(reclaimer.shrink(), 0.5)
