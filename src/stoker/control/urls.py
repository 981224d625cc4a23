"""Function URL configs: one HTTP address for a function, and one for each of its aliases."""

import datetime
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from stoker.control.lookup import Target, target
from stoker.control.messages import constraint, not_implemented
from stoker.control.paging import marked_place, marker, page_size
from stoker.control.ports import Ports
from stoker.control.qualifiers import find, stays
from stoker.core.errors import ServiceError, conflict, not_found
from stoker.services.aliases import alias_shelf, is_alias_name
from stoker.services.context import OperationHandler, RequestContext
from stoker.services.functions import LATEST
from stoker.services.lambda_types import (
    CreateFunctionUrlConfigRequest,
    CreateFunctionUrlConfigResponse,
    DeleteFunctionUrlConfigRequest,
    FunctionUrlConfig,
    GetFunctionUrlConfigRequest,
    GetFunctionUrlConfigResponse,
    ListFunctionUrlConfigsRequest,
    ListFunctionUrlConfigsResponse,
    UpdateFunctionUrlConfigRequest,
    UpdateFunctionUrlConfigResponse,
)
from stoker.services.records import (
    Entry,
    Put,
    RecordChanged,
    RecordExists,
    RecordMissing,
    Remove,
    RequirementUnmet,
)
from stoker.services.urls import BUFFERED, FunctionUrl, new_url_id, url_key, url_shelf

UPDATE_ATTEMPTS = 8
"""An update merges; this often it starts again when another came between."""

QUALIFIER_RULE = r"Member must satisfy regular expression pattern: ((?!^\d+$)^[0-9a-zA-Z-_]+$)"


class FunctionUrls:
    """Handlers of the function URL operations."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._aliases = alias_shelf(ports.records)
        self._shelf = url_shelf(ports.records)

    def operations(self) -> Mapping[str, OperationHandler]:
        """What is served here, by operation."""
        return {
            "CreateFunctionUrlConfig": self.create,
            "GetFunctionUrlConfig": self.get,
            "UpdateFunctionUrlConfig": self.update,
            "DeleteFunctionUrlConfig": self.delete,
            "ListFunctionUrlConfigs": self.list,
        }

    async def create(
        self, context: RequestContext, request: CreateFunctionUrlConfigRequest
    ) -> CreateFunctionUrlConfigResponse:
        found = _target(context, request.function_name, "CreateFunctionUrlConfig", request.qualifier)
        _check_mode(request.invoke_mode)
        if await find(self._ports.metadata, self._aliases, found) is None:
            raise _no_function()
        now_s = self._ports.clock.now_s()
        url = FunctionUrl(
            url_id=new_url_id(found.key.account, self._ports.new_id()),
            auth_type=request.auth_type,
            created_at_s=now_s,
            modified_at_s=now_s,
            cors=request.cors,
            invoke_mode=request.invoke_mode,
        )
        try:
            entry = await self._write(found, url, None)
        except RecordExists as problem:
            raise conflict(
                f"Failed to create function url config for [functionArn = {found.arn}]. "
                "Error message:  FunctionUrlConfig exists for this Lambda function"
            ) from problem
        shown = self._members(context, entry)
        del shown["last_modified_time"]
        return CreateFunctionUrlConfigResponse(**shown)

    async def get(
        self, context: RequestContext, request: GetFunctionUrlConfigRequest
    ) -> GetFunctionUrlConfigResponse:
        found = _target(context, request.function_name, "GetFunctionUrlConfig", request.qualifier)
        return GetFunctionUrlConfigResponse(**self._members(context, await self._stored(found)))

    async def update(
        self, context: RequestContext, request: UpdateFunctionUrlConfigRequest
    ) -> UpdateFunctionUrlConfigResponse:
        found = _target(context, request.function_name, "UpdateFunctionUrlConfig", request.qualifier)
        _check_mode(request.invoke_mode)
        if await self._ports.metadata.function(found.key) is None:
            raise _no_function()
        for _ in range(UPDATE_ATTEMPTS):
            stored = await self._stored(found)
            changed = _merged(stored.value, request, self._ports.clock.now_s())
            try:
                entry = await self._write(found, changed, stored.revision_id, keeps=True)
            except RecordChanged:
                continue
            except RecordMissing as problem:
                raise _missing() from problem
            return UpdateFunctionUrlConfigResponse(**self._members(context, entry))
        raise conflict("The function URL is being changed by other requests. Please try again.")

    async def delete(self, context: RequestContext, request: DeleteFunctionUrlConfigRequest) -> None:
        found = _target(context, request.function_name, "DeleteFunctionUrlConfig", request.qualifier)
        try:
            await self._shelf.write(Remove(url_key(found.key, found.qualifier)))
        except RecordMissing as problem:
            raise _missing() from problem
        self._ports.invalidation.publish(found.key)

    async def list(
        self, context: RequestContext, request: ListFunctionUrlConfigsRequest
    ) -> ListFunctionUrlConfigsResponse:
        found = _target(context, request.function_name, "ListFunctionUrlConfigs", None)
        key = found.key
        if await self._ports.metadata.function(key) is None:
            raise _no_function()
        limit = page_size(request.max_items)
        after = (key.name, marked_place(request.marker, "ListFunctionUrlConfigs"))
        entries = await self._shelf.page(
            key.account, key.region, owner=key.name, after=after, limit=limit + 1
        )
        more = marker(entries[limit - 1].key.name) if len(entries) > limit else None
        return ListFunctionUrlConfigsResponse(
            function_url_configs=tuple(
                FunctionUrlConfig(**self._members(context, entry)) for entry in entries[:limit]
            ),
            next_marker=more,
        )

    async def _stored(self, found: Target) -> Entry[FunctionUrl]:
        entry = await self._shelf.get(url_key(found.key, found.qualifier))
        if entry is None:
            raise _missing()
        return entry

    async def _write(
        self, found: Target, url: FunctionUrl, expected: str | None, *, keeps: bool = False
    ) -> Entry[FunctionUrl]:
        """Write and tell the front end. ``keeps``: its alias may be gone, which it outlives."""
        record = self._shelf.record(
            url_key(found.key, found.qualifier),
            url,
            self._ports.new_id(),
            function=found.key.name,
            lookups=(url.url_id,),
        )
        try:
            await self._shelf.write(Put(record, expected), requires=() if keeps else (stays(found),))
        except RequirementUnmet as problem:
            raise _no_function() from problem
        self._ports.invalidation.publish(found.key)
        return self._shelf.decode(record)

    def _members(self, context: RequestContext, entry: Entry[FunctionUrl]) -> dict[str, Any]:
        key, url = entry.key, entry.value
        arn = f"arn:aws:lambda:{key.region}:{key.account}:function:{key.owner}"
        return {
            "function_url": shown_url(context.endpoint, url.url_id, key.region, self._ports.url_domain),
            "function_arn": arn if key.name == LATEST else f"{arn}:{key.name}",
            "auth_type": url.auth_type,
            "cors": url.cors,
            "creation_time": _moment(url.created_at_s),
            "last_modified_time": _moment(url.modified_at_s),
            "invoke_mode": url.invoke_mode,
        }


def shown_url(endpoint: str, url_id: str, region: str, domain: str) -> str:
    """The address of a URL: on the scheme and port by which this caller reaches Stoker."""
    reached = urlsplit(endpoint)
    try:
        port = reached.port
    except ValueError:
        port = None
    return f"{reached.scheme}://{url_id}.lambda-url.{region}.{domain}{'' if port is None else f':{port}'}/"


def _target(context: RequestContext, name: str, operation: str, qualifier: str | None) -> Target:
    """The function or alias; a URL has neither versions nor $LATEST by name.

    Raises:
        ServiceError: ValidationException for those, in the words of the model's check of Qualifier.
    """
    found = target(context, name, operation, qualifier)
    if found.qualifier is not None and not is_alias_name(found.qualifier):
        raise constraint(found.qualifier, "qualifier", QUALIFIER_RULE)
    return found


def _check_mode(invoke_mode: str | None) -> None:
    if invoke_mode not in (None, BUFFERED):
        raise not_implemented(f"InvokeMode {invoke_mode} of function URLs")


def _merged(url: FunctionUrl, request: UpdateFunctionUrlConfigRequest, now_s: float) -> FunctionUrl:
    return msgspec.structs.replace(
        url,
        auth_type=request.auth_type or url.auth_type,
        cors=url.cors if request.cors is None else request.cors,
        invoke_mode=request.invoke_mode or url.invoke_mode,
        modified_at_s=now_s,
    )


def _moment(at_s: float) -> str:
    at = datetime.datetime.fromtimestamp(at_s, datetime.UTC)
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _missing() -> ServiceError:
    return not_found("The resource you requested does not exist.")


def _no_function() -> ServiceError:
    return not_found("Function does not exist")
