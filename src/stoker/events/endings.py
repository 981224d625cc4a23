"""Where the end of an event is told: the destinations of its config and its function's dead-letter queue."""

from typing import Protocol

from stoker.events.outcome_records import Ending, delivery
from stoker.events.policies import EventConfigs
from stoker.events.retries import DropReason
from stoker.events.versions import QualifiedVersions
from stoker.services.queue import Delivery, DeliveryKind, QueuedEvent


class Endings(Protocol):
    """Finds what an event leaves behind."""

    async def deliveries(self, ending: Ending) -> list[Delivery]: ...


class StoredEndings:
    """Destinations from the event invoke configs, dead-letter queues from the functions' versions."""

    def __init__(self, configs: EventConfigs, versions: QualifiedVersions) -> None:
        self._configs = configs
        self._versions = versions

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
        """The queue or topic of the version that the event is for."""
        found = await self._versions.find(event.key, event.qualifier)
        return None if found is None else found.dead_letter_arn
