"""Aliases: create, show, list, update, delete, with their routing of invocations between two versions."""

from stoker.control.going_along import what_goes_along
from stoker.control.lookup import Target, target
from stoker.control.messages import alias_not_found, function_not_found, revision_mismatch
from stoker.control.paging import marked_place, marker, page_size
from stoker.control.ports import Ports
from stoker.core.errors import ServiceError, conflict, invalid_parameter
from stoker.services.aliases import Alias, alias_key, alias_record, alias_shelf, version_lookup
from stoker.services.context import RequestContext
from stoker.services.functions import LATEST, FunctionKey
from stoker.services.lambda_types import (
    AliasConfiguration,
    AliasRoutingConfiguration,
    CreateAliasRequest,
    DeleteAliasRequest,
    GetAliasRequest,
    ListAliasesRequest,
    ListAliasesResponse,
    UpdateAliasRequest,
)
from stoker.services.records import (
    Entry,
    FunctionThere,
    Put,
    RecordChanged,
    RecordExists,
    RecordMissing,
    Remove,
    Requirement,
    RequirementUnmet,
)

UPDATE_ATTEMPTS = 8
"""Of an UpdateAlias without RevisionId, when others change the same alias at the same moment."""


class Aliases:
    """Handlers of the alias operations."""

    def __init__(self, ports: Ports) -> None:
        self._metadata = ports.metadata
        self._records = ports.records
        self._aliases = alias_shelf(ports.records)
        self._invalidation = ports.invalidation
        self._new_id = ports.new_id

    async def create(self, context: RequestContext, request: CreateAliasRequest) -> AliasConfiguration:
        found = _named(context, request.function_name, request.name, "CreateAlias")
        alias = Alias(
            version=request.function_version,
            description=request.description or "",
            additional=_weights(request.routing_config),
        )
        await self._check_version(found.key, alias.version)
        if await self._aliases.get(alias_key(found.key, request.name)) is not None:
            raise _exists(found)
        await self._check_routing(found.key, alias)
        try:
            return await self._write(found.key, request.name, alias, expected=None)
        except RecordExists as problem:
            raise _exists(found) from problem

    async def get(self, context: RequestContext, request: GetAliasRequest) -> AliasConfiguration:
        found = _named(context, request.function_name, request.name, "GetAlias")
        stored = await self._stored(found, request.name)
        return shown_alias(found.key, stored.key.name, stored.value, stored.revision_id)

    async def update(self, context: RequestContext, request: UpdateAliasRequest) -> AliasConfiguration:
        found = _named(context, request.function_name, request.name, "UpdateAlias")
        for _ in range(UPDATE_ATTEMPTS):
            stored = await self._stored(found, request.name)
            if request.revision_id is not None and request.revision_id != stored.revision_id:
                raise revision_mismatch()
            changed = _changed(stored.value, request)
            if changed.version != stored.value.version:
                await self._check_version(found.key, changed.version)
            await self._check_routing(found.key, changed)
            try:
                return await self._write(found.key, request.name, changed, expected=stored.revision_id)
            except RecordChanged:
                continue
            except RecordMissing as problem:
                raise alias_not_found(found.arn) from problem
        raise conflict("The alias is being changed by other requests. Please try again.")

    async def delete(self, context: RequestContext, request: DeleteAliasRequest) -> None:
        """With its configurations, which an alias of the same name must not inherit.

        An alias that is not there is deleted, as far as AWS is concerned.
        """
        found = _named(context, request.function_name, request.name, "DeleteAlias")
        place = alias_key(found.key, request.name)
        gone = [Remove(place), *await what_goes_along(self._records, found.key, request.name)]
        try:
            await self._records.write(gone, requires=(FunctionThere(found.key),))
        except RequirementUnmet as problem:
            raise function_not_found(found.key.arn) from problem
        except RecordMissing:
            return
        self._invalidation.publish(found.key)

    async def list(self, context: RequestContext, request: ListAliasesRequest) -> ListAliasesResponse:
        key = _unqualified(context, request.function_name, "ListAliases")
        if await self._metadata.function(key) is None:
            raise function_not_found(key.arn)
        limit = page_size(request.max_items)
        after = (key.name, marked_place(request.marker, "ListAliases"))
        if request.function_version is None:
            entries = await self._aliases.page(
                key.account, key.region, owner=key.name, after=after, limit=limit + 1
            )
        else:
            lookup = version_lookup(key.name, request.function_version)
            entries = await self._aliases.referring(
                key.account, key.region, lookup, after=after, limit=limit + 1
            )
        page = entries[:limit]
        return ListAliasesResponse(
            aliases=tuple(shown_alias(key, each.key.name, each.value, each.revision_id) for each in page),
            next_marker=marker(page[-1].key.name) if len(entries) > limit else None,
        )

    async def _stored(self, found: Target, name: str) -> Entry[Alias]:
        stored = await self._aliases.get(alias_key(found.key, name))
        if stored is None:
            raise alias_not_found(found.arn)
        return stored

    async def _check_version(self, key: FunctionKey, version: str) -> None:
        if await self._metadata.version(key, version) is None:
            raise function_not_found(f"{key.arn}:{version}")

    async def _check_routing(self, key: FunctionKey, alias: Alias) -> None:
        if len(alias.additional) > 1:
            raise invalid_parameter("Number of items in AdditionalVersionWeights cannot be greater than 1")
        for version in alias.additional:
            if version == alias.version:
                raise invalid_parameter(
                    f"Invalid function version {version}. "
                    f"Function version {version} is already included in routing configuration."
                )
            if alias.version == LATEST:
                raise ServiceError(
                    "InvalidParameterValueException",
                    "$LATEST is not supported for an alias pointing to more than 1 version",
                )
            await self._check_version(key, version)

    async def _write(
        self, key: FunctionKey, name: str, alias: Alias, *, expected: str | None
    ) -> AliasConfiguration:
        revision_id = self._new_id()
        record = alias_record(self._aliases, alias_key(key, name), alias, revision_id)
        requires: list[Requirement] = [
            FunctionThere(key, version) for version in (alias.version, *alias.additional)
        ]
        try:
            await self._aliases.write(Put(record, expected), requires=requires)
        except RequirementUnmet as problem:
            missing = problem.requirement
            version = missing.version if isinstance(missing, FunctionThere) else None
            raise function_not_found(f"{key.arn}:{version or alias.version}") from problem
        self._invalidation.publish(key)
        return shown_alias(key, name, alias, revision_id)


def shown_alias(key: FunctionKey, name: str, alias: Alias, revision_id: str) -> AliasConfiguration:
    """An alias as the API shows it."""
    routing = AliasRoutingConfiguration(additional_version_weights=alias.additional)
    return AliasConfiguration(
        alias_arn=f"{key.arn}:{name}",
        name=name,
        function_version=alias.version,
        description=alias.description,
        routing_config=routing if alias.additional else None,
        revision_id=revision_id,
    )


def _named(context: RequestContext, function_name: str, name: str, operation: str) -> Target:
    """The alias as a target; a function name that carries another qualifier is refused."""
    return target(context, function_name, operation, name)


def _unqualified(context: RequestContext, function_name: str, operation: str) -> FunctionKey:
    found = target(context, function_name, operation)
    if found.qualifier is not None:
        raise invalid_parameter(
            "The derived qualifier from the function name does not match the specified qualifier."
        )
    return found.key


def _changed(stored: Alias, request: UpdateAliasRequest) -> Alias:
    routing = request.routing_config
    return Alias(
        version=stored.version if request.function_version is None else request.function_version,
        description=stored.description if request.description is None else request.description,
        additional=stored.additional if routing is None else _weights(routing),
    )


def _weights(routing: AliasRoutingConfiguration | None) -> dict[str, float]:
    return {} if routing is None else dict(routing.additional_version_weights or {})


def _exists(found: Target) -> ServiceError:
    return conflict(f"Alias already exists: {found.arn}")
