"""How many sandboxes to make before anybody asks for them. Decisions only: plain functions over values.

*Proactive initialisation*: while the concurrency of a version rises, the next sandbox is prepared as soon as
the last idle one is taken, so that the next caller finds it warm. *Provisioned concurrency*: a version keeps
as many initialised sandboxes as was asked for.
"""

from typing import Final

from stoker.services.functions import FunctionVersion

RISING_FROM: Final = 2
"""Sandboxes in use at one time from which concurrency counts as rising: a lone caller needs just one."""

PROVISIONING_AT_ONCE: Final = 4
"""Sandboxes of one version that are provisioned at the same time."""

RETRY_FIRST_S: Final = 1.0
RETRY_MAX_S: Final = 60.0


def wants_proactive(*, in_use: int, idle: int, making: int) -> bool:
    """Whether to prepare one more sandbox of a version, given its sandboxes by state."""
    return in_use >= RISING_FROM and not idle and not making


class Provision:
    """What one version is to have and how far that is. Times are of one monotonic clock, in seconds."""

    __slots__ = ("count", "failure", "function", "making", "retry_at_s", "retry_s")

    def __init__(self, function: FunctionVersion, count: int) -> None:
        self.function = function
        self.count = count
        self.making = 0
        self.failure: str | None = None
        """Why the last attempt failed; None once one went well."""
        self.retry_s = RETRY_FIRST_S
        self.retry_at_s = 0.0

    def missing(self, available: int, now_s: float) -> int:
        """How many sandboxes to begin making now."""
        if now_s < self.retry_at_s:
            return 0
        at_once = 1 if self.failure is not None else PROVISIONING_AT_ONCE
        return max(0, min(self.count - available - self.making, at_once - self.making))

    def succeeded(self) -> None:
        """One sandbox more is there."""
        self.failure = None
        self.retry_s = RETRY_FIRST_S

    def failed(self, why: str, now_s: float) -> None:
        """An attempt failed: the next one waits, longer each time."""
        self.failure = why
        self.retry_at_s = now_s + self.retry_s
        self.retry_s = min(self.retry_s * 2, RETRY_MAX_S)
