"""How the pollers of the durable queue wait: until something falls due, or they are woken. Knows no queue."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

IDLE_WAIT_MIN_S = 0.001
"""Clocks differ by less: waking a hair before something is due must not become a busy loop."""
IDLE_WAIT_MAX_S = 60.0
FAILURE_WAIT_S = 1.0
"""Before the queue is asked again after it failed."""

_log = structlog.get_logger("stoker.events")


def wait_until_s(due_s: float | None, now_s: float) -> float:
    """How long there is nothing to do; ``due_s`` None: nothing waits."""
    if due_s is None:
        return IDLE_WAIT_MAX_S
    return min(IDLE_WAIT_MAX_S, max(IDLE_WAIT_MIN_S, due_s - now_s))


async def poll(take: Callable[[], Awaitable[float]], wake: asyncio.Event, *, failed: str) -> None:
    """Call ``take`` for ever, waiting each time as long as it says or until woken; ``failed`` is logged."""
    while True:
        wake.clear()
        try:
            wait_s = await take()
        except Exception as error:
            _log.error(failed, reason=repr(error))
            wait_s = FAILURE_WAIT_S
        if wait_s > 0:
            try:
                await asyncio.wait_for(wake.wait(), wait_s)
            except TimeoutError:
                continue
