"""From requests to the event source mapping that is stored: defaults, merging, what it is found by. Pure."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from stoker.control.mapping_sources import SOURCES, source_names
from stoker.services.event_sources import (
    EventSourceMapping,
    function_lookup,
    mapping_arn,
    pair_lookup,
    source_lookup,
)
from stoker.services.lambda_types import (
    AmazonManagedKafkaEventSourceConfig,
    CreateEventSourceMappingRequest,
    DestinationConfig,
    EventSourceMappingConfiguration,
    OnFailure,
    SelfManagedKafkaEventSourceConfig,
    UpdateEventSourceMappingRequest,
)
from stoker.services.records import Record, RecordKey, Shelf

Shown = EventSourceMappingConfiguration

_UNSHOWN: Final = frozenset(("function_name", "enabled", "tags", "uuid"))
"""Members of requests that are not members of the configuration."""


def created_mapping(
    kind: str, key: RecordKey, request: CreateEventSourceMappingRequest, function_arn: str, now_s: float
) -> EventSourceMapping:
    """A new mapping, Creating, with the defaults of its source where the request is silent."""
    source = SOURCES[kind]
    members = {**source.defaults, **_given(request)}
    if "destination_config" in source.takes and kind in ("kinesis", "dynamodb"):
        members.setdefault("destination_config", DestinationConfig(on_failure=OnFailure()))
    shown = Shown(
        **members,
        uuid=key.name,
        event_source_mapping_arn=mapping_arn(key),
        function_arn=function_arn,
        last_modified=now_s,
        state="Creating",
        state_transition_reason=source.transition,
    )
    return EventSourceMapping(
        shown=_with_consumer_group(kind, key.name, normal(shown)),
        enabled=request.enabled is not False,
        tags=request.tags or {},
    )


def updated_mapping(
    stored: EventSourceMapping,
    request: UpdateEventSourceMappingRequest,
    function_arn: str | None,
    transition: str,
    now_s: float,
) -> EventSourceMapping:
    """The mapping with what the request names replaced, on its way to rest."""
    enabled = stored.enabled if request.enabled is None else request.enabled
    state = "Updating"
    if enabled != stored.enabled:
        state = "Enabling" if enabled else "Disabling"
    changes = _given(request)
    if function_arn is not None:
        changes["function_arn"] = function_arn
    shown = msgspec.structs.replace(
        stored.shown, **changes, state=state, state_transition_reason=transition, last_modified=now_s
    )
    return msgspec.structs.replace(stored, shown=normal(shown), enabled=enabled)


def normal(shown: Shown) -> Shown:
    """Without members that say nothing: an empty value takes back what was set before."""
    criteria, scaling, pollers = shown.filter_criteria, shown.scaling_config, shown.provisioned_poller_config
    metrics, destinations = shown.metrics_config, shown.destination_config
    changes: dict[str, Any] = {}
    if criteria is not None and not criteria.filters:
        changes["filter_criteria"] = None
    if scaling is not None and scaling.maximum_concurrency is None:
        changes["scaling_config"] = None
    if pollers is not None and not (pollers.minimum_pollers or pollers.maximum_pollers):
        changes["provisioned_poller_config"] = None
    if metrics is not None and not metrics.metrics:
        changes["metrics_config"] = None
    if destinations is not None and destinations.on_success is None:
        failure = destinations.on_failure and destinations.on_failure.destination
        changes["destination_config"] = DestinationConfig(on_failure=OnFailure(destination=failure or None))
    if shown.kms_key_arn == "":
        changes["kms_key_arn"] = None
    return msgspec.structs.replace(shown, **changes)


def pairs(shown: Shown) -> Sequence[str]:
    """The lookups that no other mapping may have."""
    return [pair_lookup(name, shown.function_arn or "") for name in source_names(shown)]


def mapping_record(
    shelf: Shelf[EventSourceMapping], key: RecordKey, mapping: EventSourceMapping, revision_id: str
) -> Record:
    """The record that keeps a mapping; it outlives its function."""
    shown = mapping.shown
    function = shown.function_arn or ""
    lookups = (function_lookup(function), *pairs(shown))
    if shown.event_source_arn is not None:
        lookups = (source_lookup(shown.event_source_arn), *lookups)
    return shelf.record(key, mapping, revision_id, lookups=lookups)


def _given(request: CreateEventSourceMappingRequest | UpdateEventSourceMappingRequest) -> dict[str, Any]:
    members = msgspec.structs.asdict(request)
    return {name: value for name, value in members.items() if value is not None and name not in _UNSHOWN}


def _with_consumer_group(kind: str, uuid: str, shown: Shown) -> Shown:
    """AWS names the group after the mapping when the caller names none."""
    if kind == "self-managed":
        own = shown.self_managed_kafka_event_source_config or SelfManagedKafkaEventSourceConfig()
        named = msgspec.structs.replace(own, consumer_group_id=own.consumer_group_id or uuid)
        return msgspec.structs.replace(shown, self_managed_kafka_event_source_config=named)
    if kind == "kafka":
        managed = shown.amazon_managed_kafka_event_source_config or AmazonManagedKafkaEventSourceConfig()
        group = msgspec.structs.replace(managed, consumer_group_id=managed.consumer_group_id or uuid)
        return msgspec.structs.replace(shown, amazon_managed_kafka_event_source_config=group)
    return shown
