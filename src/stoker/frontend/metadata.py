"""What an invocation must know of its function, kept until a write says otherwise."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from random import Random

import msgspec
import structlog

from stoker.frontend.cache import LoadingCache
from stoker.services.aliases import Alias, alias_key, alias_shelf, is_alias_name
from stoker.services.functions import (
    LATEST,
    FunctionKey,
    FunctionMetadata,
    FunctionRecord,
    FunctionVersion,
    Invalidation,
)
from stoker.services.provisioned import provisioned_shelf
from stoker.services.records import Records

FUNCTIONS_KEPT = 10_000
QUALIFIERS_KEPT = 1_000
"""Versions and aliases of one function."""
ACCOUNTS_KEPT = 1_000
ALIAS_READS_MAX = 3
"""Of an alias that is moved, and its old version deleted, while it is being read."""

_log = structlog.get_logger("stoker.frontend")

Account = tuple[str, str]


class InvocableFunction(msgspec.Struct, frozen=True, kw_only=True):
    """What a function is for one way of naming it: by a version, an alias, $LATEST or no qualifier."""

    version: FunctionVersion
    arn: str
    """As it is invoked, with the qualifier if there is one."""
    reserved_concurrency: int | None
    active: bool
    other: "InvocableFunction | None" = None
    """An alias's second version, under the same ARN, and its share of the invocations (0 to 1)."""
    other_share: float = 0.0
    qualifiers: "Qualifiers | None" = None
    """Of a function named without qualifier: its others."""

    def choose(self, random: Random) -> "InvocableFunction":
        """The version that serves the next invocation."""
        if self.other is not None and random.random() < self.other_share:
            return self.other
        return self


class Qualifiers:
    """The qualifiers of one function that were asked for; forgotten together with the function."""

    __slots__ = ("_cache", "_loader")

    def __init__(self, loader: Callable[[str], Awaitable[InvocableFunction | None]]) -> None:
        self._loader = loader
        self._cache: LoadingCache[str, InvocableFunction] | None = None

    def get(self, qualifier: str) -> InvocableFunction | None:
        """What is known, or None; never waits."""
        return None if self._cache is None else self._cache.get(qualifier)

    async def load(self, qualifier: str) -> InvocableFunction | None:
        """What the qualifier stands for; None when it stands for nothing."""
        if self._cache is None:
            self._cache = LoadingCache(self._loader, capacity=QUALIFIERS_KEPT)
        return self._cache.get(qualifier) or await self._cache.load(qualifier)


class FunctionDirectory:
    """Functions and reserved totals by key, read once and then from memory.

    After ``Invalidation.publish`` returned, nobody is given what was read before it. Each change is read
    again at once, so that ``changed`` is told without an invoke: the deployment that a version has now, or
    None for a version that is gone. ``running`` says which versions of a function that matters for.
    """

    def __init__(
        self,
        metadata: FunctionMetadata,
        records: Records,
        invalidation: Invalidation,
        *,
        running: Callable[[FunctionKey], Iterable[str]],
        changed: Callable[[FunctionKey, str, str | None], None],
    ) -> None:
        self._metadata = metadata
        self._aliases = alias_shelf(records)
        self._provisioned = provisioned_shelf(records)
        self._running = running
        self._changed = changed
        self._functions = LoadingCache(self._read_function, capacity=FUNCTIONS_KEPT, loaded=self._loaded)
        self._totals = LoadingCache(self._read_total, capacity=ACCOUNTS_KEPT)
        self._waiters: dict[FunctionKey, set[asyncio.Future[None]]] = {}
        self._refresh: dict[FunctionKey, None] = {}
        self._refreshing: asyncio.Task[None] | None = None
        self.function_nowait = self._functions.get
        self.total_reserved_nowait = self._totals.get
        invalidation.subscribe(self._invalidated)

    def qualified_nowait(self, key: FunctionKey, qualifier: str | None) -> InvocableFunction | None:
        """What is known of the qualifier, or None; never waits."""
        function = self.function_nowait(key)
        if qualifier is None or function is None or function.qualifiers is None:
            return function
        return function.qualifiers.get(qualifier)

    async def function(self, key: FunctionKey, qualifier: str | None = None) -> InvocableFunction | None:
        """What the qualifier stands for, or None when there is no such function, version or alias."""
        function = self._functions.get(key) or await self._functions.load(key)
        if qualifier is None or function is None or function.qualifiers is None:
            return function
        return await function.qualifiers.load(qualifier)

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
        return InvocableFunction(
            version=version,
            arn=key.arn,
            reserved_concurrency=await self._reserved(function, LATEST),
            active=_is_active(version),
            qualifiers=Qualifiers(partial(self._read_qualifier, function)),
        )

    async def _read_qualifier(self, function: FunctionRecord, qualifier: str) -> InvocableFunction | None:
        if not is_alias_name(qualifier):
            return await self._read_version(function, qualifier, qualifier)
        for _ in range(ALIAS_READS_MAX):
            alias = await self._aliases.get(alias_key(function.key, qualifier))
            if alias is None:
                return None
            read = await self._read_alias(function, qualifier, alias.value)
            if read is not None:
                return read
        return None

    async def _read_alias(
        self, function: FunctionRecord, name: str, alias: Alias
    ) -> InvocableFunction | None:
        primary = await self._read_version(function, alias.version, name)
        for version, share in alias.additional.items():
            other = await self._read_version(function, version, name)
            if primary is None or other is None:
                return None
            return msgspec.structs.replace(primary, other=other, other_share=share)
        return primary

    async def _read_version(
        self, function: FunctionRecord, number: str, qualifier: str
    ) -> InvocableFunction | None:
        version = await self._metadata.version(function.key, number)
        if version is None:
            return None
        return InvocableFunction(
            version=version,
            arn=f"{function.key.arn}:{qualifier}",
            reserved_concurrency=await self._reserved(function, number),
            active=_is_active(version),
        )

    async def _reserved(self, function: FunctionRecord, number: str) -> int | None:
        """What a version may use of a reservation: not what is provisioned for other versions."""
        reserved, key = function.reserved_concurrency, function.key
        if reserved is None:
            return None
        left = reserved
        for config in await self._provisioned.page(key.account, key.region, owner=key.name):
            name = config.key.name
            alias = await self._aliases.get(alias_key(key, name)) if is_alias_name(name) else None
            if number == name or (
                alias is not None and number in (alias.value.version, *alias.value.additional)
            ):
                return reserved
            left -= config.value.requested
        return max(left, 0)

    async def _read_total(self, account: Account) -> int:
        return await self._metadata.total_reserved_concurrency(*account)

    def _loaded(self, key: FunctionKey, function: InvocableFunction | None) -> None:
        self._changed(key, LATEST, None if function is None else function.version.deployment_id)

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
                await self._check_versions(key)
            except Exception as error:  # whoever invokes it reads it again, and is given the error
                _log.warning("a changed function could not be read", function=key.arn, reason=repr(error))

    async def _check_versions(self, key: FunctionKey) -> None:
        """Published versions keep their deployment for life: only those that are gone matter."""
        for number in self._running(key):
            if number != LATEST:
                version = await self._metadata.version(key, number)
                self._changed(key, number, None if version is None else version.deployment_id)


def _is_active(version: FunctionVersion) -> bool:
    return version.state.value == "Active"
