"""Code signing configurations: create, show, list, update, delete. ``function_signing`` has who uses them."""

import hashlib
from collections.abc import Mapping

import msgspec

from stoker.control.paging import page_of, place_of
from stoker.control.ports import Ports
from stoker.control.records import shown_time
from stoker.control.validation import check_tags
from stoker.core.errors import ServiceError, conflict
from stoker.services.code_signing import (
    CODE_SIGNING_CONFIG,
    FUNCTION_CODE_SIGNING,
    CodeSigning,
    code_signing_arn,
)
from stoker.services.context import OperationHandler, RequestContext
from stoker.services.lambda_types import (
    AllowedPublishers,
    CodeSigningConfig,
    CodeSigningPolicies,
    CreateCodeSigningConfigRequest,
    CreateCodeSigningConfigResponse,
    DeleteCodeSigningConfigRequest,
    DeleteCodeSigningConfigResponse,
    GetCodeSigningConfigRequest,
    GetCodeSigningConfigResponse,
    ListCodeSigningConfigsRequest,
    ListCodeSigningConfigsResponse,
    UpdateCodeSigningConfigRequest,
    UpdateCodeSigningConfigResponse,
)
from stoker.services.records import (
    Entry,
    NobodyRefers,
    Put,
    RecordChanged,
    RecordKey,
    RecordMissing,
    Remove,
    RequirementUnmet,
    Shelf,
)

PAGE_MAX = 50


def code_signing_key(context: RequestContext, arn: str) -> RecordKey | None:
    """The key of a configuration of the caller's account and region, None for another's."""
    key = RecordKey(CODE_SIGNING_CONFIG, context.account, context.region, "", arn.rpartition(":")[2])
    return key if code_signing_arn(key) == arn else None


class CodeSigningConfigs:
    """Handlers of the operations on configurations."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._shelf = Shelf(ports.records, CODE_SIGNING_CONFIG, CodeSigning)

    def operations(self) -> Mapping[str, OperationHandler]:
        """What is served here, by operation."""
        return {
            "CreateCodeSigningConfig": self.create,
            "GetCodeSigningConfig": self.get,
            "UpdateCodeSigningConfig": self.update,
            "DeleteCodeSigningConfig": self.delete,
            "ListCodeSigningConfigs": self.list,
        }

    async def create(
        self, context: RequestContext, request: CreateCodeSigningConfigRequest
    ) -> CreateCodeSigningConfigResponse:
        check_tags(request.tags or {})
        # 17 hexadecimal digits, as in the model's pattern of the ARN.
        number = hashlib.sha256(self._ports.new_id().encode()).hexdigest()[:17]
        key = self._shelf.key(context.account, context.region, "", f"csc-{number}")
        config = CodeSigning(
            publishers=request.allowed_publishers.signing_profile_version_arns,
            policy=_policy(request.code_signing_policies) or "Warn",
            description=request.description,
            last_modified=shown_time(self._ports.clock.now_s()),
            tags=request.tags or {},
        )
        await self._shelf.write(Put(self._shelf.record(key, config, self._ports.new_id())))
        return CreateCodeSigningConfigResponse(code_signing_config=_shown(key, config))

    async def get(
        self, context: RequestContext, request: GetCodeSigningConfigRequest
    ) -> GetCodeSigningConfigResponse:
        entry = await self.stored(context, request.code_signing_config_arn)
        return GetCodeSigningConfigResponse(code_signing_config=_shown(entry.key, entry.value))

    async def update(
        self, context: RequestContext, request: UpdateCodeSigningConfigRequest
    ) -> UpdateCodeSigningConfigResponse:
        arn, publishers = request.code_signing_config_arn, request.allowed_publishers
        while True:
            entry = await self.stored(context, arn)
            stored = entry.value
            config = msgspec.structs.replace(
                stored,
                publishers=publishers.signing_profile_version_arns if publishers else stored.publishers,
                policy=_policy(request.code_signing_policies) or stored.policy,
                description=stored.description if request.description is None else request.description,
                last_modified=shown_time(self._ports.clock.now_s()),
            )
            record = self._shelf.record(entry.key, config, self._ports.new_id())
            try:
                await self._shelf.write(Put(record, entry.revision_id))
            except (RecordChanged, RecordMissing):
                continue  # another was faster: what it wrote is merged with
            return UpdateCodeSigningConfigResponse(code_signing_config=_shown(entry.key, config))

    async def delete(
        self, context: RequestContext, request: DeleteCodeSigningConfigRequest
    ) -> DeleteCodeSigningConfigResponse:
        arn = request.code_signing_config_arn
        key = (await self.stored(context, arn)).key
        unused = NobodyRefers(FUNCTION_CODE_SIGNING, key.account, key.region, arn)
        try:
            await self._shelf.write(Remove(key), requires=(unused,))
        except RecordMissing as problem:
            raise code_signing_not_found(arn) from problem
        except RequirementUnmet as problem:
            raise conflict(
                f"The Lambda code signing configuration {arn} is used by at least one function. "
                "Remove it from its functions and try again."
            ) from problem
        return DeleteCodeSigningConfigResponse()

    async def list(
        self, context: RequestContext, request: ListCodeSigningConfigsRequest
    ) -> ListCodeSigningConfigsResponse:
        limit = min(request.max_items or PAGE_MAX, PAGE_MAX)
        found = await self._shelf.page(
            context.account, context.region, after=place_of(request.marker), limit=limit + 1
        )
        page, marker = page_of(found, limit)
        return ListCodeSigningConfigsResponse(
            next_marker=marker,
            code_signing_configs=tuple(_shown(entry.key, entry.value) for entry in page),
        )

    async def stored(self, context: RequestContext, arn: str) -> Entry[CodeSigning]:
        """A configuration of the caller's account and region.

        Raises:
            ServiceError: 404.
        """
        key = code_signing_key(context, arn)
        entry = None if key is None else await self._shelf.get(key)
        if entry is None:
            raise code_signing_not_found(arn)
        return entry


def code_signing_not_found(arn: str) -> ServiceError:
    """404 in these operations' words; it carries no Type."""
    words = f"The Lambda code signing configuration {arn} can not be found."
    return ServiceError("ResourceNotFoundException", words)


def _policy(policies: CodeSigningPolicies | None) -> str | None:
    return policies and policies.untrusted_artifact_on_deployment


def _shown(key: RecordKey, config: CodeSigning) -> CodeSigningConfig:
    return CodeSigningConfig(
        code_signing_config_id=key.name,
        code_signing_config_arn=code_signing_arn(key),
        description=config.description,
        allowed_publishers=AllowedPublishers(signing_profile_version_arns=config.publishers),
        code_signing_policies=CodeSigningPolicies(untrusted_artifact_on_deployment=config.policy),
        last_modified=config.last_modified,
    )
