"""What an invocation must know of its function, kept until a write says otherwise."""

import asyncio
from collections.abc import Callable

import msgspec
import structlog

from stoker.frontend.cache import LoadingCache
from stoker.services.functions import LATEST, FunctionKey, FunctionMetadata, FunctionVersion, Invalidation

FUNCTIONS_KEPT = 10_000
ACCOUNTS_KEPT = 1_000

_log = structlog.get_logger("stoker.frontend")

Account = tuple[str, str]


class InvocableFunction(msgspec.Struct, frozen=True):
    """A function's $LATEST with what admission needs."""

    version: FunctionVersion
    arn: str
    reserved_concurrency: int | None
    active: bool


class FunctionDirectory:
    """Functions and reserved totals by key, read once and then from memory.

    After ``Invalidation.publish`` returned, nobody is given what was read before it. Each change is read
    again at once, so that ``changed`` (which retires sandboxes of old deployments) is told without an invoke.
    """

    def __init__(
        self,
        metadata: FunctionMetadata,
        invalidation: Invalidation,
        changed: Callable[[FunctionKey, FunctionVersion | None], None],
    ) -> None:
        self._metadata = metadata
        self._changed = changed
        self._functions = LoadingCache(self._read_function, capacity=FUNCTIONS_KEPT, loaded=self._loaded)
        self._totals = LoadingCache(self._read_total, capacity=ACCOUNTS_KEPT)
        self._waiters: dict[FunctionKey, set[asyncio.Future[None]]] = {}
        self._refresh: dict[FunctionKey, None] = {}
        self._refreshing: asyncio.Task[None] | None = None
        self.function_nowait = self._functions.get
        self.total_reserved_nowait = self._totals.get
        invalidation.subscribe(self._invalidated)

    async def function(self, key: FunctionKey) -> InvocableFunction | None:
        """The function, or None when there is none."""
        return self._functions.get(key) or await self._functions.load(key)

    async def total_reserved(self, account: Account) -> int:
        """The sum of all reserved concurrency of an account in a region."""
        total = self._totals.get(account)
        if total is None:
            total = await self._totals.load(account)
        return total or 0

    async def wait_changed(self, key: FunctionKey, timeout_s: float) -> None:
        """Return when the function was written, or after ``timeout_s``."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(key, set()).add(waiter)
        try:
            await asyncio.wait((waiter,), timeout=timeout_s)
        finally:
            waiters = self._waiters.get(key)
            if waiters is not None:
                waiters.discard(waiter)
                if not waiters:
                    del self._waiters[key]

    async def close(self) -> None:
        """Stop reading changes."""
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.gather(self._refreshing, return_exceptions=True)

    async def _read_function(self, key: FunctionKey) -> InvocableFunction | None:
        function = await self._metadata.function(key)
        version = await self._metadata.version(key, LATEST)
        if function is None or version is None:
            return None
        active = version.state.value == "Active"
        return InvocableFunction(version, key.arn, function.reserved_concurrency, active)

    async def _read_total(self, account: Account) -> int:
        return await self._metadata.total_reserved_concurrency(*account)

    def _loaded(self, key: FunctionKey, function: InvocableFunction | None) -> None:
        self._changed(key, None if function is None else function.version)

    def _invalidated(self, key: FunctionKey) -> None:
        self._functions.invalidate(key)
        self._totals.invalidate((key.account, key.region))
        for waiter in self._waiters.pop(key, ()):
            if not waiter.done():
                waiter.set_result(None)
        self._refresh[key] = None
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.get_running_loop().create_task(self._read_changes())

    async def _read_changes(self) -> None:
        while self._refresh:
            key = next(iter(self._refresh))
            del self._refresh[key]
            try:
                await self.function(key)
            except Exception as error:  # whoever invokes it reads it again, and is given the error
                _log.warning("a changed function could not be read", function=key.arn, reason=repr(error))
