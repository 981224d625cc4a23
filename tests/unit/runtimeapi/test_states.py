"""Every pair of state and move, against the table AWS's emulator follows."""

import pytest

from stoker.core.errors import IllegalTransition
from stoker.runtimeapi.states import LEGAL, Move, RuntimeStates, State, refusal

ALLOWED = {
    State.POOLED: {Move.ASSIGN, Move.CLOSE},
    State.STARTED: {Move.NEXT, Move.INIT_ERROR, Move.CLOSE},
    State.INIT_ERROR: {Move.CLOSE},
    State.READY: {Move.NEXT, Move.DELIVER, Move.CLOSE},
    State.RUNNING: {Move.NEXT, Move.RESPONSE, Move.ERROR, Move.CLOSE},
    State.RESPONSE_SENT: {Move.NEXT, Move.CLOSE},
    State.DEAD: {Move.CLOSE},
}


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("move", Move)
def test_only_listed_moves_are_legal(state, move):
    states = RuntimeStates()
    states.state = state
    if move in ALLOWED[state]:
        assert states.apply(move) is LEGAL[state, move]
    else:
        with pytest.raises(IllegalTransition):
            states.apply(move)
        assert states.state is state


def test_refusal_in_aws_words():
    assert refusal(State.RESPONSE_SENT, Move.ERROR) == (
        "State transition from RuntimeResponseSentState to InvocationErrorResponse failed for runtime. "
        "Error: State transition is not allowed"
    )


def test_delivery_needs_a_waiting_runtime_and_remembers_the_request():
    states = RuntimeStates()
    with pytest.raises(IllegalTransition):
        states.deliver("a")
    assert states.request_id is None
    states.apply(Move.NEXT)
    states.deliver("a")
    assert (states.state, states.request_id) == (State.RUNNING, "a")
