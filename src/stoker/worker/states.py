"""The life of one sandbox as a table: states, and every legal move between them. Pure."""

import enum

from stoker.core.errors import IllegalTransition


class SandboxState(enum.StrEnum):
    """Where a sandbox is in its life; the values are what ``stoker ps`` shows."""

    POOLED = "pooled"
    """Made, but of no function yet."""
    ASSIGNED = "assigned"
    """Belongs to one function version; its runtime is not started."""
    INITIALISING = "initialising"
    """The runtime loads the function, or failed to and waits for the first invocation to try again."""
    IDLE = "idle"
    BUSY = "busy"
    DRAINING = "draining"
    """Takes no invocation any more and is being removed."""
    DEAD = "dead"


_S = SandboxState

LEGAL: frozenset[tuple[SandboxState, SandboxState]] = frozenset(
    {
        (_S.POOLED, _S.ASSIGNED),
        (_S.POOLED, _S.DRAINING),
        (_S.ASSIGNED, _S.INITIALISING),
        (_S.ASSIGNED, _S.DRAINING),
        (_S.INITIALISING, _S.IDLE),
        # An invocation waited for Init to end, or repeats an Init that failed.
        (_S.INITIALISING, _S.BUSY),
        (_S.INITIALISING, _S.DRAINING),
        (_S.IDLE, _S.BUSY),
        (_S.IDLE, _S.DRAINING),
        (_S.BUSY, _S.IDLE),
        (_S.BUSY, _S.DRAINING),
        (_S.DRAINING, _S.DEAD),
    }
)
"""Every legal move; whatever is not listed is refused."""


class SandboxStates:
    """The current state of one sandbox; changes only along ``LEGAL``."""

    __slots__ = ("state",)

    def __init__(self) -> None:
        self.state = SandboxState.POOLED

    def move(self, target: SandboxState) -> None:
        """Go to ``target``.

        Raises:
            IllegalTransition: the table does not list the move; nothing changed.
        """
        if (self.state, target) not in LEGAL:
            raise IllegalTransition(f"a sandbox cannot go from {self.state.value} to {target.value}")
        self.state = target

    @property
    def is_over(self) -> bool:
        """Whether the sandbox takes nothing any more."""
        return self.state in (SandboxState.DRAINING, SandboxState.DEAD)
