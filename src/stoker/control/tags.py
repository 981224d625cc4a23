"""Tags of functions and of what is kept as records: mappings, code signing configurations, providers."""

import re
from collections.abc import Callable
from typing import Any, Final

import msgspec

from stoker.control.capacity_providers import CAPACITY_PROVIDER, provider_not_found
from stoker.control.code_signing import code_signing_not_found
from stoker.control.lookup import Target, target
from stoker.control.mappings import mapping_not_found
from stoker.control.messages import constraint, function_not_found, not_implemented
from stoker.control.ports import Ports
from stoker.control.validation import check_tags
from stoker.core.errors import ServiceError, invalid_parameter
from stoker.services.code_signing import CODE_SIGNING_CONFIG
from stoker.services.context import RequestContext
from stoker.services.event_sources import EVENT_SOURCE_MAPPING
from stoker.services.functions import FunctionMissing
from stoker.services.lambda_types import (
    ListTagsRequest,
    ListTagsResponse,
    TagResourceRequest,
    UntagResourceRequest,
)
from stoker.services.records import Put, Record, RecordChanged, RecordKey, RecordMissing

RESOURCE_PATTERN = (
    r"arn:(aws[a-zA-Z-]*):lambda:(eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1}:\d{12}:"
    r"(function:[a-zA-Z0-9-_]+(:(\$LATEST|[a-zA-Z0-9-_]+))?|layer:([a-zA-Z0-9-_]+)"
    r"|code-signing-config:csc-[a-z0-9]{17}"
    r"|event-source-mapping:[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
    r"|capacity-provider:[a-zA-Z0-9-_]+)"
)
"""TaggableResource as AWS's answer quotes it."""

_RESOURCE = re.compile(RESOURCE_PATTERN, re.ASCII)


class _Tagged(msgspec.Struct, frozen=True):
    """What all documents with tags have in common."""

    tags: dict[str, str] = {}


Change = Callable[[dict[str, str]], dict[str, str]]

_ABSENT: Final[dict[str, Callable[[str], ServiceError]]] = {
    EVENT_SOURCE_MAPPING: lambda _arn: mapping_not_found(),
    CODE_SIGNING_CONFIG: code_signing_not_found,
    CAPACITY_PROVIDER: provider_not_found,
}
"""404 by kind of record; a kind is named as its ARNs name it."""


class Tags:
    """Handlers of the tag operations."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._metadata = ports.metadata

    async def list(self, context: RequestContext, request: ListTagsRequest) -> ListTagsResponse:
        kind = _kind(request.resource)
        if kind != "function":
            record = await self._record(context, kind, request.resource)
            return ListTagsResponse(tags=_tags(record))
        found = _tagged(context, request.resource, "ListTags")
        function = await self._metadata.function(found.key)
        if function is None:
            raise function_not_found(found.arn)
        return ListTagsResponse(tags=function.tags)

    async def tag(self, context: RequestContext, request: TagResourceRequest) -> None:
        if not request.tags:
            raise invalid_parameter("An error occurred and the request cannot be processed.")

        def change(stored: dict[str, str]) -> dict[str, str]:
            changed = stored | request.tags
            check_tags(changed)
            return changed

        await self._change(context, request.resource, "TagResource", change)

    async def untag(self, context: RequestContext, request: UntagResourceRequest) -> None:
        if not request.tag_keys:
            raise ServiceError(
                "ValidationException",
                "1 validation error detected: Value null at 'tagKeys' failed to satisfy constraint: "
                "Member must not be null",
            )
        gone = set(request.tag_keys)
        await self._change(
            context,
            request.resource,
            "UntagResource",
            lambda stored: {name: value for name, value in stored.items() if name not in gone},
        )

    async def _change(self, context: RequestContext, resource: str, operation: str, change: Change) -> None:
        kind = _kind(resource)
        if kind != "function":
            await self._change_record(context, kind, resource, change)
            return
        found = _tagged(context, resource, operation)
        try:
            await self._metadata.change_tags(found.key, change)
        except FunctionMissing as problem:
            raise function_not_found(found.arn) from problem

    async def _change_record(self, context: RequestContext, kind: str, resource: str, change: Change) -> None:
        while True:
            record = await self._record(context, kind, resource)
            document: dict[str, Any] = msgspec.json.decode(record.document)
            document["tags"] = change(_tags(record))
            changed = msgspec.structs.replace(
                record, document=msgspec.json.encode(document), revision_id=self._ports.new_id()
            )
            try:
                await self._ports.records.write([Put(changed, record.revision_id)])
            except (RecordChanged, RecordMissing):
                continue  # another was faster: its tags are merged with
            return

    async def _record(self, context: RequestContext, kind: str, resource: str) -> Record:
        if kind not in _ABSENT:
            raise not_implemented(f"Tagging of a {kind}")
        name = resource.rpartition(":")[2]
        key = RecordKey(kind, context.account, context.region, "", name)
        own = f"arn:aws:lambda:{key.region}:{key.account}:{kind}:{name}"
        record = await self._ports.records.get(key) if resource == own else None
        if record is None:
            raise _ABSENT[kind](resource)
        return record


def _kind(resource: str) -> str:
    if not _RESOURCE.fullmatch(resource):
        rule = f"Member must satisfy regular expression pattern: {RESOURCE_PATTERN}"
        raise constraint(resource, "resource", rule)
    return resource.split(":")[5]


def _tags(record: Record) -> dict[str, str]:
    return msgspec.json.decode(record.document, type=_Tagged).tags


def _tagged(context: RequestContext, resource: str, operation: str) -> Target:
    found = target(context, resource, operation)
    if found.qualifier is not None:
        raise invalid_parameter(
            "Tags on function aliases and versions are not supported. Please specify a function ARN."
        )
    return found
