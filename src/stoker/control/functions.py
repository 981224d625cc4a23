"""Functions: create, show, list, update, delete. Decisions are in the modules beside this one."""

from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from stoker.control.environments import Environments, shown_code_error
from stoker.control.function_layers import FunctionLayers
from stoker.control.function_signing import FunctionSigning, config_not_found
from stoker.control.holds import CodeHolds
from stoker.control.images import FunctionImages
from stoker.control.locations import code_location
from stoker.control.lookup import latest_version, new_key, target
from stoker.control.messages import (
    function_not_found,
    revision_mismatch,
    update_in_progress,
    wrong_state,
)
from stoker.control.paging import marked_place, marked_version, marker, page_size, version_marker
from stoker.control.ports import Ports
from stoker.control.publishing import NewVersion, published_version, update_publication
from stoker.control.qualifiers import resolve, version_number
from stoker.control.records import coded_version, configured_version, created_version, updating
from stoker.control.runtimes import check_runtime, check_snap_start
from stoker.control.settling import Settling
from stoker.control.shapes import listed_configuration, shown_configuration
from stoker.control.sources import (
    CodeSource,
    Package,
    admitted_code,
    archive_package,
    code_source,
    image_package,
)
from stoker.control.storage import CodeStorage
from stoker.control.validation import check_code_update, check_configuration_update, check_create
from stoker.core.errors import ServiceError, StokerError, conflict, invalid_parameter
from stoker.services.aliases import alias_shelf
from stoker.services.code import CodeKey
from stoker.services.context import RequestContext
from stoker.services.functions import (
    FunctionExists,
    FunctionKey,
    FunctionMissing,
    FunctionRecord,
    FunctionVersion,
    LayerUse,
    RevisionMismatch,
    is_settled,
)
from stoker.services.keys import KeyRefused, KeyUnavailable
from stoker.services.lambda_types import (
    Concurrency,
    CreateFunctionRequest,
    FunctionCodeLocation,
    FunctionConfiguration,
    GetFunctionConfigurationRequest,
    GetFunctionRequest,
    GetFunctionResponse,
    ListFunctionsRequest,
    ListFunctionsResponse,
    UpdateFunctionCodeRequest,
    UpdateFunctionConfigurationRequest,
)
from stoker.services.records import RequirementUnmet


class Functions:
    """Handlers of the function operations."""

    def __init__(
        self,
        ports: Ports,
        holds: CodeHolds,
        settling: Settling,
        storage: CodeStorage,
        signing: FunctionSigning,
        layers: FunctionLayers,
    ) -> None:
        self._ports = ports
        self._metadata = ports.metadata
        self._aliases = alias_shelf(ports.records)
        self._holds = holds
        self._settling = settling
        self._storage = storage
        self._signing = signing
        self._layers = layers
        self._images = FunctionImages(ports)
        self._environments = Environments(ports.environments)

    async def create(self, context: RequestContext, request: CreateFunctionRequest) -> FunctionConfiguration:
        key = new_key(context, request.function_name)
        check_create(request)
        self._ports.check_role(key.account, request.role)
        architecture = request.architectures[0] if request.architectures else "x86_64"
        if request.package_type != "Image":
            check_runtime(request.runtime or "", architecture, self._ports.runtimes)
        check_snap_start(request.snap_start and request.snap_start.apply_on, request.runtime)
        source = code_source(request.code, "CreateFunction")
        if await self._metadata.function(key) is not None:
            raise _exists(key)
        layers = await self._layers.resolve(context, request.layers)
        signing = await self._signing.check_new(context, key, request.code_signing_config_arn)
        package = await self._package(source, key, architecture)
        release = self._holds.take(package.name)
        return await self._settling.uninterrupted(
            self._create_held(key, request, package, layers, release, signing)
        )

    async def get(self, context: RequestContext, request: GetFunctionRequest) -> GetFunctionResponse:
        found = target(context, request.function_name, "GetFunction", request.qualifier)
        number = await version_number(self._aliases, found)
        described = None if number is None else await self._metadata.described(found.key, number)
        if described is None:
            raise function_not_found(found.arn)
        function, version = described
        reserved = function.reserved_concurrency
        return GetFunctionResponse(
            configuration=await self._shown(version, arn=found.arn),
            code=await self._location(context, version),
            tags=function.tags or None,
            concurrency=None if reserved is None else Concurrency(reserved_concurrent_executions=reserved),
        )

    async def _location(self, context: RequestContext, version: FunctionVersion) -> FunctionCodeLocation:
        image = version.next_image or version.image
        if image is not None:
            # Of every registry: clients tell images from archives by this word, and AWS has no other for it.
            return FunctionCodeLocation(
                repository_type="ECR", image_uri=image.uri, resolved_image_uri=image.resolved_uri
            )
        where = FunctionCodeLocation(repository_type="S3", source_kms_key_arn=version.source_kms_key_arn)
        if version.code_key is not None:
            try:
                await self._ports.code.try_key(version.code_name)
            except (KeyRefused, KeyUnavailable) as problem:
                return msgspec.structs.replace(where, error=shown_code_error(problem))
        now_s, key = self._ports.clock.now_s(), self._ports.location_keys()[0]
        location = code_location(context.endpoint, version.code_name, now_s, key)
        return msgspec.structs.replace(where, location=location)

    async def get_configuration(
        self, context: RequestContext, request: GetFunctionConfigurationRequest
    ) -> FunctionConfiguration:
        found = target(context, request.function_name, "GetFunctionConfiguration", request.qualifier)
        resolved = await resolve(self._metadata, self._aliases, found)
        return await self._shown(resolved.version, arn=found.arn)

    async def list(self, context: RequestContext, request: ListFunctionsRequest) -> ListFunctionsResponse:
        every_version = request.function_version == "ALL"
        if request.master_region is not None and not every_version:
            raise invalid_parameter("FunctionVersion must be ALL when MasterRegion is given.")
        if request.master_region not in (None, "ALL"):
            # Only replicas of Lambda@Edge functions have a master in some region; there are none.
            return ListFunctionsResponse(functions=())
        if every_version:
            return await self._list_versions(context, request)
        limit = page_size(request.max_items)
        found = await self._metadata.list_latest(
            context.account,
            context.region,
            after_name=marked_place(request.marker, "ListFunctions"),
            limit=limit + 1,
        )
        page = found[:limit]
        return ListFunctionsResponse(
            functions=await self._environments.listed(
                (listed_configuration(version, qualified=False), version) for version in page
            ),
            next_marker=marker(page[-1].key.name) if len(found) > limit else None,
        )

    async def _list_versions(
        self, context: RequestContext, request: ListFunctionsRequest
    ) -> ListFunctionsResponse:
        limit = page_size(request.max_items)
        after = marked_version(request.marker, "ListFunctions")
        found = await self._metadata.list_versions(
            context.account, context.region, after=after, limit=limit + 1
        )
        page = found[:limit]
        return ListFunctionsResponse(
            functions=await self._environments.listed(
                (listed_configuration(version, qualified=True), version) for version in page
            ),
            next_marker=version_marker(page[-1].key.name, page[-1].number) if len(found) > limit else None,
        )

    async def update_code(
        self, context: RequestContext, request: UpdateFunctionCodeRequest
    ) -> FunctionConfiguration:
        found = target(context, request.function_name, "UpdateFunctionCode")
        stored = await latest_version(self._metadata, found)
        check_code_update(request, stored.package_type)
        source = code_source(request, "UpdateFunctionCode")
        _check_updatable(stored, request.revision_id)
        if request.architectures and stored.image is None:
            check_runtime(stored.runtime or "", request.architectures[0], self._ports.runtimes)
        await self._signing.check_update(found.key)
        architecture = request.architectures[0] if request.architectures else stored.architecture
        package = await self._package(source, found.key, architecture)
        release = self._holds.take(package.name)
        changed = coded_version(stored, package, request.architectures)
        return await self._settling.uninterrupted(
            self._recode_held(stored, changed, package.name, release, request)
        )

    async def update_configuration(
        self, context: RequestContext, request: UpdateFunctionConfigurationRequest
    ) -> FunctionConfiguration:
        found = target(context, request.function_name, "UpdateFunctionConfiguration")
        stored = await latest_version(self._metadata, found)
        check_configuration_update(request, stored.package_type)
        if request.role is not None:
            self._ports.check_role(found.key.account, request.role)
        if request.runtime is not None:
            check_runtime(request.runtime, stored.architecture, self._ports.runtimes)
        layers = None
        if request.layers is not None:
            layers = await self._layers.resolve(context, request.layers)
            await self._layers.check_size_with(stored.code_name, layers)
        changed = configured_version(stored, request, layers)
        check_snap_start(changed.stored_only.get("SnapStart"), changed.runtime)
        _check_updatable(stored, request.revision_id)
        changed = await self._environments.reconfigured(
            stored, changed, key_given=request.kms_key_arn is not None
        )
        return await self._settling.uninterrupted(self._reconfigure_held(stored, changed))

    async def _create_held(
        self,
        key: FunctionKey,
        request: CreateFunctionRequest,
        package: Package,
        layers: tuple[LayerUse, ...],
        release: Callable[[], None],
        signing: dict[str, Any],
    ) -> FunctionConfiguration:
        try:
            try:
                self._layers.check_size(package.code.unpacked_bytes, layers)
                async with self._layers.held(layers):
                    latest, first = await self._store_new(key, request, package, layers, signing)
            finally:
                release()
        except StokerError:
            await self._holds.forget_if_unused(package.name)
            raise
        self._ports.invalidation.publish(key)
        self._settling.begin(latest)
        if first is None:
            return await self._shown(latest)
        self._settling.begin(first)
        # AWS shows version 1 here, under the ARN of the function.
        return await self._shown(first, arn=key.arn)

    async def _recode_held(
        self,
        stored: FunctionVersion,
        changed: FunctionVersion,
        name: str,
        release: Callable[[], None],
        request: UpdateFunctionCodeRequest,
    ) -> FunctionConfiguration:
        try:
            await self._layers.check_size_with(changed.code_name, changed.layers)
            if request.dry_run:
                return await self._shown(changed)
            added_bytes = changed.code_size_bytes - (0 if request.publish else stored.code_size_bytes)
            await self._storage.claim(stored.key, max(added_bytes, 0))
            with self._holds.removing():
                replace = self._publish_update if request.publish else self._replace
                shown = await replace(stored, changed)
                if stored.image is None:  # it runs until the other one is here
                    self._holds.forget_later(stored.code_name)
            return shown
        finally:
            release()
            await self._holds.forget_if_unused(name)

    async def _package(self, source: CodeSource, function: FunctionKey, architecture: str) -> Package:
        """Awaits nothing after an archive was stored: the caller can hold it at once."""
        if source.image_uri is not None:
            image = await self._images.resolve(source.image_uri, architecture)
            return image_package(image, function.account)
        arn = source.kms_key_arn
        key = None if arn is None else CodeKey(function.arn, arn)
        return archive_package(await admitted_code(source, self._ports.code, self._ports.objects, key), key)

    async def _store_new(
        self,
        key: FunctionKey,
        request: CreateFunctionRequest,
        package: Package,
        layers: tuple[LayerUse, ...],
        signing: dict[str, Any],
    ) -> tuple[FunctionVersion, FunctionVersion | None]:
        ports = self._ports
        made = created_version(
            key,
            request,
            package,
            layers,
            revision_id=ports.new_id(),
            deployment_id=ports.new_id(),
            now_s=ports.clock.now_s(),
        )
        latest = await self._environments.created(made)
        first = published_version(latest, 1, self._new_version()) if request.publish else None
        await self._storage.claim(key, package.code.size_bytes * (1 if first is None else 2))
        function = FunctionRecord(key=key, created_at_s=ports.clock.now_s(), tags=request.tags or {})
        try:
            await self._metadata.create(function, latest, first, **signing)
        except FunctionExists as problem:
            raise _exists(key) from problem
        except RequirementUnmet as problem:
            raise config_not_found(request.code_signing_config_arn or "") from problem
        return latest, first

    async def _reconfigure_held(
        self, stored: FunctionVersion, changed: FunctionVersion
    ) -> FunctionConfiguration:
        if changed.layers == stored.layers:
            return await self._replace(stored, changed)
        async with self._layers.held(changed.layers):
            with self._holds.removing():
                shown = await self._replace(stored, changed)
                for code_sha256 in stored.layer_codes:
                    self._holds.forget_later(code_sha256)
        return shown

    async def _replace(self, stored: FunctionVersion, changed: FunctionVersion) -> FunctionConfiguration:
        version = self._updating(stored, changed)
        try:
            await self._metadata.replace_version(version, stored.revision_id)
        except FunctionMissing as problem:
            raise function_not_found(stored.arn) from problem
        except RevisionMismatch as problem:
            raise update_in_progress(stored.arn) from problem
        self._ports.invalidation.publish(version.key)
        self._settling.begin(version)
        return await self._shown(version)

    async def _publish_update(
        self, stored: FunctionVersion, changed: FunctionVersion
    ) -> FunctionConfiguration:
        decide = partial(
            update_publication,
            updated=self._updating(stored, changed),
            expected_revision_id=stored.revision_id,
            new=self._new_version(),
        )
        try:
            made = await self._metadata.publish(stored.key, decide)
        except FunctionMissing as problem:
            raise function_not_found(stored.arn) from problem
        except RevisionMismatch as problem:
            raise update_in_progress(stored.arn) from problem
        self._ports.invalidation.publish(stored.key)
        self._settling.begin(made.latest)
        if made.published is not None:
            self._settling.begin(made.published)
        return await self._shown(made.result)

    async def _shown(self, version: FunctionVersion, *, arn: str | None = None) -> FunctionConfiguration:
        return await self._environments.shown(shown_configuration(version, arn=arn), version)

    def _updating(self, stored: FunctionVersion, changed: FunctionVersion) -> FunctionVersion:
        ports = self._ports
        return updating(
            stored,
            changed,
            revision_id=ports.new_id(),
            deployment_id=ports.new_id(),
            now_s=ports.clock.now_s(),
        )

    def _new_version(self) -> NewVersion:
        ports = self._ports
        return NewVersion(revision_id=ports.new_id(), deployment_id=ports.new_id(), now_s=ports.clock.now_s())


def _check_updatable(stored: FunctionVersion, revision_id: str | None) -> None:
    if revision_id is not None and revision_id != stored.revision_id:
        raise revision_mismatch()
    if stored.state.value == "Pending":
        raise wrong_state(stored.state.value)
    if not is_settled(stored):
        raise update_in_progress(stored.arn)


def _exists(key: FunctionKey) -> ServiceError:
    return conflict(f"Function already exist: {key.name}")
