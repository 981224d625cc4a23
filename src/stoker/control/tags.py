"""Tags of functions."""

import re

from stoker.control.lookup import Target, target
from stoker.control.messages import constraint, function_not_found, not_implemented
from stoker.control.ports import Ports
from stoker.control.validation import check_tags
from stoker.core.errors import ServiceError, invalid_parameter
from stoker.services.context import RequestContext
from stoker.services.functions import FunctionMissing
from stoker.services.lambda_types import (
    ListTagsRequest,
    ListTagsResponse,
    TagResourceRequest,
    UntagResourceRequest,
)

RESOURCE_PATTERN = (
    r"arn:(aws[a-zA-Z-]*):lambda:(eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1}:\d{12}:"
    r"(function:[a-zA-Z0-9-_]+(:(\$LATEST|[a-zA-Z0-9-_]+))?|layer:([a-zA-Z0-9-_]+)"
    r"|code-signing-config:csc-[a-z0-9]{17}"
    r"|event-source-mapping:[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
    r"|capacity-provider:[a-zA-Z0-9-_]+)"
)
"""TaggableResource as AWS's answer quotes it."""

_RESOURCE = re.compile(RESOURCE_PATTERN, re.ASCII)


class Tags:
    """Handlers of the tag operations."""

    def __init__(self, ports: Ports) -> None:
        self._metadata = ports.metadata

    async def list(self, context: RequestContext, request: ListTagsRequest) -> ListTagsResponse:
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

        found = _tagged(context, request.resource, "TagResource")
        try:
            await self._metadata.change_tags(found.key, change)
        except FunctionMissing as problem:
            raise function_not_found(found.arn) from problem

    async def untag(self, context: RequestContext, request: UntagResourceRequest) -> None:
        if not request.tag_keys:
            raise ServiceError(
                "ValidationException",
                "1 validation error detected: Value null at 'tagKeys' failed to satisfy constraint: "
                "Member must not be null",
            )
        gone = set(request.tag_keys)
        found = _tagged(context, request.resource, "UntagResource")
        try:
            await self._metadata.change_tags(
                found.key, lambda stored: {name: value for name, value in stored.items() if name not in gone}
            )
        except FunctionMissing as problem:
            raise function_not_found(found.arn) from problem


def _tagged(context: RequestContext, resource: str, operation: str) -> Target:
    if not _RESOURCE.fullmatch(resource):
        rule = f"Member must satisfy regular expression pattern: {RESOURCE_PATTERN}"
        raise constraint(resource, "resource", rule)
    kind = resource.split(":")[5]
    if kind != "function":
        raise not_implemented(f"Tagging of a {kind}")
    found = target(context, resource, operation)
    if found.qualifier is not None:
        raise invalid_parameter(
            "Tags on function aliases and versions are not supported. Please specify a function ARN."
        )
    return found
