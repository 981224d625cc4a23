"""Event source mappings: create, show, list, update, delete. Nothing here reads a source."""

from collections.abc import Mapping, Sequence

import msgspec

from stoker.control.lookup import Target, target
from stoker.control.mapping_records import created_mapping, mapping_record, pairs, updated_mapping
from stoker.control.mapping_sources import SOURCES, check_mapping, endpoints, source_kind
from stoker.control.mapping_transitions import MappingTransitions
from stoker.control.paging import page_of, place_of
from stoker.control.ports import Ports
from stoker.control.qualifiers import find, stays
from stoker.control.validation import check_tags
from stoker.core.errors import ServiceError, conflict, invalid_parameter, not_found
from stoker.services.aliases import alias_shelf
from stoker.services.context import OperationHandler, RequestContext
from stoker.services.event_sources import (
    EVENT_SOURCE_MAPPING,
    EVENT_SOURCE_MAPPING_RESULT,
    SETTLED_STATES,
    EventSourceMapping,
    MappingResult,
    function_lookup,
    pair_lookup,
    result_key,
    source_lookup,
)
from stoker.services.lambda_types import (
    CreateEventSourceMappingRequest,
    DeleteEventSourceMappingRequest,
    EventSourceMappingConfiguration,
    GetEventSourceMappingRequest,
    ListEventSourceMappingsRequest,
    ListEventSourceMappingsResponse,
    UpdateEventSourceMappingRequest,
)
from stoker.services.records import (
    Entry,
    NobodyRefers,
    Put,
    RecordChanged,
    RecordKey,
    RecordMissing,
    Requirement,
    RequirementUnmet,
    Shelf,
)

PAGE_MAX = 100


class EventSourceMappings:
    """Handlers of the event source mapping operations."""

    def __init__(self, ports: Ports, transitions: MappingTransitions) -> None:
        self._ports = ports
        self._transitions = transitions
        self._aliases = alias_shelf(ports.records)
        self._shelf = Shelf(ports.records, EVENT_SOURCE_MAPPING, EventSourceMapping)
        self._results = Shelf(ports.records, EVENT_SOURCE_MAPPING_RESULT, MappingResult)

    def operations(self) -> Mapping[str, OperationHandler]:
        """What is served here, by operation."""
        return {
            "CreateEventSourceMapping": self.create,
            "GetEventSourceMapping": self.get,
            "UpdateEventSourceMapping": self.update,
            "DeleteEventSourceMapping": self.delete,
            "ListEventSourceMappings": self.list,
        }

    async def create(
        self, context: RequestContext, request: CreateEventSourceMappingRequest
    ) -> EventSourceMappingConfiguration:
        found = target(context, request.function_name, "CreateEventSourceMapping")
        check_tags(request.tags or {})
        kind = source_kind(request)
        key = self._shelf.key(context.account, context.region, "", self._ports.new_id())
        now_s = self._ports.clock.now_s()
        mapping = created_mapping(kind, key, request, found.arn, now_s)
        check_mapping(kind, mapping.shown, now_s)
        await self._check_function(found)
        record = mapping_record(self._shelf, key, mapping, self._ports.new_id())
        unmapped = [
            NobodyRefers(EVENT_SOURCE_MAPPING, key.account, key.region, pair) for pair in pairs(mapping.shown)
        ]
        try:
            await self._shelf.write(Put(record), requires=(*unmapped, stays(found)))
        except RequirementUnmet as problem:
            raise await self._unmet(problem.requirement, kind, found, mapping.shown) from problem
        self._transitions.begin(self._shelf.decode(record))
        return mapping.shown

    async def get(
        self, context: RequestContext, request: GetEventSourceMappingRequest
    ) -> EventSourceMappingConfiguration:
        entry = await self._stored(context, request.uuid)
        return await self._with_result(entry.key, entry.value.shown)

    async def update(
        self, context: RequestContext, request: UpdateEventSourceMappingRequest
    ) -> EventSourceMappingConfiguration:
        entry = await self._at_rest(context, request.uuid, "update")
        found = None
        if request.function_name is not None:
            found = target(context, request.function_name, "UpdateEventSourceMapping")
        kind, now_s = source_kind(entry.value.shown), self._ports.clock.now_s()
        arn = None if found is None else found.arn
        mapping = updated_mapping(entry.value, request, arn, SOURCES[kind].transition, now_s)
        check_mapping(kind, mapping.shown, now_s)
        requires: list[Requirement] = []
        if found is not None:
            await self._check_function(found)
            requires.append(stays(found))
            new = set(pairs(mapping.shown)) - set(pairs(entry.value.shown))
            where = (EVENT_SOURCE_MAPPING, entry.key.account, entry.key.region)
            requires += [NobodyRefers(*where, pair) for pair in sorted(new)]
        try:
            return await self._replace(entry, mapping, requires, "update")
        except RequirementUnmet as problem:
            assert found is not None, "without a function there are no requirements"
            raise await self._unmet(problem.requirement, kind, found, mapping.shown) from problem

    async def delete(
        self, context: RequestContext, request: DeleteEventSourceMappingRequest
    ) -> EventSourceMappingConfiguration:
        entry = await self._at_rest(context, request.uuid, "delete")
        shown = entry.value.shown
        gone = EventSourceMapping(
            shown=msgspec.structs.replace(shown, state="Deleting", last_modified=self._ports.clock.now_s()),
            enabled=False,
            tags=entry.value.tags,
        )
        return await self._replace(entry, gone, (), "delete")

    async def list(
        self, context: RequestContext, request: ListEventSourceMappingsRequest
    ) -> ListEventSourceMappingsResponse:
        limit = min(request.max_items or PAGE_MAX, PAGE_MAX)
        place = (context.account, context.region)
        options = {"after": place_of(request.marker), "limit": limit + 1}
        arn, source = None, request.event_source_arn
        if request.function_name:
            arn = target(context, request.function_name, "ListEventSourceMappings").arn
        if arn is None and not source:
            entries = await self._shelf.page(*place, **options)
        else:
            lookup = function_lookup(arn or "")
            if source:
                lookup = source_lookup(source) if arn is None else pair_lookup(source, arn)
            entries = await self._shelf.referring(*place, lookup, **options)
        page, marker = page_of(entries, limit)
        return ListEventSourceMappingsResponse(
            next_marker=marker,
            event_source_mappings=tuple([await self._with_result(one.key, one.value.shown) for one in page]),
        )

    async def _replace(
        self,
        entry: Entry[EventSourceMapping],
        mapping: EventSourceMapping,
        requires: Sequence[Requirement],
        verb: str,
    ) -> EventSourceMappingConfiguration:
        record = mapping_record(self._shelf, entry.key, mapping, self._ports.new_id())
        try:
            await self._shelf.write(Put(record, entry.revision_id), requires=requires)
        except RecordMissing as problem:
            raise mapping_not_found() from problem
        except RecordChanged as problem:
            raise _in_use(verb) from problem
        self._transitions.begin(self._shelf.decode(record))
        return await self._with_result(entry.key, mapping.shown)

    async def _with_result(
        self, key: RecordKey, shown: EventSourceMappingConfiguration
    ) -> EventSourceMappingConfiguration:
        """With how polling went last, of sources for which that is shown."""
        if shown.last_processing_result is None:
            return shown
        result = await self._results.get(result_key(key))
        if result is None:
            return shown
        last = result.value.last_processing_result
        return msgspec.structs.replace(shown, last_processing_result=last)

    async def _stored(self, context: RequestContext, uuid: str) -> Entry[EventSourceMapping]:
        entry = await self._shelf.get(self._shelf.key(context.account, context.region, "", uuid))
        if entry is None:
            raise mapping_not_found()
        return entry

    async def _at_rest(self, context: RequestContext, uuid: str, verb: str) -> Entry[EventSourceMapping]:
        entry = await self._stored(context, uuid)
        if entry.value.shown.state not in SETTLED_STATES:
            raise _in_use(verb)
        return entry

    async def _check_function(self, found: Target) -> None:
        if await find(self._ports.metadata, self._aliases, found) is None:
            raise _no_function()

    async def _unmet(
        self, requirement: Requirement, kind: str, found: Target, shown: EventSourceMappingConfiguration
    ) -> ServiceError:
        """The answer when a function went away, or has a mapping from that source already."""
        if not isinstance(requirement, NobodyRefers):
            return _no_function()
        place = (requirement.account, requirement.region, requirement.lookup)
        others = await self._shelf.referring(*place, limit=1)
        uuid = others[0].key.name if others else ""
        return conflict(_duplicate(kind, found, shown) + f"the existing mapping with UUID {uuid}")


def _duplicate(kind: str, found: Target, shown: EventSourceMappingConfiguration) -> str:
    name = found.key.name if found.qualifier is None else f"{found.key.name}:{found.qualifier}"
    source = shown.event_source_arn
    if kind in ("sqs", "sqs-fifo"):
        pair = f'An event source mapping with SQS arn (" {source} ") and function (" {name} ")'
    elif kind == "self-managed":
        servers, topics = ",".join(endpoints(shown)), ",".join(shown.topics or ())
        pair = (
            f'An event source mapping with event source ("{servers}"), function ("{found.arn}"), '
            f'topics ("{topics}")'
        )
    else:
        pair = f'The event source arn (" {source} ") and function (" {name} ") provided mapping'
    return f"{pair} already exists. Please update or delete "


def mapping_not_found() -> ServiceError:
    """404 for a mapping."""
    return not_found("The resource you requested does not exist.")


def _no_function() -> ServiceError:
    return invalid_parameter("Function does not exist")


def _in_use(verb: str) -> ServiceError:
    return ServiceError(
        "ResourceInUseException",
        f"Cannot {verb} the event source mapping because it is in use.",
        fields={"Type": "User"},
    )
