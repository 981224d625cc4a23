"""Event source mappings as they are kept: ``control`` writes them, pollers run them."""

import hashlib
from typing import Final

import msgspec

from stoker.services.lambda_types import EventSourceMappingConfiguration
from stoker.services.records import RecordKey

EVENT_SOURCE_MAPPING: Final = "event-source-mapping"
"""The kind of its records, named after their UUIDs. They stay when their function is deleted, as on AWS."""

EVENT_SOURCE_MAPPING_RESULT: Final = "event-source-mapping-result"
"""The kind of records of how polling went, named as their mappings; pollers write them."""

SETTLED_STATES: Final = frozenset(("Enabled", "Disabled"))


class EventSourceMapping(msgspec.Struct, frozen=True, kw_only=True):
    """One mapping; ``enabled`` is what its state moves to."""

    shown: EventSourceMappingConfiguration
    enabled: bool
    tags: dict[str, str] = {}


class MappingResult(msgspec.Struct, frozen=True):
    """LastProcessingResult. Beside its mapping: a poller's write must never be in the way of a caller's."""

    last_processing_result: str


def result_key(mapping: RecordKey) -> RecordKey:
    """The key of a mapping's result."""
    return msgspec.structs.replace(mapping, kind=EVENT_SOURCE_MAPPING_RESULT)


def mapping_arn(key: RecordKey) -> str:
    """The ARN of a mapping."""
    return f"arn:aws:lambda:{key.region}:{key.account}:event-source-mapping:{key.name}"


def source_lookup(source: str) -> str:
    """Finds the mappings of a source. Hashed, as all lookups here: an ARN may have 10,000 characters."""
    return f"source:{_digest(source)}"


def function_lookup(arn: str) -> str:
    """Finds the mappings that invoke a function, version or alias."""
    return f"function:{_digest(arn)}"


def pair_lookup(source: str, arn: str) -> str:
    """Finds the mapping from a source to a function, version or alias."""
    return f"pair:{_digest(f'{source} {arn}')}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
