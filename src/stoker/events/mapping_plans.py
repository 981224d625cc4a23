"""From stored event source mappings to what their pollers need to know. Pure."""

import msgspec

from stoker.core.arn import parse_function_reference
from stoker.events.queue_poller import QueueMapping
from stoker.events.stream_batches import INFINITE, BatchRules
from stoker.events.stream_events import DYNAMODB, KINESIS
from stoker.events.stream_parts import StreamMapping
from stoker.services.event_sources import EventSourceMapping
from stoker.services.functions import FunctionKey
from stoker.services.lambda_types import EventSourceMappingConfiguration
from stoker.services.records import RecordKey
from stoker.services.streams import Position, Start

Plan = QueueMapping | StreamMapping

_STARTS = {"TRIM_HORIZON": Start.OLDEST, "LATEST": Start.LATEST, "AT_TIMESTAMP": Start.SINCE}


class _Common(msgspec.Struct, frozen=True, kw_only=True):
    uuid: str
    source_arn: str
    function: FunctionKey
    qualifier: str
    filters: tuple[str, ...]


def source_service(mapping: EventSourceMapping) -> str:
    """The service in the ARN of a mapping's source; empty when it has none."""
    parts = (mapping.shown.event_source_arn or "").split(":")
    return parts[2] if len(parts) > 2 else ""


def mapping_plan(key: RecordKey, mapping: EventSourceMapping) -> Plan | None:
    """What is to run for a mapping now; None: nothing, or a source that is not built."""
    if mapping.shown.state != "Enabled":
        return None
    service = source_service(mapping)
    if service == "sqs":
        return _queue_plan(key, mapping.shown)
    if service in (KINESIS, DYNAMODB):
        return _stream_plan(service, key, mapping.shown)
    return None


def _queue_plan(key: RecordKey, shown: EventSourceMappingConfiguration) -> QueueMapping:
    scaling = shown.scaling_config
    return QueueMapping(
        **msgspec.structs.asdict(_common(key, shown)),
        batch_size=shown.batch_size or 10,
        window_s=shown.maximum_batching_window_in_seconds or 0,
        concurrency_max=1000 if scaling is None else scaling.maximum_concurrency or 1000,
        reports_failures=_reports_failures(shown),
    )


def _stream_plan(kind: str, key: RecordKey, shown: EventSourceMappingConfiguration) -> StreamMapping:
    destinations = shown.destination_config
    on_failure = destinations.on_failure if destinations is not None else None
    retries, age_s = shown.maximum_retry_attempts, shown.maximum_record_age_in_seconds
    moment_s = shown.starting_position_timestamp
    return StreamMapping(
        **msgspec.structs.asdict(_common(key, shown)),
        kind=kind,
        function_arn=shown.function_arn or "",
        rules=BatchRules(
            batch_size=shown.batch_size or 100,
            window_s=shown.maximum_batching_window_in_seconds or 0,
            tumbling_s=shown.tumbling_window_in_seconds or 0,
            retries_max=INFINITE if retries is None else retries,
            age_max_s=INFINITE if age_s is None else age_s,
            bisects=bool(shown.bisect_batch_on_function_error),
            reports_failures=_reports_failures(shown),
        ),
        lanes=shown.parallelization_factor or 1,
        position=Position(start=_STARTS[shown.starting_position or "LATEST"], since_s=float(moment_s or 0.0)),
        on_failure=(on_failure and on_failure.destination) or None,
    )


def _common(key: RecordKey, shown: EventSourceMappingConfiguration) -> _Common:
    reference = parse_function_reference(shown.function_arn or "")
    criteria = shown.filter_criteria
    return _Common(
        uuid=key.name,
        source_arn=shown.event_source_arn or "",
        function=FunctionKey(
            reference.account or key.account, reference.region or key.region, reference.name
        ),
        qualifier=reference.qualifier or "",
        filters=() if criteria is None else tuple(one.pattern or "{}" for one in criteria.filters or ()),
    )


def _reports_failures(shown: EventSourceMappingConfiguration) -> bool:
    return "ReportBatchItemFailures" in (shown.function_response_types or ())
