"""Functions: create, show, list, update, delete. Decisions are in the modules beside this one."""

import base64
from collections.abc import Callable

from stoker.control.holds import CodeHolds
from stoker.control.locations import code_location
from stoker.control.lookup import Target, any_version, latest_version, new_key, target
from stoker.control.messages import (
    function_not_found,
    revision_mismatch,
    update_in_progress,
    wrong_state,
)
from stoker.control.ports import Ports
from stoker.control.records import coded_version, configured_version, created_version, updating
from stoker.control.runtimes import check_runtime, check_snap_start
from stoker.control.settling import Settling
from stoker.control.shapes import listed_configuration, shown_configuration
from stoker.control.sources import CodeSource, admitted_code, code_source
from stoker.control.storage import CodeStorage
from stoker.control.validation import check_code_update, check_configuration_update, check_create
from stoker.core.errors import ServiceError, StokerError, conflict, invalid_parameter
from stoker.services.code import CodeArtifact
from stoker.services.context import RequestContext
from stoker.services.functions import (
    LATEST,
    FunctionExists,
    FunctionKey,
    FunctionMissing,
    FunctionRecord,
    FunctionVersion,
    RevisionMismatch,
    is_settled,
)
from stoker.services.lambda_types import (
    Concurrency,
    CreateFunctionRequest,
    DeleteFunctionRequest,
    DeleteFunctionResponse,
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

PAGE_MAX = 50
"""Functions in one answer of ListFunctions, however many the caller asks for."""


class Functions:
    """Handlers of the function operations."""

    def __init__(self, ports: Ports, holds: CodeHolds, settling: Settling, storage: CodeStorage) -> None:
        self._ports = ports
        self._metadata = ports.metadata
        self._holds = holds
        self._settling = settling
        self._storage = storage

    async def create(self, context: RequestContext, request: CreateFunctionRequest) -> FunctionConfiguration:
        key = new_key(context, request.function_name)
        check_create(request)
        architecture = request.architectures[0] if request.architectures else "x86_64"
        check_runtime(request.runtime or "", architecture, self._ports.runtimes)
        check_snap_start(request.snap_start and request.snap_start.apply_on, request.runtime)
        source = code_source(request.code, "CreateFunction")
        if await self._metadata.function(key) is not None:
            raise _exists(key)
        code = await self._admit(source)
        release = self._holds.take(code.code_sha256)
        return await self._settling.uninterrupted(self._create_held(key, request, code, release))

    async def get(self, context: RequestContext, request: GetFunctionRequest) -> GetFunctionResponse:
        found = target(context, request.function_name, "GetFunction", request.qualifier)
        version = await any_version(self._metadata, found)
        function = await self._metadata.function(found.key)
        if function is None:
            raise function_not_found(found.arn)
        reserved = function.reserved_concurrency
        return GetFunctionResponse(
            configuration=shown_configuration(version, arn=found.arn),
            code=FunctionCodeLocation(
                repository_type="S3",
                location=code_location(
                    context.endpoint,
                    version.code_sha256,
                    self._ports.clock.now_s(),
                    self._ports.location_key,
                ),
            ),
            tags=function.tags or None,
            concurrency=None if reserved is None else Concurrency(reserved_concurrent_executions=reserved),
        )

    async def get_configuration(
        self, context: RequestContext, request: GetFunctionConfigurationRequest
    ) -> FunctionConfiguration:
        found = target(context, request.function_name, "GetFunctionConfiguration", request.qualifier)
        return shown_configuration(await any_version(self._metadata, found), arn=found.arn)

    async def list(self, context: RequestContext, request: ListFunctionsRequest) -> ListFunctionsResponse:
        every_version = request.function_version == "ALL"
        if request.master_region is not None and not every_version:
            raise invalid_parameter("FunctionVersion must be ALL when MasterRegion is given.")
        if request.master_region not in (None, "ALL"):
            # Only replicas of Lambda@Edge functions have a master in some region; there are none.
            return ListFunctionsResponse(functions=())
        limit = min(request.max_items or PAGE_MAX, PAGE_MAX)
        found = await self._metadata.list_latest(
            context.account, context.region, after_name=_name_of_marker(request.marker), limit=limit + 1
        )
        page = found[:limit]
        return ListFunctionsResponse(
            functions=tuple(listed_configuration(version, qualified=every_version) for version in page),
            next_marker=_marker(page[-1].key.name) if len(found) > limit else None,
        )

    async def update_code(
        self, context: RequestContext, request: UpdateFunctionCodeRequest
    ) -> FunctionConfiguration:
        found = target(context, request.function_name, "UpdateFunctionCode")
        stored = await latest_version(self._metadata, found)
        check_code_update(request)
        source = code_source(request, "UpdateFunctionCode")
        _check_updatable(stored, request.revision_id)
        if request.architectures:
            check_runtime(stored.runtime or "", request.architectures[0], self._ports.runtimes)
        code = await self._admit(source)
        release = self._holds.take(code.code_sha256)
        changed = coded_version(stored, code, request.architectures)
        return await self._settling.uninterrupted(
            self._recode_held(stored, changed, release, dry_run=bool(request.dry_run))
        )

    async def update_configuration(
        self, context: RequestContext, request: UpdateFunctionConfigurationRequest
    ) -> FunctionConfiguration:
        found = target(context, request.function_name, "UpdateFunctionConfiguration")
        stored = await latest_version(self._metadata, found)
        check_configuration_update(request)
        if request.runtime is not None:
            check_runtime(request.runtime, stored.architecture, self._ports.runtimes)
        changed = configured_version(stored, request)
        check_snap_start(changed.stored_only.get("SnapStart"), changed.runtime)
        _check_updatable(stored, request.revision_id)
        return await self._settling.uninterrupted(self._replace(stored, changed))

    async def delete(self, context: RequestContext, request: DeleteFunctionRequest) -> DeleteFunctionResponse:
        found = target(context, request.function_name, "DeleteFunction", request.qualifier)
        if found.qualifier is not None:
            await self._delete_version(found.key, found.qualifier)
            return DeleteFunctionResponse(status_code=204)
        await self._settling.uninterrupted(self._delete_whole(found))
        return DeleteFunctionResponse(status_code=204)

    async def _delete_whole(self, found: Target) -> None:
        with self._holds.removing():
            try:
                deleted = await self._metadata.delete(found.key)
            except FunctionMissing as problem:
                raise function_not_found(found.arn) from problem
            for code_sha256 in {version.code_sha256 for version in deleted}:
                self._holds.forget_later(code_sha256)
        self._ports.invalidation.publish(found.key)

    async def _create_held(
        self,
        key: FunctionKey,
        request: CreateFunctionRequest,
        code: CodeArtifact,
        release: Callable[[], None],
    ) -> FunctionConfiguration:
        try:
            try:
                version = await self._store_new(key, request, code)
            finally:
                release()
        except StokerError:
            await self._holds.forget_if_unused(code.code_sha256)
            raise
        self._ports.invalidation.publish(key)
        self._settling.begin(version)
        return shown_configuration(version)

    async def _recode_held(
        self, stored: FunctionVersion, changed: FunctionVersion, release: Callable[[], None], *, dry_run: bool
    ) -> FunctionConfiguration:
        try:
            if dry_run:
                return shown_configuration(changed)
            await self._storage.claim(stored.key, max(changed.code_size_bytes - stored.code_size_bytes, 0))
            with self._holds.removing():
                shown = await self._replace(stored, changed)
                self._holds.forget_later(stored.code_sha256)
            return shown
        finally:
            release()
            await self._holds.forget_if_unused(changed.code_sha256)

    async def _delete_version(self, key: FunctionKey, qualifier: str) -> None:
        """AWS answers 204 for a version that is not there; none are until versions can be published."""
        if qualifier == LATEST:
            raise invalid_parameter("$LATEST version cannot be deleted without deleting the function.")
        if not qualifier.isdecimal():
            raise invalid_parameter("Deletion of aliases is not currently supported.")
        if await self._metadata.function(key) is None:
            raise function_not_found(f"{key.arn}:{qualifier}")

    async def _admit(self, source: CodeSource) -> CodeArtifact:
        return await admitted_code(source, self._ports.code, self._ports.objects)

    async def _store_new(
        self, key: FunctionKey, request: CreateFunctionRequest, code: CodeArtifact
    ) -> FunctionVersion:
        ports = self._ports
        version = created_version(
            key,
            request,
            code,
            revision_id=ports.new_id(),
            deployment_id=ports.new_id(),
            now_s=ports.clock.now_s(),
        )
        await self._storage.claim(key, code.size_bytes)
        function = FunctionRecord(key=key, created_at_s=ports.clock.now_s(), tags=request.tags or {})
        try:
            await self._metadata.create(function, version)
        except FunctionExists as problem:
            raise _exists(key) from problem
        return version

    async def _replace(self, stored: FunctionVersion, changed: FunctionVersion) -> FunctionConfiguration:
        ports = self._ports
        version = updating(
            stored,
            changed,
            revision_id=ports.new_id(),
            deployment_id=ports.new_id(),
            now_s=ports.clock.now_s(),
        )
        try:
            await self._metadata.replace_version(version, stored.revision_id)
        except FunctionMissing as problem:
            raise function_not_found(stored.arn) from problem
        except RevisionMismatch as problem:
            raise update_in_progress(stored.arn) from problem
        ports.invalidation.publish(version.key)
        self._settling.begin(version)
        return shown_configuration(version)


def _check_updatable(stored: FunctionVersion, revision_id: str | None) -> None:
    if revision_id is not None and revision_id != stored.revision_id:
        raise revision_mismatch()
    if stored.state.value == "Pending":
        raise wrong_state(stored.state.value)
    if not is_settled(stored):
        raise update_in_progress(stored.arn)


def _exists(key: FunctionKey) -> ServiceError:
    return conflict(f"Function already exist: {key.name}")


def _marker(name: str) -> str:
    return base64.urlsafe_b64encode(name.encode()).decode()


def _name_of_marker(marker: str | None) -> str:
    try:
        return base64.b64decode(marker or "", altchars=b"-_", validate=True).decode()
    except ValueError as problem:
        raise invalid_parameter("The marker is not one that ListFunctions gave.") from problem
