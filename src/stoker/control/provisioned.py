"""Provisioned concurrency configs: put, show, list, delete."""

from collections.abc import Mapping

import msgspec

from stoker.control.concurrency import UNRESERVED_MIN
from stoker.control.lookup import Target, target, unqualified
from stoker.control.messages import function_not_found
from stoker.control.paging import page_of, place_of
from stoker.control.ports import Ports
from stoker.control.provisioning import Provisioning
from stoker.control.qualifiers import Resolved, find, qualifier_not_found, stays
from stoker.control.records import shown_time
from stoker.core.errors import ServiceError, conflict, invalid_parameter
from stoker.services.aliases import alias_shelf, version_lookup
from stoker.services.context import OperationHandler, RequestContext
from stoker.services.functions import LATEST, FunctionKey
from stoker.services.lambda_types import (
    DeleteProvisionedConcurrencyConfigRequest,
    GetProvisionedConcurrencyConfigRequest,
    GetProvisionedConcurrencyConfigResponse,
    ListProvisionedConcurrencyConfigsRequest,
    ListProvisionedConcurrencyConfigsResponse,
    ProvisionedConcurrencyConfigListItem,
    PutProvisionedConcurrencyConfigRequest,
    PutProvisionedConcurrencyConfigResponse,
)
from stoker.services.manager import Provisioned
from stoker.services.provisioned import ProvisionedConcurrency, provisioned_key, provisioned_shelf
from stoker.services.records import ANY_REVISION, Entry, Put, RecordMissing, Remove, RequirementUnmet

PAGE_MAX = 50


class ProvisionedConcurrencyConfigs:
    """Handlers of the provisioned concurrency operations."""

    def __init__(self, ports: Ports, provisioning: Provisioning) -> None:
        self._ports = ports
        self._aliases = alias_shelf(ports.records)
        self._shelf = provisioned_shelf(ports.records)
        self._provisioning = provisioning

    def operations(self) -> Mapping[str, OperationHandler]:
        """What is served here, by operation."""
        return {
            "PutProvisionedConcurrencyConfig": self.put,
            "GetProvisionedConcurrencyConfig": self.get,
            "DeleteProvisionedConcurrencyConfig": self.delete,
            "ListProvisionedConcurrencyConfigs": self.list,
        }

    async def put(
        self, context: RequestContext, request: PutProvisionedConcurrencyConfigRequest
    ) -> PutProvisionedConcurrencyConfigResponse:
        found = target(context, request.function_name, "PutProvisionedConcurrencyConfig", request.qualifier)
        if found.qualifier == LATEST:
            raise invalid_parameter(
                "Provisioned Concurrency Configs cannot be applied to unpublished function versions."
            )
        resolved = await self._resolved(found)
        if resolved.version.version == LATEST:
            raise invalid_parameter("Alias with $LATEST version cannot be used for Provisioned Concurrency.")
        await self._check_not_shared(found, resolved)
        requested = request.provisioned_concurrent_executions
        await self._check_limits(found, requested)
        value = ProvisionedConcurrency(requested=requested, last_modified_s=self._ports.clock.now_s())
        key = provisioned_key(found.key, str(found.qualifier))
        record = self._shelf.record(key, value, self._ports.new_id(), function=found.key.name)
        try:
            await self._shelf.write(Put(record, ANY_REVISION), requires=(stays(found),))
        except RequirementUnmet as problem:
            raise qualifier_not_found(found) from problem
        self._ports.invalidation.publish(found.key)
        return PutProvisionedConcurrencyConfigResponse(
            requested_provisioned_concurrent_executions=requested,
            allocated_provisioned_concurrent_executions=0,
            available_provisioned_concurrent_executions=0,
            status="IN_PROGRESS",
            last_modified=shown_time(value.last_modified_s),
        )

    async def get(
        self, context: RequestContext, request: GetProvisionedConcurrencyConfigRequest
    ) -> GetProvisionedConcurrencyConfigResponse:
        found = await self._provisionable(
            context, request.function_name, request.qualifier, "GetProvisionedConcurrencyConfig"
        )
        entry = await self._shelf.get(provisioned_key(found.key, str(found.qualifier)))
        if entry is None:
            raise _missing()
        state = await self._provisioning.state(found.key, str(found.qualifier))
        return _shown(entry.value, state)

    async def delete(
        self, context: RequestContext, request: DeleteProvisionedConcurrencyConfigRequest
    ) -> None:
        """AWS answers 204 also when there is nothing to delete."""
        found = await self._provisionable(
            context, request.function_name, request.qualifier, "DeleteProvisionedConcurrencyConfig"
        )
        try:
            await self._shelf.write(Remove(provisioned_key(found.key, str(found.qualifier))))
        except RecordMissing:
            return
        self._ports.invalidation.publish(found.key)

    async def list(
        self, context: RequestContext, request: ListProvisionedConcurrencyConfigsRequest
    ) -> ListProvisionedConcurrencyConfigsResponse:
        found = unqualified(context, request.function_name, "ListProvisionedConcurrencyConfigs")
        if await self._ports.metadata.function(found.key) is None:
            raise function_not_found(found.arn)
        limit = min(request.max_items or PAGE_MAX, PAGE_MAX)
        entries = await self._shelf.page(
            found.key.account,
            found.key.region,
            owner=found.key.name,
            after=place_of(request.marker),
            limit=limit + 1,
        )
        page, marker = page_of(entries, limit)
        items = [await self._item(found.key, entry) for entry in page]
        return ListProvisionedConcurrencyConfigsResponse(
            provisioned_concurrency_configs=tuple(items), next_marker=marker
        )

    async def _item(
        self, key: FunctionKey, entry: Entry[ProvisionedConcurrency]
    ) -> ProvisionedConcurrencyConfigListItem:
        state = await self._provisioning.state(key, entry.key.name)
        members = msgspec.structs.asdict(_shown(entry.value, state))
        return ProvisionedConcurrencyConfigListItem(function_arn=f"{key.arn}:{entry.key.name}", **members)

    async def _provisionable(
        self, context: RequestContext, name: str, qualifier: str, operation: str
    ) -> Target:
        found = target(context, name, operation, qualifier)
        if found.qualifier in (None, LATEST):
            raise invalid_parameter("The function resource provided must be an alias or a published version.")
        await self._resolved(found)
        return found

    async def _resolved(self, found: Target) -> Resolved:
        resolved = await find(self._ports.metadata, self._aliases, found)
        if resolved is None:
            raise qualifier_not_found(found)
        return resolved

    async def _check_not_shared(self, found: Target, resolved: Resolved) -> None:
        """A version is provisioned under its own number or by one of its aliases, not by both."""
        key = found.key
        if resolved.alias is not None:
            if await self._shelf.get(provisioned_key(key, resolved.alias.value.version)) is not None:
                raise conflict(
                    "Alias can't be used for Provisioned Concurrency configuration on an already Provisioned "
                    "version"
                )
            return
        lookup = version_lookup(key.name, resolved.version.version)
        for alias in await self._aliases.referring(key.account, key.region, lookup):
            if await self._shelf.get(provisioned_key(key, alias.key.name)) is not None:
                raise conflict("Version is pointed by a Provisioned Concurrency alias")

    async def _check_limits(self, found: Target, requested: int) -> None:
        function = await self._ports.metadata.function(found.key)
        if function is None:
            raise qualifier_not_found(found)
        key = found.key
        configs = await self._shelf.page(key.account, key.region, owner=key.name)
        total = requested + sum(c.value.requested for c in configs if c.key.name != found.qualifier)
        if function.reserved_concurrency is not None:
            if total > function.reserved_concurrency:
                raise invalid_parameter(
                    "Requested Provisioned Concurrency should not be greater than the "
                    "reservedConcurrentExecution for function"
                )
            return
        reserved = await self._ports.metadata.total_reserved_concurrency(key.account, key.region)
        unreserved = self._ports.account_concurrency - reserved
        if requested > unreserved:
            raise invalid_parameter(
                "Specified ConcurrentExecutions for function is greater than account's unreserved "
                f"concurrency [{unreserved}]."
            )
        if total > unreserved - UNRESERVED_MIN:
            raise invalid_parameter(
                "Specified ConcurrentExecutions for function decreases account's "
                f"UnreservedConcurrentExecution below its minimum value of [{UNRESERVED_MIN}]."
            )


def _shown(value: ProvisionedConcurrency, state: Provisioned) -> GetProvisionedConcurrencyConfigResponse:
    available = min(state.available, value.requested)
    status = "READY" if available >= value.requested else "FAILED" if state.failure else "IN_PROGRESS"
    return GetProvisionedConcurrencyConfigResponse(
        requested_provisioned_concurrent_executions=value.requested,
        allocated_provisioned_concurrent_executions=available,
        available_provisioned_concurrent_executions=available,
        status=status,
        status_reason=state.failure if status == "FAILED" else None,
        last_modified=shown_time(value.last_modified_s),
    )


def _missing() -> ServiceError:
    return ServiceError(
        "ProvisionedConcurrencyConfigNotFoundException",
        "No Provisioned Concurrency Config found for this function",
        fields={"Type": "User"},
    )
