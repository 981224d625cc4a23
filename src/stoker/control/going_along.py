"""What is kept of a version or alias beside itself, and goes away with it."""

from typing import Final

from stoker.control.policies import POLICY_KIND
from stoker.services.event_invoke import EVENT_INVOKE_CONFIG
from stoker.services.functions import FunctionKey
from stoker.services.provisioned import PROVISIONED_CONCURRENCY
from stoker.services.records import RecordKey, Records, Remove

KINDS: Final = (POLICY_KIND, EVENT_INVOKE_CONFIG, PROVISIONED_CONCURRENCY)
"""Owned by the function, named after the qualifier. Function URLs stay, as on AWS."""


async def what_goes_along(records: Records, key: FunctionKey, qualifier: str) -> list[Remove]:
    """The deletions to make together with that of a version or alias."""
    places = [RecordKey(kind, key.account, key.region, key.name, qualifier) for kind in KINDS]
    return [Remove(place) for place in places if await records.get(place) is not None]
