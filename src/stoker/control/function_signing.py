"""Which function's code is checked by which code signing configuration, and the check at a deployment.

Signatures of AWS Signer can be checked only against AWS's own trust store, so no code counts as signed here:
Enforce refuses every zip, Warn lets it pass and says so in the service's log.
"""

from collections.abc import Mapping
from typing import Any, cast

import msgspec
import structlog

from stoker.control.code_signing import code_signing_key, code_signing_not_found
from stoker.control.lookup import unqualified
from stoker.control.messages import function_not_found
from stoker.control.paging import page_of, place_of
from stoker.control.ports import Ports
from stoker.core.errors import ServiceError
from stoker.services.code_signing import (
    CODE_SIGNING_CONFIG,
    FUNCTION_CODE_SIGNING,
    CodeSigning,
    FunctionCodeSigning,
    function_code_signing_key,
)
from stoker.services.context import OperationHandler, RequestContext
from stoker.services.functions import FunctionKey
from stoker.services.lambda_types import (
    DeleteFunctionCodeSigningConfigRequest,
    GetFunctionCodeSigningConfigRequest,
    GetFunctionCodeSigningConfigResponse,
    ListFunctionsByCodeSigningConfigRequest,
    ListFunctionsByCodeSigningConfigResponse,
    PutFunctionCodeSigningConfigRequest,
    PutFunctionCodeSigningConfigResponse,
)
from stoker.services.records import (
    ANY_REVISION,
    Entry,
    Put,
    Record,
    RecordMissing,
    RecordThere,
    Remove,
    RequirementUnmet,
    Shelf,
)

PAGE_MAX = 50

_log = structlog.get_logger("stoker.control")


class FunctionSigning:
    """Handlers of the operations on a function's configuration, and the check of its code."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._configs = Shelf(ports.records, CODE_SIGNING_CONFIG, CodeSigning)
        self._shelf = Shelf(ports.records, FUNCTION_CODE_SIGNING, FunctionCodeSigning)

    def operations(self) -> Mapping[str, OperationHandler]:
        """What is served here, by operation."""
        return {
            "PutFunctionCodeSigningConfig": self.put,
            "GetFunctionCodeSigningConfig": self.get,
            "DeleteFunctionCodeSigningConfig": self.delete,
            "ListFunctionsByCodeSigningConfig": self.list,
        }

    async def put(
        self, context: RequestContext, request: PutFunctionCodeSigningConfigRequest
    ) -> PutFunctionCodeSigningConfigResponse:
        arn = request.code_signing_config_arn
        key = unqualified(context, request.function_name, "PutFunctionCodeSigningConfig").key
        config = await self._config(context, arn)
        record = self.record(key, arn)
        try:
            await self._shelf.write(Put(record, ANY_REVISION), requires=(RecordThere(config.key),))
        except RequirementUnmet as problem:
            if isinstance(problem.requirement, RecordThere):
                raise config_not_found(arn) from problem
            raise function_not_found(key.arn) from problem
        return PutFunctionCodeSigningConfigResponse(code_signing_config_arn=arn, function_name=key.name)

    async def get(
        self, context: RequestContext, request: GetFunctionCodeSigningConfigRequest
    ) -> GetFunctionCodeSigningConfigResponse:
        key = unqualified(context, request.function_name, "GetFunctionCodeSigningConfig").key
        entry = await self._chosen(key)
        if entry is None:
            # AWS leaves both members out, although the model requires them.
            unset = cast("str", msgspec.UNSET)
            return GetFunctionCodeSigningConfigResponse(code_signing_config_arn=unset, function_name=unset)
        return GetFunctionCodeSigningConfigResponse(
            code_signing_config_arn=entry.value.arn, function_name=key.name
        )

    async def delete(self, context: RequestContext, request: DeleteFunctionCodeSigningConfigRequest) -> None:
        key = unqualified(context, request.function_name, "DeleteFunctionCodeSigningConfig").key
        if await self._chosen(key) is None:
            return
        try:
            await self._shelf.write(Remove(function_code_signing_key(key)))
        except RecordMissing:
            return  # another was faster; it is gone either way

    async def list(
        self, context: RequestContext, request: ListFunctionsByCodeSigningConfigRequest
    ) -> ListFunctionsByCodeSigningConfigResponse:
        arn = request.code_signing_config_arn
        key = code_signing_key(context, arn)
        if key is None or await self._configs.get(key) is None:
            raise code_signing_not_found(arn)
        limit = min(request.max_items or PAGE_MAX, PAGE_MAX)
        found = await self._shelf.referring(
            context.account, context.region, arn, after=place_of(request.marker), limit=limit + 1
        )
        page, marker = page_of(found, limit)
        arns = tuple(FunctionKey(e.key.account, e.key.region, e.key.owner).arn for e in page)
        return ListFunctionsByCodeSigningConfigResponse(next_marker=marker, function_arns=arns)

    def record(self, key: FunctionKey, arn: str) -> Record:
        """What says that a function uses a configuration."""
        return self._shelf.record(
            function_code_signing_key(key),
            FunctionCodeSigning(arn),
            self._ports.new_id(),
            function=key.name,
            lookups=(arn,),
        )

    async def check_new(self, context: RequestContext, key: FunctionKey, arn: str | None) -> dict[str, Any]:
        """What a function to be created with a configuration is created with, if its code may be deployed.

        Raises:
            ServiceError: there is no such configuration, or it refuses the code.
        """
        if not arn:
            return {}
        config = await self._config(context, arn)
        _judge(key, arn, config.value)
        return {"records": (self.record(key, arn),), "requires": (RecordThere(config.key),)}

    async def check_update(self, key: FunctionKey) -> None:
        """Raises ServiceError when the function's configuration refuses the code."""
        entry = await self._shelf.get(function_code_signing_key(key))
        if entry is None:
            return
        config = await self._configs.get(
            self._configs.key(key.account, key.region, "", entry.value.arn.rpartition(":")[2])
        )
        if config is not None:
            _judge(key, entry.value.arn, config.value)

    async def _config(self, context: RequestContext, arn: str) -> Entry[CodeSigning]:
        key = code_signing_key(context, arn)
        entry = None if key is None else await self._configs.get(key)
        if entry is None:
            raise config_not_found(arn)
        return entry

    async def _chosen(self, key: FunctionKey) -> Entry[FunctionCodeSigning] | None:
        if await self._ports.metadata.function(key) is None:
            raise function_not_found(key.arn)
        return await self._shelf.get(function_code_signing_key(key))


def config_not_found(arn: str) -> ServiceError:
    """404 where a function is to use a configuration that is not there."""
    return ServiceError(
        "CodeSigningConfigNotFoundException",
        "The code signing configuration cannot be found. "
        f"Check that the provided configuration is not deleted: {arn}.",
        fields={"Type": "User"},
    )


def _judge(key: FunctionKey, arn: str, config: CodeSigning) -> None:
    if config.policy == "Enforce":
        raise ServiceError(
            "CodeVerificationFailedException",
            "Lambda cannot deploy the function. The function or layer might be signed using a signature that "
            f"the client is not configured to accept. Check the provided signature for {key.name}.",
            fields={"Type": "User"},
        )
    _log.warning("unsigned code is being deployed", function=key.arn, code_signing_config=arn)
