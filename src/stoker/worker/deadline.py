"""A deadline that is set at every invocation and mostly never comes: one timer serves many of them."""

import asyncio
from collections.abc import Callable


class Deadline:
    """At most one deadline at a time. Its timer is left running and looks, when it fires, what is due."""

    __slots__ = ("_callback", "_due_s", "_loop", "_timer", "_timer_due_s")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._callback: Callable[[], None] | None = None
        self._due_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due_s = 0.0

    @property
    def is_set(self) -> bool:
        """Whether ``callback`` may still be called."""
        return self._callback is not None

    def set(self, after_s: float, callback: Callable[[], None]) -> None:
        """Call ``callback`` in ``after_s`` seconds, in place of whatever was set before."""
        self._callback = callback
        self._due_s = self._loop.time() + after_s
        if self._timer is not None and self._timer_due_s > self._due_s:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._arm(after_s)

    def clear(self) -> None:
        """Call nothing; the timer goes on for the deadlines to come."""
        self._callback = None

    def close(self) -> None:
        """Call nothing any more."""
        self._callback = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, after_s: float) -> None:
        self._timer_due_s = self._due_s
        self._timer = self._loop.call_later(after_s, self._fire)

    def _fire(self) -> None:
        self._timer = None
        callback = self._callback
        if callback is None:
            return
        left_s = self._due_s - self._loop.time()
        if left_s > 0:
            self._arm(left_s)
            return
        self._callback = None
        callback()
