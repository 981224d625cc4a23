"""Soft state within one process: who is told that a function changed."""

from collections.abc import Callable

from stoker.services.functions import FunctionKey


class LocalInvalidation:
    """The Invalidation port where every cache lives in this process; subscribers are called at once."""

    def __init__(self) -> None:
        self._callbacks: list[Callable[[FunctionKey], None]] = []

    def publish(self, key: FunctionKey) -> None:
        for callback in self._callbacks:
            callback(key)

    def subscribe(self, callback: Callable[[FunctionKey], None]) -> None:
        self._callbacks.append(callback)
