"""Small settings of functions and versions that are kept and shown: recursion, runtime updates, scaling."""

from collections.abc import Mapping
from typing import Final, TypeVar

import msgspec

from stoker.control.lookup import Target, target, unqualified
from stoker.control.messages import function_not_found
from stoker.control.ports import Ports
from stoker.control.qualifiers import is_alias_name, stays
from stoker.control.shapes import runtime_version
from stoker.core.errors import invalid_parameter
from stoker.services.context import OperationHandler, RequestContext
from stoker.services.functions import LATEST, FunctionVersion
from stoker.services.lambda_types import (
    FunctionScalingConfig,
    GetFunctionRecursionConfigRequest,
    GetFunctionRecursionConfigResponse,
    GetFunctionScalingConfigRequest,
    GetFunctionScalingConfigResponse,
    GetRuntimeManagementConfigRequest,
    GetRuntimeManagementConfigResponse,
    PutFunctionRecursionConfigRequest,
    PutFunctionRecursionConfigResponse,
    PutFunctionScalingConfigRequest,
    PutFunctionScalingConfigResponse,
    PutRuntimeManagementConfigRequest,
    PutRuntimeManagementConfigResponse,
)
from stoker.services.records import ANY_REVISION, Put, RequirementUnmet, Shelf

T = TypeVar("T")

RECURSION: Final = "recursion-config"
RUNTIME_MANAGEMENT: Final = "runtime-management-config"
SCALING: Final = "scaling-config"
"""Kinds of their records: owned by the function, named after the version (recursion: empty)."""


class Recursion(msgspec.Struct, frozen=True):
    """``Allow`` or ``Terminate``."""

    loop: str = "Terminate"


class RuntimeManagement(msgspec.Struct, frozen=True):
    """When the runtime is updated, and the version to which ``Manual`` pins it."""

    update_on: str = "Auto"
    runtime_version_arn: str | None = None


class FunctionSettings:
    """Handlers of their operations."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._recursion = Shelf(ports.records, RECURSION, Recursion)
        self._management = Shelf(ports.records, RUNTIME_MANAGEMENT, RuntimeManagement)
        self._scaling = Shelf(ports.records, SCALING, FunctionScalingConfig)

    def operations(self) -> Mapping[str, OperationHandler]:
        """What is served here, by operation."""
        return {
            "PutFunctionRecursionConfig": self.put_recursion,
            "GetFunctionRecursionConfig": self.get_recursion,
            "PutRuntimeManagementConfig": self.put_management,
            "GetRuntimeManagementConfig": self.get_management,
            "PutFunctionScalingConfig": self.put_scaling,
            "GetFunctionScalingConfig": self.get_scaling,
        }

    async def put_recursion(
        self, context: RequestContext, request: PutFunctionRecursionConfigRequest
    ) -> PutFunctionRecursionConfigResponse:
        found = unqualified(context, request.function_name, "PutFunctionRecursionConfig")
        await self._put(self._recursion, found, "", Recursion(request.recursive_loop))
        return PutFunctionRecursionConfigResponse(recursive_loop=request.recursive_loop)

    async def get_recursion(
        self, context: RequestContext, request: GetFunctionRecursionConfigRequest
    ) -> GetFunctionRecursionConfigResponse:
        found = unqualified(context, request.function_name, "GetFunctionRecursionConfig")
        if await self._ports.metadata.function(found.key) is None:
            raise function_not_found(found.arn)
        kept = await self._get(self._recursion, found, "") or Recursion()
        return GetFunctionRecursionConfigResponse(recursive_loop=kept.loop)

    async def put_management(
        self, context: RequestContext, request: PutRuntimeManagementConfigRequest
    ) -> PutRuntimeManagementConfigResponse:
        found = target(context, request.function_name, "PutRuntimeManagementConfig", request.qualifier)
        version = await self._version(found)
        arn = request.runtime_version_arn
        _check_runtime_version(request.update_runtime_on, arn, version)
        value = RuntimeManagement(request.update_runtime_on, arn)
        await self._put(self._management, found, version.version, value)
        return PutRuntimeManagementConfigResponse(
            update_runtime_on=value.update_on, function_arn=found.arn, runtime_version_arn=arn
        )

    async def get_management(
        self, context: RequestContext, request: GetRuntimeManagementConfigRequest
    ) -> GetRuntimeManagementConfigResponse:
        found = target(context, request.function_name, "GetRuntimeManagementConfig", request.qualifier)
        version = await self._version(found)
        kept = await self._get(self._management, found, version.version) or RuntimeManagement()
        return GetRuntimeManagementConfigResponse(
            update_runtime_on=kept.update_on,
            function_arn=found.arn,
            runtime_version_arn=kept.runtime_version_arn,
        )

    async def put_scaling(
        self, context: RequestContext, request: PutFunctionScalingConfigRequest
    ) -> PutFunctionScalingConfigResponse:
        found = target(context, request.function_name, "PutFunctionScalingConfig", request.qualifier)
        version = await self._version(found)
        config = request.function_scaling_config or FunctionScalingConfig()
        least, most = config.min_execution_environments, config.max_execution_environments
        if least is not None and most is not None and least > most:
            raise invalid_parameter(
                "MinExecutionEnvironments must be less than or equal to MaxExecutionEnvironments."
            )
        await self._put(self._scaling, found, version.version, config)
        return PutFunctionScalingConfigResponse(function_state=version.state.value)

    async def get_scaling(
        self, context: RequestContext, request: GetFunctionScalingConfigRequest
    ) -> GetFunctionScalingConfigResponse:
        found = target(context, request.function_name, "GetFunctionScalingConfig", request.qualifier)
        version = await self._version(found)
        kept = await self._get(self._scaling, found, version.version)
        return GetFunctionScalingConfigResponse(
            function_arn=found.arn,
            requested_function_scaling_config=kept,
            applied_function_scaling_config=None,
        )

    async def _version(self, found: Target) -> FunctionVersion:
        qualifier = found.qualifier or LATEST
        if is_alias_name(qualifier):
            raise invalid_parameter(
                f"The provided function name {found.arn} is invalid. Aliases are not allowed."
            )
        version = await self._ports.metadata.version(found.key, qualifier)
        if version is None:
            raise function_not_found(found.arn)
        return version

    async def _get(self, shelf: Shelf[T], found: Target, name: str) -> T | None:
        key = found.key
        entry = await shelf.get(shelf.key(key.account, key.region, key.name, name))
        return None if entry is None else entry.value

    async def _put(self, shelf: Shelf[T], found: Target, name: str, value: T) -> None:
        key = found.key
        record = shelf.record(
            shelf.key(key.account, key.region, key.name, name),
            value,
            self._ports.new_id(),
            function=key.name,
        )
        try:
            await shelf.write(Put(record, ANY_REVISION), requires=(stays(found),))
        except RequirementUnmet as problem:
            raise function_not_found(found.arn) from problem


def _check_runtime_version(update_on: str, arn: str | None, version: FunctionVersion) -> None:
    """There is one build of each runtime here, so only that one can be pinned."""
    if update_on != "Manual":
        if arn is not None:
            raise invalid_parameter(
                "RuntimeVersionArn can only be given when UpdateRuntimeOn is set to Manual."
            )
        return
    if arn is None:
        raise invalid_parameter("RuntimeVersionArn is required when UpdateRuntimeOn is set to Manual.")
    known = runtime_version(version)
    if known is None or known.runtime_version_arn != arn:
        raise invalid_parameter(f"The runtime version {arn} is not a version of the function's runtime.")
