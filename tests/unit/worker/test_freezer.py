"""Many idle sandboxes are frozen a few at a time, and none that is used again meanwhile."""

import asyncio

from stoker.core.limits import FREEZE_AFTER_S
from stoker.worker.freezer import FREEZES_PER_TURN, Freezer


class Idle:
    def __init__(self, frozen: list["Idle"]) -> None:
        self._frozen = frozen

    def freeze_if_idle(self) -> None:
        self._frozen.append(self)


async def sleep_past_two_sweeps() -> None:
    await asyncio.sleep(FREEZE_AFTER_S * 1.2)


async def test_a_thousand_are_frozen_once_each_and_others_have_their_turns_between() -> None:
    frozen: list[Idle] = []
    freezer, sandboxes = Freezer(), [Idle(frozen) for _ in range(1000)]
    for sandbox in sandboxes:
        freezer.watch(sandbox)
    seen, most = 0, 0
    ends_s = asyncio.get_running_loop().time() + FREEZE_AFTER_S * 1.2
    while asyncio.get_running_loop().time() < ends_s:
        await asyncio.sleep(0)
        most, seen = max(most, len(frozen) - seen), len(frozen)
    assert frozen == sandboxes
    assert most == FREEZES_PER_TURN
    freezer.close()


async def test_what_is_used_again_while_others_are_frozen_is_left_alone() -> None:
    frozen: list[Idle] = []
    freezer, sandboxes = Freezer(), [Idle(frozen) for _ in range(3 * FREEZES_PER_TURN)]
    for sandbox in sandboxes:
        freezer.watch(sandbox)
    while not frozen:
        await asyncio.sleep(0)
    freezer.forget(sandboxes[-1])
    freezer.watch(sandboxes[-2])
    await asyncio.sleep(FREEZE_AFTER_S / 4)
    assert frozen == sandboxes[:-2]
    await sleep_past_two_sweeps()
    assert frozen == sandboxes[:-1]
    freezer.close()


async def test_a_closed_one_freezes_nothing_more() -> None:
    frozen: list[Idle] = []
    freezer = Freezer()
    for _ in range(3 * FREEZES_PER_TURN):
        freezer.watch(Idle(frozen))
    while not frozen:
        await asyncio.sleep(0)
    freezer.close()
    await sleep_past_two_sweeps()
    assert len(frozen) == FREEZES_PER_TURN
