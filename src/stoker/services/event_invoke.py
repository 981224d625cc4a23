"""What a function, version or alias asks for its asynchronous invocations (EventInvokeConfig).

``control`` writes it, ``events`` obeys it.
"""

from typing import Final

import msgspec

from stoker.services.functions import LATEST, FunctionKey
from stoker.services.records import RecordKey

EVENT_INVOKE_CONFIG: Final = "event-invoke-config"
"""The kind of its records: owned by the function, named after the qualifier."""


class EventInvokeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """None: as AWS's default has it. Destinations are ARNs."""

    last_modified_s: float
    maximum_retry_attempts: int | None = None
    maximum_event_age_s: int | None = None
    on_success: str | None = None
    on_failure: str | None = None


def event_invoke_key(key: FunctionKey, qualifier: str | None) -> RecordKey:
    """The record of a qualifier; none means ``$LATEST``."""
    return RecordKey(EVENT_INVOKE_CONFIG, key.account, key.region, key.name, qualifier or LATEST)
