"""What each kind of event source takes: defaults, bounds, and which members make no sense. Pure.

Words that AWS's answers are known to use are AWS's; the others follow their form.
"""

from typing import Any, Final

import msgspec

from stoker.control.filter_patterns import is_filter_pattern
from stoker.core.errors import ServiceError, invalid_parameter
from stoker.services.lambda_types import CreateEventSourceMappingRequest, EventSourceMappingConfiguration

FILTERS_MAX: Final = 20
RECORD_AGE_MIN_S: Final = 60
QUEUE_BATCH_WITHOUT_WINDOW_MAX: Final = 10
SQS_POLLERS_MIN: Final = 2
KAFKA_POLLERS_MAX: Final = 2000

_STREAM = frozenset(
    (
        "parallelization_factor",
        "maximum_record_age_in_seconds",
        "bisect_batch_on_function_error",
        "maximum_retry_attempts",
        "tumbling_window_in_seconds",
        "destination_config",
        "function_response_types",
    )
)
_KAFKA = _STREAM - {"parallelization_factor", "tumbling_window_in_seconds"} | {
    "topics",
    "source_access_configurations",
    "provisioned_poller_config",
    "logging_config",
}
_SPECIAL: Final = {
    "parallelization_factor": "ParallelizationFactor",
    "maximum_record_age_in_seconds": "MaximumRecordAgeInSeconds",
    "bisect_batch_on_function_error": "BisectBatchOnFunctionError",
    "maximum_retry_attempts": "MaximumRetryAttempts",
    "tumbling_window_in_seconds": "TumblingWindowInSeconds",
    "destination_config": "DestinationConfig",
    "function_response_types": "FunctionResponseTypes",
    "scaling_config": "ScalingConfig",
    "topics": "Topics",
    "queues": "Queues",
    "source_access_configurations": "SourceAccessConfigurations",
    "provisioned_poller_config": "ProvisionedPollerConfig",
    "logging_config": "LoggingConfig",
    "self_managed_event_source": "SelfManagedEventSource",
    "self_managed_kafka_event_source_config": "SelfManagedKafkaEventSourceConfig",
    "amazon_managed_kafka_event_source_config": "AmazonManagedKafkaEventSourceConfig",
    "document_db_event_source_config": "DocumentDBEventSourceConfig",
}
"""Members that only some sources have, by attribute."""


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of source; ``defaults`` are the attributes that AWS shows when none is given."""

    takes: frozenset[str]
    needs: tuple[str, ...] = ()
    defaults: dict[str, Any]
    positions: tuple[str, ...] = ()
    position_needed: bool = False
    transition: str = "USER_INITIATED"
    batch_max: int = 10_000


_STREAM_DEFAULTS: Final[dict[str, Any]] = {
    "batch_size": 100,
    "maximum_batching_window_in_seconds": 0,
    "parallelization_factor": 1,
    "maximum_record_age_in_seconds": -1,
    "maximum_retry_attempts": -1,
    "bisect_batch_on_function_error": False,
    "tumbling_window_in_seconds": 0,
    "function_response_types": (),
    "last_processing_result": "No records processed",
}
_EVERY_POSITION: Final = ("LATEST", "TRIM_HORIZON", "AT_TIMESTAMP")
_BROKER_DEFAULTS: Final[dict[str, Any]] = {
    "batch_size": 100,
    "last_processing_result": "No records processed",
}
_KAFKA_DEFAULTS: Final = {**_BROKER_DEFAULTS, "starting_position": "TRIM_HORIZON"}
_QUEUE: Final = Source(
    takes=frozenset(("function_response_types", "scaling_config", "provisioned_poller_config")),
    defaults={"batch_size": 10, "maximum_batching_window_in_seconds": 0, "function_response_types": ()},
)
SOURCES: Final = {
    "sqs": _QUEUE,
    "sqs-fifo": msgspec.structs.replace(
        _QUEUE, batch_max=10, takes=_QUEUE.takes - {"provisioned_poller_config"}
    ),
    "kinesis": Source(
        takes=_STREAM,
        defaults=_STREAM_DEFAULTS,
        positions=_EVERY_POSITION,
        position_needed=True,
        transition="User action",
    ),
    "dynamodb": Source(
        takes=_STREAM,
        defaults=_STREAM_DEFAULTS,
        positions=("LATEST", "TRIM_HORIZON"),
        position_needed=True,
        transition="User action",
    ),
    "self-managed": Source(
        takes=_KAFKA | {"self_managed_event_source", "self_managed_kafka_event_source_config"},
        needs=("source_access_configurations", "topics"),
        defaults=_KAFKA_DEFAULTS,
        positions=_EVERY_POSITION,
    ),
    "kafka": Source(
        takes=_KAFKA | {"amazon_managed_kafka_event_source_config"},
        needs=("topics",),
        defaults=_KAFKA_DEFAULTS,
        positions=_EVERY_POSITION,
    ),
    "mq": Source(
        takes=frozenset(("queues", "source_access_configurations")),
        needs=("source_access_configurations", "queues"),
        defaults=_BROKER_DEFAULTS,
    ),
    "rds": Source(
        takes=frozenset(("source_access_configurations", "document_db_event_source_config")),
        needs=("source_access_configurations", "document_db_event_source_config"),
        defaults=_BROKER_DEFAULTS,
        positions=_EVERY_POSITION,
    ),
}
"""By the service in the source's ARN; ``rds`` are DocumentDB's clusters, whose ARNs say so."""


def source_kind(mapping: EventSourceMappingConfiguration | CreateEventSourceMappingRequest) -> str:
    """The kind of a mapping's source, a key of ``SOURCES``.

    Raises:
        ServiceError: there is none, or one that Lambda does not read.
    """
    if mapping.self_managed_event_source is not None:
        if mapping.event_source_arn is not None:
            raise _unsupported("EventSourceArn")
        return "self-managed"
    arn = mapping.event_source_arn or ""
    parts = arn.split(":", 5)
    kind = parts[2] if len(parts) == 6 else ""
    if kind == "sqs" and arn.endswith(".fifo"):
        kind = "sqs-fifo"
    if kind not in SOURCES:
        raise invalid_parameter("Unrecognized event source.")
    return kind


def source_names(mapping: EventSourceMappingConfiguration) -> tuple[str, ...]:
    """What the mapping reads from: an ARN, or each Kafka endpoint with its topic."""
    if mapping.self_managed_event_source is None:
        return (mapping.event_source_arn or "",)
    return tuple(f"{server} {topic}" for server in endpoints(mapping) for topic in mapping.topics or ())


def endpoints(mapping: EventSourceMappingConfiguration) -> tuple[str, ...]:
    """The bootstrap servers of a self-managed Kafka."""
    source = mapping.self_managed_event_source
    lists = (source.endpoints or {}).values() if source is not None else ()
    return tuple(server for servers in lists for server in servers)


def check_mapping(kind: str, mapping: EventSourceMappingConfiguration, now_s: float) -> None:
    """Everything about a mapping that its members alone decide.

    Raises:
        ServiceError: InvalidParameterValueException for the first thing that is wrong.
    """
    source = SOURCES[kind]
    if mapping.destination_config is not None and mapping.destination_config.on_success is not None:
        raise _unsupported("DestinationConfig")
    for attribute in source.needs:
        if not getattr(mapping, attribute):
            name = _SPECIAL[attribute]
            raise invalid_parameter(f"Required '{name[0].lower()}{name[1:]}' parameter is missing.")
    for attribute, name in _SPECIAL.items():
        if attribute not in source.takes and getattr(mapping, attribute) is not None:
            raise _unsupported(name)
    _check_position(source, mapping, now_s)
    _check_batch(kind, source, mapping)
    _check_numbers(kind, mapping)
    _check_filters(mapping)


def _check_position(source: Source, mapping: EventSourceMappingConfiguration, now_s: float) -> None:
    position, moment_s = mapping.starting_position, mapping.starting_position_timestamp
    if position is None and source.position_needed:
        raise invalid_parameter(
            "1 validation error detected: Value null at 'startingPosition' failed to satisfy constraint: "
            "Member must not be null."
        )
    if position is not None and position not in source.positions:
        raise invalid_parameter(f"Unsupported starting position for arn type: {mapping.event_source_arn}")
    if position == "AT_TIMESTAMP" and moment_s is None:
        raise invalid_parameter("StartingPosition AT_TIMESTAMP requires StartingPositionTimestamp.")
    if moment_s is not None and position != "AT_TIMESTAMP":
        raise invalid_parameter("StartingPositionTimestamp requires StartingPosition AT_TIMESTAMP.")
    if moment_s is not None and moment_s > now_s:
        raise invalid_parameter("StartingPositionTimestamp cannot be in the future.")


def _check_batch(kind: str, source: Source, mapping: EventSourceMappingConfiguration) -> None:
    size, window_s = mapping.batch_size or 0, mapping.maximum_batching_window_in_seconds or 0
    if size > source.batch_max:
        raise invalid_parameter(f"Maximum batch size must be between 1 and {source.batch_max} inclusive")
    if kind == "sqs-fifo" and window_s:
        raise invalid_parameter("Batching window is not supported for FIFO queues")
    if kind == "sqs" and size > QUEUE_BATCH_WITHOUT_WINDOW_MAX and not window_s:
        raise invalid_parameter(
            "Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than "
            f"{QUEUE_BATCH_WITHOUT_WINDOW_MAX}"
        )


def _check_numbers(kind: str, mapping: EventSourceMappingConfiguration) -> None:
    age_s = mapping.maximum_record_age_in_seconds
    if age_s is not None and age_s != -1 and age_s < RECORD_AGE_MIN_S:
        raise invalid_parameter(
            f"MaximumRecordAgeInSeconds must be -1 or between {RECORD_AGE_MIN_S} and 604800 inclusive."
        )
    pollers = mapping.provisioned_poller_config
    if pollers is None:
        return
    if mapping.scaling_config is not None:
        raise invalid_parameter("ScalingConfig and ProvisionedPollerConfig cannot be used together.")
    least, most = pollers.minimum_pollers, pollers.maximum_pollers
    if least is not None and most is not None and least > most:
        raise invalid_parameter("MinimumPollers must be less than or equal to MaximumPollers.")
    if kind == "sqs" and min(least or SQS_POLLERS_MIN, most or SQS_POLLERS_MIN) < SQS_POLLERS_MIN:
        raise invalid_parameter(f"Amazon SQS event pollers must be at least {SQS_POLLERS_MIN}.")
    if kind != "sqs" and (most or 0) > KAFKA_POLLERS_MAX:
        raise invalid_parameter(f"MaximumPollers must be between 1 and {KAFKA_POLLERS_MAX} inclusive.")


def _check_filters(mapping: EventSourceMappingConfiguration) -> None:
    filters = (mapping.filter_criteria and mapping.filter_criteria.filters) or ()
    if len(filters) > FILTERS_MAX:
        raise invalid_parameter(f"The number of filters exceeds the maximum of {FILTERS_MAX}.")
    if not all(is_filter_pattern(one.pattern) for one in filters):
        raise invalid_parameter("Invalid filter pattern definition.")


def _unsupported(name: str) -> ServiceError:
    return invalid_parameter(f"Unsupported {name} parameter for given event source mapping type.")
