"""Groups, streams and events of the log store as CloudWatch Logs shows them. Pure functions."""

from stoker.services import logs_types as types
from stoker.services.context import RequestContext
from stoker.services.logs import LogEvent, LogGroupInfo, LogStreamInfo


def _group_arn(context: RequestContext, name: str) -> str:
    return f"arn:aws:logs:{context.region}:{context.account}:log-group:{name}"


def log_group(context: RequestContext, group: LogGroupInfo) -> types.LogGroup:
    arn = _group_arn(context, group.name)
    return types.LogGroup(
        log_group_name=group.name,
        creation_time=group.created_ms,
        retention_in_days=group.retention_days,
        metric_filter_count=0,
        arn=f"{arn}:*",
        log_group_arn=arn,
        stored_bytes=group.stored_bytes,
        log_group_class="STANDARD",
    )


def log_stream(context: RequestContext, group: str, stream: LogStreamInfo) -> types.LogStream:
    return types.LogStream(
        log_stream_name=stream.name,
        creation_time=stream.created_ms,
        first_event_timestamp=stream.first_event_ms,
        last_event_timestamp=stream.last_event_ms,
        last_ingestion_time=stream.last_ingestion_ms,
        upload_sequence_token=str(stream.last_ingestion_ms or stream.created_ms),
        arn=f"{_group_arn(context, group)}:log-stream:{stream.name}",
        stored_bytes=0,
    )


def filtered_event(event: LogEvent) -> types.FilteredLogEvent:
    return types.FilteredLogEvent(
        log_stream_name=event.stream,
        timestamp=event.timestamp_ms,
        message=event.message,
        ingestion_time=event.ingestion_ms,
        event_id=event.event_id,
    )
