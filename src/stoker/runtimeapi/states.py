"""The life of one runtime as the Lambda Runtime API sees it: states, moves and the table of legal ones.

Pure: no sockets, no clock. Names and refusals are those of AWS's open source runtime interface emulator
(``internal/lambda/core/states.go``), where every transition is illegal until a state opts in.
"""

import enum

from stoker.core.errors import IllegalTransition


class State(enum.Enum):
    """Where the runtime is. The values are the names that AWS uses in its error messages."""

    # Members are compared by identity; Enum's own hash is Python code, called several times an invocation.
    __hash__ = object.__hash__

    POOLED = "Pooled"
    """A pre-started process of no function yet: it may only wait for its assignment. Stoker's own state."""
    STARTED = "Started"
    """The process runs its initialisation; nothing was asked yet."""
    INIT_ERROR = "InitError"
    """It reported that its initialisation failed; nothing more is accepted."""
    READY = "Ready"
    """It waits in ``/next``."""
    RUNNING = "Running"
    """It has an invocation and owes an answer."""
    RESPONSE_SENT = "RuntimeResponseSentState"
    """It has answered and not asked for more yet."""
    DEAD = "Dead"
    """The server is closed."""


class Move(enum.Enum):
    """What can happen. The values are the target names that AWS uses in its error messages."""

    # Members are compared by identity; Enum's own hash is Python code, called several times an invocation.
    __hash__ = object.__hash__

    ASSIGN = "Started"
    NEXT = "Ready"
    DELIVER = "Running"
    RESPONSE = "InvocationResponse"
    ERROR = "InvocationErrorResponse"
    INIT_ERROR = "InitError"
    CLOSE = "Dead"


LEGAL: dict[tuple[State, Move], State] = {
    (State.POOLED, Move.ASSIGN): State.STARTED,
    (State.STARTED, Move.NEXT): State.READY,
    (State.STARTED, Move.INIT_ERROR): State.INIT_ERROR,
    (State.READY, Move.NEXT): State.READY,
    (State.READY, Move.DELIVER): State.RUNNING,
    # A runtime that lost the answer to /next may ask again and gets the same invocation once more.
    (State.RUNNING, Move.NEXT): State.RUNNING,
    (State.RUNNING, Move.RESPONSE): State.RESPONSE_SENT,
    (State.RUNNING, Move.ERROR): State.RESPONSE_SENT,
    (State.RESPONSE_SENT, Move.NEXT): State.READY,
    **{(state, Move.CLOSE): State.DEAD for state in State},
}
"""Every legal transition; whatever is not listed is refused."""


class RuntimeStates:
    """The current state and the request id it belongs to; changes only along ``LEGAL``."""

    __slots__ = ("request_id", "state")

    def __init__(self, *, pooled: bool = False) -> None:
        self.state = State.POOLED if pooled else State.STARTED
        self.request_id: str | None = None
        """The invocation delivered last; it stays after the answer, as in the emulator."""

    def allows(self, move: Move) -> bool:
        """Whether ``move`` is legal now."""
        return (self.state, move) in LEGAL

    def apply(self, move: Move) -> State:
        """Make a move and return the new state.

        Raises:
            IllegalTransition: the table does not list it; nothing changed. The text is AWS's.
        """
        target = LEGAL.get((self.state, move))
        if target is None:
            raise IllegalTransition(refusal(self.state, move))
        self.state = target
        return target

    def deliver(self, request_id: str) -> None:
        """The runtime takes an invocation.

        Raises:
            IllegalTransition: it does not wait for one.
        """
        self.apply(Move.DELIVER)
        self.request_id = request_id


def refusal(state: State, move: Move) -> str:
    """AWS's text for a refused transition (``handler/constants.go`` of the emulator)."""
    return (
        f"State transition from {state.value} to {move.value} failed for runtime. "
        "Error: State transition is not allowed"
    )
