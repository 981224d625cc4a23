"""Has the manager keep what provisioned concurrency asks for, of versions and of those behind aliases.

Follows every change of a function: an alias that moves takes its sandboxes along.
"""

import asyncio
import math

import structlog

from stoker.control.ports import Ports
from stoker.core.errors import StokerError
from stoker.services.aliases import Alias, alias_key, alias_shelf, is_alias_name
from stoker.services.functions import FunctionKey, FunctionVersion
from stoker.services.manager import Provisioned
from stoker.services.provisioned import provisioned_shelf

_log = structlog.get_logger("stoker.control")


def shares(alias: Alias, requested: int) -> dict[str, int]:
    """How many sandboxes each version of an alias is to have, by its share of the invocations."""
    counts = {version: max(1, math.floor(requested * share)) for version, share in alias.additional.items()}
    rest = requested - sum(counts.values())
    return {alias.version: max(rest, 0)} | counts


class Provisioning:
    """Owns one task that applies changes, one function after another."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._aliases = alias_shelf(ports.records)
        self._shelf = provisioned_shelf(ports.records)
        self._applied: dict[FunctionKey, dict[str, FunctionVersion]] = {}
        """Versions that have provisioned concurrency now, by deployment."""
        self._due: dict[FunctionKey, None] = {}
        self._applying: asyncio.Task[None] | None = None
        self._closed = False

    async def start(self) -> None:
        """Take up every configuration there is, and follow changes from now on."""
        for entry in await self._shelf.every():
            key = entry.key
            self._due[FunctionKey(key.account, key.region, key.owner)] = None
        self._ports.invalidation.subscribe(self._changed)
        self._begin()

    async def close(self) -> None:
        """Apply nothing more."""
        self._closed = True
        if self._applying is not None:
            self._applying.cancel()
            await asyncio.gather(self._applying, return_exceptions=True)

    async def apply(self, key: FunctionKey) -> None:
        """Bring the manager up to date with a function's configurations."""
        wanted, counts = await self._wanted(key)
        for deployment_id, version in self._applied.pop(key, {}).items():
            if deployment_id not in wanted:
                self._ports.provisioner.provision(version, 0)
        for deployment_id, version in wanted.items():
            self._ports.provisioner.provision(version, counts[deployment_id])
        if wanted:
            self._applied[key] = wanted

    async def state(self, key: FunctionKey, qualifier: str) -> Provisioned:
        """How far the sandboxes of a version or alias are."""
        available, failure = 0, None
        for number in await self._numbers(key, qualifier):
            version = await self._ports.metadata.version(key, number)
            if version is not None:
                found = self._ports.provisioner.provisioned(version)
                available, failure = available + found.available, failure or found.failure
        return Provisioned(available, failure)

    async def _numbers(self, key: FunctionKey, qualifier: str, requested: int = 1) -> dict[str, int]:
        if not is_alias_name(qualifier):
            return {qualifier: requested}
        alias = await self._aliases.get(alias_key(key, qualifier))
        return {} if alias is None else shares(alias.value, requested)

    async def _wanted(self, key: FunctionKey) -> tuple[dict[str, FunctionVersion], dict[str, int]]:
        wanted: dict[str, FunctionVersion] = {}
        counts: dict[str, int] = {}
        for entry in await self._shelf.page(key.account, key.region, owner=key.name):
            numbers = await self._numbers(key, entry.key.name, entry.value.requested)
            for number, count in numbers.items():
                version = await self._ports.metadata.version(key, number)
                if version is None or version.state.value != "Active" or not count:
                    continue
                wanted[version.deployment_id] = version
                counts[version.deployment_id] = counts.get(version.deployment_id, 0) + count
        return wanted, counts

    def _changed(self, key: FunctionKey) -> None:
        self._due[key] = None
        self._begin()

    def _begin(self) -> None:
        if self._due and not self._closed and (self._applying is None or self._applying.done()):
            self._applying = asyncio.get_running_loop().create_task(self._apply_due())

    async def _apply_due(self) -> None:
        while self._due:
            key = next(iter(self._due))
            del self._due[key]
            try:
                await self.apply(key)
            except StokerError as problem:
                _log.warning(
                    "provisioned concurrency was not brought up to date",
                    function=key.arn,
                    reason=str(problem),
                )
