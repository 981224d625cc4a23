"""Freezes idle sandboxes late and together: one timer for all, nothing to make or cancel per invocation."""

import asyncio
from itertools import islice
from typing import Protocol

from stoker.core.limits import FREEZE_AFTER_S

_SWEEP_S = FREEZE_AFTER_S / 2
FREEZES_PER_TURN = 16
"""A freeze is a system call of some 10 µs: a thousand at once would hold up every invocation so long."""


class Freezable(Protocol):
    """Something that may be frozen once it was idle long enough."""

    def freeze_if_idle(self) -> None: ...


class Freezer:
    """Whatever is watched is frozen between one and two sweeps later, unless it is forgotten before."""

    __slots__ = ("_due", "_loop", "_old", "_timer", "_turn", "_young")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        # Two generations instead of time stamps: who is in the old one at a sweep has waited long enough.
        self._young: dict[Freezable, None] = {}
        self._old: dict[Freezable, None] = {}
        self._due: dict[Freezable, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._turn: asyncio.Handle | None = None

    def watch(self, sandbox: Freezable) -> None:
        """Freeze ``sandbox`` within ``FREEZE_AFTER_S`` if it stays idle."""
        self._old.pop(sandbox, None)
        self._due.pop(sandbox, None)
        self._young[sandbox] = None
        if self._timer is None:
            self._timer = self._loop.call_later(_SWEEP_S, self._sweep)

    def forget(self, sandbox: Freezable) -> None:
        """It is in use again, or gone."""
        self._young.pop(sandbox, None)
        self._old.pop(sandbox, None)
        self._due.pop(sandbox, None)

    def _sweep(self) -> None:
        self._due |= self._old
        self._old, self._young = self._young, {}
        if self._turn is None:
            self._freeze_some()
        self._timer = self._loop.call_later(_SWEEP_S, self._sweep) if self._old or self._young else None

    def _freeze_some(self) -> None:
        self._turn = None
        for sandbox in list(islice(self._due, FREEZES_PER_TURN)):
            self._due.pop(sandbox, None)
            sandbox.freeze_if_idle()
        if self._due:
            self._turn = self._loop.call_soon(self._freeze_some)

    def close(self) -> None:
        """Freeze nothing more."""
        if self._timer is not None:
            self._timer.cancel()
        if self._turn is not None:
            self._turn.cancel()
        self._due.clear()
        self._young.clear()
        self._old.clear()
