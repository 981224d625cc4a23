"""Capacity providers: kept and shown. They name pools of machines; placement does not read them yet."""

from collections.abc import Mapping
from typing import Final

import msgspec

from stoker.control.paging import page_of, place_of
from stoker.control.ports import Ports
from stoker.control.records import shown_time
from stoker.control.validation import check_tags
from stoker.core.errors import ServiceError, conflict, not_found
from stoker.services.context import OperationHandler, RequestContext
from stoker.services.lambda_types import (
    CapacityProvider,
    CapacityProviderScalingConfig,
    CreateCapacityProviderRequest,
    CreateCapacityProviderResponse,
    DeleteCapacityProviderRequest,
    DeleteCapacityProviderResponse,
    GetCapacityProviderRequest,
    GetCapacityProviderResponse,
    InstanceRequirements,
    ListCapacityProvidersRequest,
    ListCapacityProvidersResponse,
    ListFunctionVersionsByCapacityProviderRequest,
    ListFunctionVersionsByCapacityProviderResponse,
    UpdateCapacityProviderRequest,
    UpdateCapacityProviderResponse,
)
from stoker.services.records import (
    Entry,
    Put,
    RecordChanged,
    RecordExists,
    RecordKey,
    RecordMissing,
    Remove,
    Shelf,
)

CAPACITY_PROVIDER: Final = "capacity-provider"
"""The kind of their records, named after them."""

PAGE_MAX: Final = 50
V_CPU_MAX: Final = 400
"""MaxVCpuCount where none is given (developer guide, Lambda Managed Instances)."""


class KeptProvider(msgspec.Struct, frozen=True, kw_only=True):
    """One provider. Nothing has to be started for it, so it is Active from the next look on."""

    shown: CapacityProvider
    tags: dict[str, str] = {}


def provider_arn(key: RecordKey) -> str:
    """The ARN of a provider."""
    return f"arn:aws:lambda:{key.region}:{key.account}:capacity-provider:{key.name}"


class CapacityProviders:
    """Handlers of the capacity provider operations."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._shelf = Shelf(ports.records, CAPACITY_PROVIDER, KeptProvider)

    def operations(self) -> Mapping[str, OperationHandler]:
        """What is served here, by operation."""
        return {
            "CreateCapacityProvider": self.create,
            "GetCapacityProvider": self.get,
            "UpdateCapacityProvider": self.update,
            "DeleteCapacityProvider": self.delete,
            "ListCapacityProviders": self.list,
            "ListFunctionVersionsByCapacityProvider": self.list_versions,
        }

    async def create(
        self, context: RequestContext, request: CreateCapacityProviderRequest
    ) -> CreateCapacityProviderResponse:
        check_tags(request.tags or {})
        key = self._key(context, request.capacity_provider_name)
        provider = CapacityProvider(
            capacity_provider_arn=provider_arn(key),
            state="Active",
            vpc_config=request.vpc_config,
            permissions_config=request.permissions_config,
            instance_requirements=request.instance_requirements
            or InstanceRequirements(architectures=("x86_64",)),
            capacity_provider_scaling_config=_scaling(request.capacity_provider_scaling_config),
            kms_key_arn=request.kms_key_arn,
            last_modified=shown_time(self._ports.clock.now_s()),
            propagate_tags=request.propagate_tags,
            telemetry_config=request.telemetry_config,
        )
        kept = KeptProvider(shown=provider, tags=request.tags or {})
        try:
            await self._shelf.write(Put(self._shelf.record(key, kept, self._ports.new_id())))
        except RecordExists as problem:
            raise conflict(f"Capacity provider already exists: {provider_arn(key)}") from problem
        return CreateCapacityProviderResponse(
            capacity_provider=msgspec.structs.replace(provider, state="Pending")
        )

    async def get(
        self, context: RequestContext, request: GetCapacityProviderRequest
    ) -> GetCapacityProviderResponse:
        entry = await self._stored(context, request.capacity_provider_name)
        return GetCapacityProviderResponse(capacity_provider=entry.value.shown)

    async def update(
        self, context: RequestContext, request: UpdateCapacityProviderRequest
    ) -> UpdateCapacityProviderResponse:
        while True:
            entry = await self._stored(context, request.capacity_provider_name)
            stored, scaling = entry.value.shown, request.capacity_provider_scaling_config
            shown = msgspec.structs.replace(
                stored,
                capacity_provider_scaling_config=_scaling(scaling)
                if scaling
                else stored.capacity_provider_scaling_config,
                propagate_tags=request.propagate_tags or stored.propagate_tags,
                telemetry_config=request.telemetry_config or stored.telemetry_config,
                last_modified=shown_time(self._ports.clock.now_s()),
            )
            kept = msgspec.structs.replace(entry.value, shown=shown)
            record = self._shelf.record(entry.key, kept, self._ports.new_id())
            try:
                await self._shelf.write(Put(record, entry.revision_id))
            except (RecordChanged, RecordMissing):
                continue  # another was faster: what it wrote is merged with
            return UpdateCapacityProviderResponse(capacity_provider=shown)

    async def delete(
        self, context: RequestContext, request: DeleteCapacityProviderRequest
    ) -> DeleteCapacityProviderResponse:
        entry = await self._stored(context, request.capacity_provider_name)
        try:
            await self._shelf.write(Remove(entry.key))
        except RecordMissing as problem:
            raise provider_not_found(provider_arn(entry.key)) from problem
        return DeleteCapacityProviderResponse(
            capacity_provider=msgspec.structs.replace(entry.value.shown, state="Deleting")
        )

    async def list(
        self, context: RequestContext, request: ListCapacityProvidersRequest
    ) -> ListCapacityProvidersResponse:
        after = place_of(request.marker)
        if request.state not in (None, "Active"):
            return ListCapacityProvidersResponse(capacity_providers=())
        limit = min(request.max_items or PAGE_MAX, PAGE_MAX)
        found = await self._shelf.page(context.account, context.region, after=after, limit=limit + 1)
        page, marker = page_of(found, limit)
        return ListCapacityProvidersResponse(
            capacity_providers=tuple(entry.value.shown for entry in page), next_marker=marker
        )

    async def list_versions(
        self, context: RequestContext, request: ListFunctionVersionsByCapacityProviderRequest
    ) -> ListFunctionVersionsByCapacityProviderResponse:
        """Empty: no function can be created on a provider yet (CapacityProviderConfig answers 501)."""
        entry = await self._stored(context, request.capacity_provider_name)
        return ListFunctionVersionsByCapacityProviderResponse(
            capacity_provider_arn=provider_arn(entry.key), function_versions=()
        )

    def _key(self, context: RequestContext, name: str) -> RecordKey:
        """Of a name or an ARN; another account's or region's provider is not there."""
        key = self._shelf.key(context.account, context.region, "", name.rpartition(":")[2])
        if ":" in name and name != provider_arn(key):
            raise provider_not_found(name)
        return key

    async def _stored(self, context: RequestContext, name: str) -> Entry[KeptProvider]:
        key = self._key(context, name)
        entry = await self._shelf.get(key)
        if entry is None:
            raise provider_not_found(provider_arn(key))
        return entry


def provider_not_found(arn: str) -> ServiceError:
    """404 for a capacity provider."""
    return not_found(f"Capacity provider not found: {arn}")


def _scaling(config: CapacityProviderScalingConfig | None) -> CapacityProviderScalingConfig:
    config = config or CapacityProviderScalingConfig()
    return msgspec.structs.replace(
        config,
        max_v_cpu_count=config.max_v_cpu_count or V_CPU_MAX,
        scaling_mode=config.scaling_mode or "Auto",
        scaling_policies=config.scaling_policies or (),
    )
