"""Freezes idle sandboxes late and together: one timer for all, nothing to make or cancel per invocation."""

import asyncio
from typing import Protocol

from stoker.core.limits import FREEZE_AFTER_S

_SWEEP_S = FREEZE_AFTER_S / 2


class Freezable(Protocol):
    """Something that may be frozen once it was idle long enough."""

    def freeze_if_idle(self) -> None: ...


class Freezer:
    """Whatever is watched is frozen between one and two sweeps later, unless it is forgotten before."""

    __slots__ = ("_loop", "_old", "_timer", "_young")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        # Two generations instead of time stamps: who is in the old one at a sweep has waited long enough.
        self._young: dict[Freezable, None] = {}
        self._old: dict[Freezable, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, sandbox: Freezable) -> None:
        """Freeze ``sandbox`` within ``FREEZE_AFTER_S`` if it stays idle."""
        self._old.pop(sandbox, None)
        self._young[sandbox] = None
        if self._timer is None:
            self._timer = self._loop.call_later(_SWEEP_S, self._sweep)

    def forget(self, sandbox: Freezable) -> None:
        """It is in use again, or gone."""
        self._young.pop(sandbox, None)
        self._old.pop(sandbox, None)

    def _sweep(self) -> None:
        due, self._old, self._young = self._old, self._young, {}
        for sandbox in due:
            sandbox.freeze_if_idle()
        self._timer = self._loop.call_later(_SWEEP_S, self._sweep) if self._old or self._young else None

    def close(self) -> None:
        """Freeze nothing more."""
        if self._timer is not None:
            self._timer.cancel()
        self._young.clear()
        self._old.clear()
