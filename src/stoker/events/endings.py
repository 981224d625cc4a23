"""Where the end of an event is told: the destinations of its config and its function's dead-letter queue."""

from typing import Protocol

from stoker.events.outcome_records import Ending, delivery
from stoker.events.policies import EventConfigs
from stoker.events.retries import DropReason
from stoker.services.aliases import alias_shelf, is_alias_name
from stoker.services.functions import LATEST, FunctionMetadata
from stoker.services.queue import Delivery, DeliveryKind, QueuedEvent
from stoker.services.records import Records


class Endings(Protocol):
    """Finds what an event leaves behind."""

    async def deliveries(self, ending: Ending) -> list[Delivery]: ...


class StoredEndings:
    """Destinations from the event invoke configs, dead-letter queues from the functions' versions."""

    def __init__(self, configs: EventConfigs, metadata: FunctionMetadata, records: Records) -> None:
        self._configs = configs
        self._metadata = metadata
        self._aliases = alias_shelf(records)

    async def deliveries(self, ending: Ending) -> list[Delivery]:
        """What is to be sent, to where. Raises what the stores raise."""
        if ending.reason is DropReason.FUNCTION_DELETED:
            return []  # its configs went with it
        config = await self._configs.config(ending.event)
        if ending.reason is None:
            success = config.on_success if config else None
            return [delivery(ending, DeliveryKind.SUCCESS, success)] if success else []
        left: list[Delivery] = []
        if config is not None and config.on_failure:
            left.append(delivery(ending, DeliveryKind.FAILURE, config.on_failure))
        dead_letters = await self._dead_letters(ending.event)
        if dead_letters:
            left.append(delivery(ending, DeliveryKind.DEAD_LETTER, dead_letters))
        return left

    async def _dead_letters(self, event: QueuedEvent) -> str | None:
        """The queue or topic of the version that the event is for (of an alias with two: the main one)."""
        version = event.qualifier or LATEST
        if is_alias_name(version):
            alias = await self._aliases.get(
                self._aliases.key(event.key.account, event.key.region, event.key.name, version)
            )
            if alias is None:
                return None
            version = alias.value.version
        found = await self._metadata.version(event.key, version)
        return None if found is None else found.dead_letter_arn
