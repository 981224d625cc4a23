"""A bounded number of daemon threads for calls that block; none of them holds up the end of the process."""

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

WAITING_MAX = 10_000
"""Calls that wait for a thread."""


class CallThreads:
    """Threads are made as they are needed and kept. Calls are served in the order in which they came."""

    def __init__(self, name: str, *, threads_max: int) -> None:
        self._name = name
        self._threads_max = threads_max
        self._threads = 0
        self._idle = 0
        self._calls: queue.Queue[Callable[[], None]] = queue.Queue(WAITING_MAX)

    async def call(self, function: Callable[[], T]) -> T:
        """What ``function`` returns or raises. Cancelled, it runs to its end all the same.

        Raises:
            queue.Full: too many calls wait already.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()

        def run() -> None:
            try:
                result = function()
            except BaseException as problem:
                _tell(loop, _fail, answer, problem)
            else:
                _tell(loop, _succeed, answer, result)

        self.begin(run)
        return await answer

    def begin(self, call: Callable[[], None]) -> None:
        """Have ``call`` run some time soon; what it raises is lost. Raises queue.Full."""
        self._calls.put_nowait(call)
        if self._calls.qsize() > self._idle and self._threads < self._threads_max:
            self._threads += 1
            threading.Thread(target=self._serve, name=self._name, daemon=True).start()

    def _serve(self) -> None:
        while True:
            self._idle += 1
            call = self._calls.get()
            self._idle -= 1
            # What `call` wraps tells its own caller; the rest has nobody to tell.
            with contextlib.suppress(Exception):
                call()


def _tell(loop: asyncio.AbstractEventLoop, told: Callable[..., None], *what: Any) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(told, *what)


def _succeed(answer: asyncio.Future[Any], result: Any) -> None:
    if not answer.done():
        answer.set_result(result)


def _fail(answer: asyncio.Future[Any], problem: BaseException) -> None:
    if not answer.done():
        answer.set_exception(problem)
