"""Every move of a sandbox that is not listed is refused."""

import itertools

import pytest

from stoker.core.errors import IllegalTransition
from stoker.worker.states import LEGAL, SandboxState, SandboxStates

LIFE = ["pooled", "assigned", "initialising", "idle", "busy", "idle", "busy", "draining", "dead"]


def test_a_whole_life() -> None:
    states = SandboxStates()
    for name in LIFE[1:]:
        states.move(SandboxState(name))
    assert states.is_over


@pytest.mark.parametrize(
    "pair", [pair for pair in itertools.product(SandboxState, repeat=2) if pair not in LEGAL]
)
def test_whatever_is_not_listed_is_refused(pair: tuple[SandboxState, SandboxState]) -> None:
    states = SandboxStates()
    states.state = pair[0]
    with pytest.raises(IllegalTransition):
        states.move(pair[1])
    assert states.state is pair[0]


def test_nothing_leads_out_of_death_or_back_to_a_pool() -> None:
    assert not [pair for pair in LEGAL if pair[0] is SandboxState.DEAD]
    assert not [pair for pair in LEGAL if pair[1] is SandboxState.POOLED]
    assert {pair[1] for pair in LEGAL if pair[0] is SandboxState.DRAINING} == {SandboxState.DEAD}
