"""Event invoke config: retries, event age and destinations of asynchronous invocations, by qualifier."""

from collections.abc import Mapping

import msgspec

from stoker.control.destinations import check_destinations, destinations
from stoker.control.lookup import Target, target
from stoker.control.paging import page_of, place_of
from stoker.control.ports import Ports
from stoker.control.qualifiers import find, stays
from stoker.core.errors import ServiceError, invalid_parameter, not_found
from stoker.services.aliases import alias_shelf
from stoker.services.context import OperationHandler, RequestContext
from stoker.services.event_invoke import EVENT_INVOKE_CONFIG, EventInvokeConfig, event_invoke_key
from stoker.services.functions import LATEST
from stoker.services.lambda_types import (
    DeleteFunctionEventInvokeConfigRequest,
    DestinationConfig,
    FunctionEventInvokeConfig,
    GetFunctionEventInvokeConfigRequest,
    ListFunctionEventInvokeConfigsRequest,
    ListFunctionEventInvokeConfigsResponse,
    OnFailure,
    OnSuccess,
    PutFunctionEventInvokeConfigRequest,
    UpdateFunctionEventInvokeConfigRequest,
)
from stoker.services.records import (
    ANY_REVISION,
    Entry,
    Put,
    RecordChanged,
    RecordMissing,
    Remove,
    RequirementUnmet,
    Shelf,
)

PAGE_MAX = 50
ATTEMPTS = 8
"""An update merges; this often it starts again when another came between."""

Wanted = PutFunctionEventInvokeConfigRequest | UpdateFunctionEventInvokeConfigRequest


class EventInvokeConfigs:
    """Handlers of the event invoke config operations."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._aliases = alias_shelf(ports.records)
        self._shelf = Shelf(ports.records, EVENT_INVOKE_CONFIG, EventInvokeConfig)

    def operations(self) -> Mapping[str, OperationHandler]:
        """What is served here, by operation."""
        return {
            "PutFunctionEventInvokeConfig": self.put,
            "UpdateFunctionEventInvokeConfig": self.update,
            "GetFunctionEventInvokeConfig": self.get,
            "DeleteFunctionEventInvokeConfig": self.delete,
            "ListFunctionEventInvokeConfigs": self.list,
        }

    async def put(
        self, context: RequestContext, request: PutFunctionEventInvokeConfigRequest
    ) -> FunctionEventInvokeConfig:
        found = await self._checked(context, request, "PutFunctionEventInvokeConfig")
        fresh = EventInvokeConfig(last_modified_s=self._ports.clock.now_s())
        return await self._write(found, _merged(fresh, request), ANY_REVISION)

    async def update(
        self, context: RequestContext, request: UpdateFunctionEventInvokeConfigRequest
    ) -> FunctionEventInvokeConfig:
        found = await self._checked(context, request, "UpdateFunctionEventInvokeConfig")
        for attempt in range(ATTEMPTS):
            entry = await self._stored(found)
            changed = msgspec.structs.replace(entry.value, last_modified_s=self._ports.clock.now_s())
            expected = entry.revision_id if attempt < ATTEMPTS - 1 else ANY_REVISION
            try:
                return await self._write(found, _merged(changed, request), expected)
            except (RecordChanged, RecordMissing):
                continue
        raise _missing(found)

    async def get(
        self, context: RequestContext, request: GetFunctionEventInvokeConfigRequest
    ) -> FunctionEventInvokeConfig:
        found = target(context, request.function_name, "GetFunctionEventInvokeConfig", request.qualifier)
        return _shown(await self._stored(found))

    async def delete(self, context: RequestContext, request: DeleteFunctionEventInvokeConfigRequest) -> None:
        found = target(context, request.function_name, "DeleteFunctionEventInvokeConfig", request.qualifier)
        try:
            await self._shelf.write(Remove(event_invoke_key(found.key, found.qualifier)))
        except RecordMissing as problem:
            raise _missing(found) from problem
        self._ports.invalidation.publish(found.key)

    async def list(
        self, context: RequestContext, request: ListFunctionEventInvokeConfigsRequest
    ) -> ListFunctionEventInvokeConfigsResponse:
        found = target(context, request.function_name, "ListFunctionEventInvokeConfigs")
        if await self._ports.metadata.function(found.key) is None:
            raise _no_function()
        limit = min(request.max_items or PAGE_MAX, PAGE_MAX)
        entries = await self._shelf.page(
            found.key.account,
            found.key.region,
            owner=found.key.name,
            after=place_of(request.marker),
            limit=limit + 1,
        )
        page, marker = page_of(entries, limit)
        return ListFunctionEventInvokeConfigsResponse(
            function_event_invoke_configs=tuple(_shown(entry) for entry in page), next_marker=marker
        )

    async def _checked(self, context: RequestContext, request: Wanted, operation: str) -> Target:
        found = target(context, request.function_name, operation, request.qualifier)
        given = (request.maximum_retry_attempts, request.maximum_event_age_in_seconds)
        if given == (None, None) and request.destination_config is None:
            raise invalid_parameter("You must specify at least one of error handling or destination setting.")
        if await find(self._ports.metadata, self._aliases, found) is None:
            raise _no_function()
        if request.destination_config is not None:
            await check_destinations(self._ports, found.key, request.destination_config)
        return found

    async def _stored(self, found: Target) -> Entry[EventInvokeConfig]:
        entry = await self._shelf.get(event_invoke_key(found.key, found.qualifier))
        if entry is None:
            raise _missing(found)
        return entry

    async def _write(
        self, found: Target, value: EventInvokeConfig, expected: str
    ) -> FunctionEventInvokeConfig:
        record = self._shelf.record(
            event_invoke_key(found.key, found.qualifier),
            value,
            self._ports.new_id(),
            function=found.key.name,
        )
        try:
            await self._shelf.write(Put(record, expected), requires=(stays(found),))
        except RequirementUnmet as problem:
            raise _no_function() from problem
        self._ports.invalidation.publish(found.key)
        return _shown(self._shelf.decode(record))


def _merged(config: EventInvokeConfig, request: Wanted) -> EventInvokeConfig:
    changes: dict[str, int | str | None] = {}
    if request.maximum_retry_attempts is not None:
        changes["maximum_retry_attempts"] = request.maximum_retry_attempts
    if request.maximum_event_age_in_seconds is not None:
        changes["maximum_event_age_s"] = request.maximum_event_age_in_seconds
    if request.destination_config is not None:
        changes["on_success"], changes["on_failure"] = destinations(request.destination_config)
    return msgspec.structs.replace(config, **changes)


def _shown(entry: Entry[EventInvokeConfig]) -> FunctionEventInvokeConfig:
    key, config = entry.key, entry.value
    arn = f"arn:aws:lambda:{key.region}:{key.account}:function:{key.owner}:{key.name}"
    return FunctionEventInvokeConfig(
        last_modified=config.last_modified_s,
        function_arn=arn,
        maximum_retry_attempts=config.maximum_retry_attempts,
        maximum_event_age_in_seconds=config.maximum_event_age_s,
        destination_config=DestinationConfig(
            on_success=OnSuccess(destination=config.on_success),
            on_failure=OnFailure(destination=config.on_failure),
        ),
    )


def _missing(found: Target) -> ServiceError:
    arn = f"{found.key.arn}:{found.qualifier or LATEST}"
    return not_found(f"The function {arn} doesn't have an EventInvokeConfig")


def _no_function() -> ServiceError:
    return not_found("The function doesn't exist.")
