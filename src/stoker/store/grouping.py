"""Writes that arrive while one is under way go together into the next: one statement for many rows costs a
fraction of many statements, even where they share a commit. Knows nothing of what is written.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

GROUP_MAX = 256
"""Items of one write."""


class Grouping(Generic[Item, Result]):
    """``write`` takes several items and returns what became of each, in their order.

    A group whose write fails is written again item by item, so that one bad item fails alone.
    """

    def __init__(self, write: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]]) -> None:
        self._write = write
        self._waiting: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._writer: asyncio.Task[None] | None = None

    async def submit(self, item: Item) -> Result:
        """Returns once the item is written; raises what its write raises."""
        result: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, result))
        if self._writer is None:
            self._writer = asyncio.get_running_loop().create_task(self._run())
        return await result

    async def _run(self) -> None:
        try:
            while self._waiting:
                group = [self._waiting.popleft() for _ in range(min(GROUP_MAX, len(self._waiting)))]
                await self._write_group(group)
        finally:
            self._writer = None
            for _, result in self._waiting:  # only when this task was cancelled: the loop is closing
                result.cancel()
            self._waiting.clear()

    async def _write_group(self, group: Sequence[tuple[Item, asyncio.Future[Result]]]) -> None:
        try:
            results = await self._write([item for item, _ in group])
        except Exception as problem:
            if len(group) == 1:
                _fail(group[0][1], problem)
                return
            for one in group:
                await self._write_group([one])
            return
        for (_, result), value in zip(group, results, strict=True):
            if not result.done():
                result.set_result(value)


def _fail(result: asyncio.Future[Result], problem: Exception) -> None:
    if not result.done():
        result.set_exception(problem)
