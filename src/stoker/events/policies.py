"""What functions ask for their events (EventInvokeConfig), and how that narrows the operator's policy."""

from collections import OrderedDict
from typing import Protocol

import msgspec

from stoker.events.retries import RetryPolicy
from stoker.services.event_invoke import EVENT_INVOKE_CONFIG, EventInvokeConfig
from stoker.services.functions import LATEST, FunctionKey, Invalidation
from stoker.services.queue import QueuedEvent
from stoker.services.records import Records, Shelf

FUNCTIONS_KEPT = 10_000


class EventConfigs(Protocol):
    """Finds the config of an event's qualifier."""

    async def config(self, event: QueuedEvent) -> EventInvokeConfig | None: ...


class StoredEventConfigs:
    """Read once a function, and kept until that function or one of its configs is written."""

    def __init__(self, records: Records, invalidation: Invalidation) -> None:
        self._shelf = Shelf(records, EVENT_INVOKE_CONFIG, EventInvokeConfig)
        self._kept: OrderedDict[FunctionKey, dict[str, EventInvokeConfig]] = OrderedDict()
        self._writes = 0
        invalidation.subscribe(self._written)

    async def config(self, event: QueuedEvent) -> EventInvokeConfig | None:
        """The config, or None. Raises what the records raise."""
        configs = self._kept.get(event.key)
        if configs is None:
            configs = await self._read(event.key)
        return configs.get(event.qualifier or LATEST)

    async def _read(self, key: FunctionKey) -> dict[str, EventInvokeConfig]:
        writes = self._writes
        entries = await self._shelf.page(key.account, key.region, owner=key.name)
        configs = {entry.key.name: entry.value for entry in entries}
        if writes == self._writes:  # else what was read may be outdated already
            self._kept[key] = configs
            while len(self._kept) > FUNCTIONS_KEPT:
                self._kept.popitem(last=False)
        return configs

    def _written(self, key: FunctionKey) -> None:
        self._writes += 1
        self._kept.pop(key, None)


def narrowed(policy: RetryPolicy, config: EventInvokeConfig | None) -> RetryPolicy:
    """The policy with no more retries and no greater age than a config allows."""
    if config is None:
        return policy
    retries, age_s = config.maximum_retry_attempts, config.maximum_event_age_s
    return msgspec.structs.replace(
        policy,
        waits_s=policy.waits_s if retries is None else policy.waits_s[:retries],
        maximum_age_s=policy.maximum_age_s if age_s is None else min(policy.maximum_age_s, float(age_s)),
    )
