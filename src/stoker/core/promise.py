"""What comes later and is told at once: its callbacks run in the very turn of the event loop that settles it.

A future of the loop tells its callbacks in the next turn; on the way of a warm invocation that is a look at
every socket for nothing. It knows nothing of what is promised.
"""

import asyncio
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Generic, TypeVar, cast

T = TypeVar("T")


class Promise(Generic[T]):
    """Settled once, by ``succeed``, ``fail`` or ``cancel``; whatever comes after that has no effect.

    ``unclaimed`` is given what a task that awaited it could not take, because it was cancelled just then.
    """

    __slots__ = ("_callbacks", "_source", "_unclaimed", "_value", "done", "error")

    def __init__(self, unclaimed: Callable[[T], object] | None = None) -> None:
        self.done = False
        self.error: BaseException | None = None
        """What it failed with; CancelledError when it was cancelled. None before it is settled."""
        self._value: T | None = None
        self._callbacks: list[Callable[[Promise[T]], object]] = []
        self._unclaimed = unclaimed
        self._source: asyncio.Future[T] | None = None

    @property
    def cancelled(self) -> bool:
        """Whether nobody is interested any more."""
        return isinstance(self.error, asyncio.CancelledError)

    def result(self) -> T:
        """What it succeeded with; raises what it failed with."""
        if self.error is not None:
            raise self.error
        return cast(T, self._value)

    def succeed(self, value: T) -> None:
        if not self.done:
            self._value = value
            self._settle()

    def fail(self, error: BaseException) -> None:
        if not self.done:
            self.error = error
            self._settle()

    def cancel(self) -> None:
        """Settle it for want of interest; a task that it comes from is cancelled and ends first."""
        if self._source is not None:
            self._source.cancel()
        else:
            self.fail(asyncio.CancelledError())

    def when_done(self, callback: "Callable[[Promise[T]], object]") -> None:
        """Call ``callback`` once, in the turn that settles it; now, if it is settled."""
        if self.done:
            callback(self)
        else:
            self._callbacks.append(callback)

    def _settle(self) -> None:
        self.done = True
        for callback in self._callbacks:
            try:
                callback(self)
            except Exception as error:
                # As a future would: whoever settles it has no part in what others make of it.
                context = {"message": "a callback of a promise failed", "exception": error}
                asyncio.get_running_loop().call_exception_handler(context)
        self._callbacks.clear()

    def follow(self, source: "asyncio.Future[T]") -> None:
        """Settle it as ``source`` is settled."""
        self._source = source
        source.add_done_callback(self._copy)

    def _copy(self, source: "asyncio.Future[T]") -> None:
        if source.cancelled():
            self.fail(asyncio.CancelledError())
        elif (error := source.exception()) is not None:
            self.fail(error)
        else:
            self.succeed(source.result())

    def __await__(self) -> Generator[Any, None, T]:
        if not self.done:
            settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.when_done(lambda _: None if settled.done() else settled.set_result(None))
            try:
                yield from settled
            except asyncio.CancelledError:
                if self.done and self.error is None and self._unclaimed is not None:
                    self._unclaimed(cast(T, self._value))
                self.cancel()
                raise
        return self.result()


def promise_of(awaitable: Awaitable[T]) -> Promise[T]:
    """``awaitable`` itself if it is a promise; else one of a task which awaits it."""
    if isinstance(awaitable, Promise):
        return awaitable
    promise: Promise[T] = Promise()
    promise.follow(asyncio.ensure_future(awaitable))
    return promise
