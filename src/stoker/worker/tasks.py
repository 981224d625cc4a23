"""Tasks nobody waits for one by one: kept until they end, so that none is lost and none fails unheard."""

import asyncio
from collections.abc import Coroutine
from typing import Any


class Background:
    """What a task raises reaches the loop's exception handler."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            context = {"message": "a background task of the worker failed", "exception": error, "task": task}
            task.get_loop().call_exception_handler(context)

    async def wait(self) -> None:
        """Until all have ended, those included that they start."""
        while self._tasks:
            await asyncio.wait(tuple(self._tasks))
