"""Reserved concurrency of functions, within what the account must leave unreserved."""

from stoker.control.lookup import unqualified
from stoker.control.messages import function_not_found
from stoker.control.ports import Ports
from stoker.core.errors import ServiceError
from stoker.services.context import RequestContext
from stoker.services.functions import FunctionKey, FunctionMissing, ReservationRefused
from stoker.services.lambda_types import (
    Concurrency,
    DeleteFunctionConcurrencyRequest,
    GetFunctionConcurrencyRequest,
    GetFunctionConcurrencyResponse,
    PutFunctionConcurrencyRequest,
)
from stoker.services.provisioned import provisioned_shelf

UNRESERVED_MIN = 100
"""Invocations at one time that an account keeps for functions without a reservation."""


class FunctionConcurrency:
    """Handlers of the function concurrency operations."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._provisioned = provisioned_shelf(ports.records)

    async def put(self, context: RequestContext, request: PutFunctionConcurrencyRequest) -> Concurrency:
        found = unqualified(context, request.function_name, "PutFunctionConcurrency")
        value = request.reserved_concurrent_executions
        await self._check_provisioned(found.key, value)
        # Nothing reserved takes nothing from the others, so it is always possible.
        total_max = max(self._ports.account_concurrency - UNRESERVED_MIN, 0) if value else None
        try:
            await self._ports.metadata.set_reserved_concurrency(found.key, value, total_max=total_max)
        except FunctionMissing as problem:
            raise function_not_found(found.arn) from problem
        except ReservationRefused as problem:
            raise ServiceError(
                "InvalidParameterValueException",
                "Specified ReservedConcurrentExecutions for function decreases account's "
                f"UnreservedConcurrentExecution below its minimum value of [{UNRESERVED_MIN}].",
            ) from problem
        self._ports.invalidation.publish(found.key)
        return Concurrency(reserved_concurrent_executions=value)

    async def _check_provisioned(self, key: FunctionKey, value: int) -> None:
        configs = await self._provisioned.page(key.account, key.region, owner=key.name)
        total = sum(config.value.requested for config in configs)
        if value < total:
            raise ServiceError(
                "InvalidParameterValueException",
                f" ReservedConcurrentExecutions  {value} should not be lower than function's total "
                f"provisioned concurrency [{total}].",
            )

    async def get(
        self, context: RequestContext, request: GetFunctionConcurrencyRequest
    ) -> GetFunctionConcurrencyResponse:
        found = unqualified(context, request.function_name, "GetFunctionConcurrency")
        function = await self._ports.metadata.function(found.key)
        if function is None:
            raise function_not_found(found.arn)
        return GetFunctionConcurrencyResponse(reserved_concurrent_executions=function.reserved_concurrency)

    async def delete(self, context: RequestContext, request: DeleteFunctionConcurrencyRequest) -> None:
        found = unqualified(context, request.function_name, "DeleteFunctionConcurrency")
        try:
            await self._ports.metadata.set_reserved_concurrency(found.key, None)
        except FunctionMissing as problem:
            raise function_not_found(found.arn) from problem
        self._ports.invalidation.publish(found.key)
