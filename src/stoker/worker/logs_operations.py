"""CloudWatch Logs operations over the log store: what ``aws logs tail`` and its like need.

Messages of errors are CloudWatch's. It knows the store by its port only, and nothing of functions.
"""

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from stoker.core.clock import Clock
from stoker.core.errors import ServiceError
from stoker.services import logs_types as types
from stoker.services.context import OperationHandler, RequestContext
from stoker.services.logs import (
    InvalidToken,
    LogEvent,
    LogGroupInfo,
    LogPage,
    LogStore,
    LogStreamInfo,
    named_group,
)
from stoker.worker.filter_patterns import Predicate, UnsupportedPattern, compile_pattern
from stoker.worker.logs_rendering import filtered_event, log_group, log_stream

EVENTS_MAX = 10_000
DESCRIBED_MAX = 50
FILTER_PAGES_MAX = 20
"""Pages that one FilterLogEvents looks through before it answers with what it has and a token."""

FILTER_PAGE_EVENTS = 2_000

_DAY_MS = 86_400_000
_TOO_OLD_MS = 14 * _DAY_MS
_TOO_NEW_MS = 2 * 3_600_000
_TIME_MAX_MS = 2**53

RETENTION_DAYS = frozenset(
    (1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653)
)


def _group_missing() -> ServiceError:
    return ServiceError("ResourceNotFoundException", "The specified log group does not exist.")


def _stream_missing() -> ServiceError:
    return ServiceError("ResourceNotFoundException", "The specified log stream does not exist.")


def _invalid(message: str) -> ServiceError:
    return ServiceError("InvalidParameterException", message)


class LogsOperations:
    """One method an operation; ``operations`` names them for the router."""

    def __init__(self, store: LogStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def operations(self) -> Mapping[str, OperationHandler]:
        """Handlers by operation name."""
        return {
            "CreateLogGroup": self.create_log_group,
            "CreateLogStream": self.create_log_stream,
            "DeleteLogGroup": self.delete_log_group,
            "DeleteLogStream": self.delete_log_stream,
            "DeleteRetentionPolicy": self.delete_retention_policy,
            "DescribeLogGroups": self.describe_log_groups,
            "DescribeLogStreams": self.describe_log_streams,
            "FilterLogEvents": self.filter_log_events,
            "GetLogEvents": self.get_log_events,
            "PutLogEvents": self.put_log_events,
            "PutRetentionPolicy": self.put_retention_policy,
        }

    # --- groups

    async def create_log_group(self, context: RequestContext, request: types.CreateLogGroupRequest) -> None:
        if not await self._store.create_group(context.account, context.region, request.log_group_name):
            raise ServiceError("ResourceAlreadyExistsException", "The specified log group already exists")

    async def delete_log_group(self, context: RequestContext, request: types.DeleteLogGroupRequest) -> None:
        if not await self._store.delete_group(context.account, context.region, request.log_group_name):
            raise _group_missing()

    async def put_retention_policy(
        self, context: RequestContext, request: types.PutRetentionPolicyRequest
    ) -> None:
        days = request.retention_in_days
        if days not in RETENTION_DAYS:
            allowed = ", ".join(str(value) for value in sorted(RETENTION_DAYS))
            raise _invalid(
                f"1 validation error detected: Value '{days}' at 'retentionInDays' failed to satisfy "
                f"constraint: Member must satisfy enum value set: [{allowed}]"
            )
        await self._set_retention(context, request.log_group_name, days)

    async def delete_retention_policy(
        self, context: RequestContext, request: types.DeleteRetentionPolicyRequest
    ) -> None:
        await self._set_retention(context, request.log_group_name, None)

    async def _set_retention(self, context: RequestContext, group: str, days: int | None) -> None:
        if not await self._store.set_retention(context.account, context.region, group, days):
            raise _group_missing()

    async def describe_log_groups(
        self, context: RequestContext, request: types.DescribeLogGroupsRequest
    ) -> types.DescribeLogGroupsResponse:
        if request.log_group_name_prefix and request.log_group_name_pattern:
            raise _invalid(
                "LogGroup name prefix and LogGroup name pattern are mutually exclusive parameters."
            )
        limit = min(request.limit or DESCRIBED_MAX, DESCRIBED_MAX)
        after = _name_of(request.next_token)
        pattern = request.log_group_name_pattern or ""
        found: list[LogGroupInfo] = []
        while len(found) <= limit:
            page = await self._store.groups(
                context.account,
                context.region,
                prefix=request.log_group_name_prefix or "",
                after=after,
                limit=limit + 1,
            )
            found += [group for group in page if pattern in group.name]
            if len(page) <= limit:
                break
            after = page[-1].name
        shown = found[:limit]
        return types.DescribeLogGroupsResponse(
            log_groups=tuple(log_group(context, group) for group in shown),
            next_token=_token_of(shown[-1].name) if len(found) > limit else None,
        )

    # --- streams

    async def create_log_stream(self, context: RequestContext, request: types.CreateLogStreamRequest) -> None:
        created = await self._store.create_stream(
            context.account, context.region, request.log_group_name, request.log_stream_name
        )
        if created is None:
            raise _group_missing()
        if not created:
            raise ServiceError("ResourceAlreadyExistsException", "The specified log stream already exists")

    async def delete_log_stream(self, context: RequestContext, request: types.DeleteLogStreamRequest) -> None:
        deleted = await self._store.delete_stream(
            context.account, context.region, request.log_group_name, request.log_stream_name
        )
        if deleted is None:
            raise _group_missing()
        if not deleted:
            raise _stream_missing()

    async def describe_log_streams(
        self, context: RequestContext, request: types.DescribeLogStreamsRequest
    ) -> types.DescribeLogStreamsResponse:
        group = _group_name(request.log_group_name, request.log_group_identifier)
        by_last_event = request.order_by == "LastEventTime"
        if by_last_event and request.log_stream_name_prefix:
            raise _invalid("Cannot order by LastEventTime with a logStreamNamePrefix.")
        streams = await self._streams(
            context,
            group,
            prefix=request.log_stream_name_prefix or "",
            by_last_event=by_last_event,
            descending=bool(request.descending),
        )
        limit = min(request.limit or DESCRIBED_MAX, DESCRIBED_MAX)
        start = _place_after(streams, request.next_token)
        shown = streams[start : start + limit]
        return types.DescribeLogStreamsResponse(
            log_streams=tuple(log_stream(context, group, stream) for stream in shown),
            next_token=_token_of(shown[-1].name) if start + limit < len(streams) else None,
        )

    async def _streams(
        self, context: RequestContext, group: str, *, prefix: str, by_last_event: bool, descending: bool
    ) -> list[LogStreamInfo]:
        streams = await self._store.streams(
            context.account,
            context.region,
            group,
            prefix=prefix,
            by_last_event=by_last_event,
            descending=descending,
        )
        if streams is None:
            raise _group_missing()
        return streams

    # --- events

    async def get_log_events(
        self, context: RequestContext, request: types.GetLogEventsRequest
    ) -> types.GetLogEventsResponse:
        group = _group_name(request.log_group_name, request.log_group_identifier)
        page = await self._page(
            context,
            group,
            (request.log_stream_name,),
            start_ms=_time(request.start_time, 0),
            end_ms=_time(request.end_time, _TIME_MAX_MS),
            token=request.next_token,
            limit=min(request.limit or EVENTS_MAX, EVENTS_MAX),
            from_head=bool(request.start_from_head),
        )
        return types.GetLogEventsResponse(
            events=tuple(
                types.OutputLogEvent(
                    timestamp=event.timestamp_ms, message=event.message, ingestion_time=event.ingestion_ms
                )
                for event in page.events
            ),
            next_forward_token=page.forward_token,
            next_backward_token=page.backward_token,
        )

    async def filter_log_events(
        self, context: RequestContext, request: types.FilterLogEventsRequest
    ) -> types.FilterLogEventsResponse:
        group = _group_name(request.log_group_name, request.log_group_identifier)
        try:
            matches = compile_pattern(request.filter_pattern)
        except UnsupportedPattern as error:
            raise _invalid(str(error)) from error
        events, token = await self._search(context, group, request, matches)
        return types.FilterLogEventsResponse(
            events=tuple(filtered_event(event) for event in events),
            searched_log_streams=(),
            next_token=token,
        )

    async def _search(
        self,
        context: RequestContext,
        group: str,
        request: types.FilterLogEventsRequest,
        matches: Predicate,
    ) -> tuple[list[LogEvent], str | None]:
        """Matching events and where to go on; no token once everything was looked at."""
        streams = await self._chosen_streams(context, group, request)
        limit = min(request.limit or EVENTS_MAX, EVENTS_MAX)
        token = request.next_token
        found: list[LogEvent] = []
        for _ in range(FILTER_PAGES_MAX):
            page = await self._page(
                context,
                group,
                streams,
                start_ms=_time(request.start_time, 0),
                # Unlike GetLogEvents, whose end is exclusive.
                end_ms=_time(request.end_time, _TIME_MAX_MS) + 1,
                token=token,
                limit=min(limit, FILTER_PAGE_EVENTS)
                if request.filter_pattern is None
                else FILTER_PAGE_EVENTS,
                from_head=True,
            )
            if not page.events:
                return found, None
            for event in page.events:
                if matches(event.message):
                    found.append(event)
                    if len(found) == limit:
                        return found, _after(event)
            token = page.forward_token
        return found, token

    async def _chosen_streams(
        self, context: RequestContext, group: str, request: types.FilterLogEventsRequest
    ) -> tuple[str, ...] | None:
        if request.log_stream_names and request.log_stream_name_prefix:
            raise _invalid("logStreamNames and logStreamNamePrefix cannot both be specified.")
        if request.log_stream_names:
            return tuple(request.log_stream_names)
        if request.log_stream_name_prefix:
            prefix = request.log_stream_name_prefix
            streams = await self._streams(
                context, group, prefix=prefix, by_last_event=False, descending=False
            )
            return tuple(stream.name for stream in streams)
        return None

    async def _page(
        self,
        context: RequestContext,
        group: str,
        streams: tuple[str, ...] | None,
        *,
        start_ms: int,
        end_ms: int,
        token: str | None,
        limit: int,
        from_head: bool,
    ) -> LogPage:
        try:
            page = await self._store.events(
                context.account,
                context.region,
                group,
                streams=streams,
                start_ms=start_ms,
                end_ms=end_ms,
                token=token,
                limit=limit,
                from_head=from_head,
            )
        except InvalidToken as error:
            raise _invalid("The specified nextToken is invalid.") from error
        if page is None:
            raise await self._missing(context, group)
        return page

    async def _missing(self, context: RequestContext, group: str) -> ServiceError:
        """Whether it is the group or a stream that does not exist."""
        groups = await self._store.groups(context.account, context.region, prefix=group, after="", limit=1)
        return _stream_missing() if groups and groups[0].name == group else _group_missing()

    async def put_log_events(
        self, context: RequestContext, request: types.PutLogEventsRequest
    ) -> types.PutLogEventsResponse:
        times = [event.timestamp for event in request.log_events]
        if times != sorted(times):
            raise _invalid("Log events in a single PutLogEvents request must be in chronological order.")
        group, stream = request.log_group_name, request.log_stream_name
        await self._page(context, group, (stream,), start_ms=0, end_ms=0, token=None, limit=1, from_head=True)
        now_ms = int(self._clock.now_s() * 1000)
        too_old = sum(time < now_ms - _TOO_OLD_MS for time in times)
        too_new = sum(time > now_ms + _TOO_NEW_MS for time in times)
        writer = self._store.writer(context.account, context.region, group, stream)
        try:
            if writer.congested:
                raise ServiceError("ServiceUnavailableException", "The service cannot complete the request.")
            for event in request.log_events[too_old : len(times) - too_new]:
                writer.append(event.timestamp, event.message)
            await self._store.flush()
        finally:
            writer.close()
        rejected: dict[str, Any] = {}
        if too_old:
            rejected["too_old_log_event_end_index"] = too_old
        if too_new:
            rejected["too_new_log_event_start_index"] = len(times) - too_new
        return types.PutLogEventsResponse(
            next_sequence_token=str(now_ms),
            rejected_log_events_info=types.RejectedLogEventsInfo(**rejected) if rejected else None,
        )


def _group_name(name: str | None, identifier: str | None) -> str:
    """The group that a request names, by name or by ARN."""
    if name and identifier:
        raise _invalid("LogGroup name and LogGroup ARN are mutually exclusive parameters.")
    if name:
        return name
    if not identifier:
        raise _invalid("Either LogGroup name or LogGroup ARN must be specified.")
    if identifier.startswith("arn:"):
        return named_group(identifier)
    return identifier


def _time(value_ms: int | None, default_ms: int) -> int:
    return default_ms if value_ms is None else max(0, min(value_ms, _TIME_MAX_MS))


def _after(event: LogEvent) -> str:
    return f"f/{event.event_id}"


def _token_of(name: str) -> str:
    return base64.urlsafe_b64encode(name.encode()).decode()


def _name_of(token: str | None) -> str:
    if not token:
        return ""
    try:
        return base64.b64decode(token.encode(), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeError) as error:
        raise _invalid("The specified nextToken is invalid.") from error


def _place_after(streams: list[LogStreamInfo], token: str | None) -> int:
    """Where a list goes on after the stream that a token names; at its end when that one is gone."""
    if not token:
        return 0
    name = _name_of(token)
    return next((at + 1 for at, stream in enumerate(streams) if stream.name == name), len(streams))
