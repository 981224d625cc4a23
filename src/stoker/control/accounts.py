"""What an account may use in a region, and what it uses."""

from stoker.control.layer_records import LayerRecords
from stoker.control.ports import Ports
from stoker.control.sources import INLINE_ZIP_MAX_BYTES, UNZIPPED_MAX_BYTES
from stoker.services.context import RequestContext
from stoker.services.lambda_types import (
    AccountLimit,
    AccountUsage,
    GetAccountSettingsRequest,
    GetAccountSettingsResponse,
)


class Accounts:
    """Handler of the account operation."""

    def __init__(self, ports: Ports, layers: LayerRecords) -> None:
        self._ports = ports
        self._layers = layers

    async def settings(
        self, context: RequestContext, _request: GetAccountSettingsRequest
    ) -> GetAccountSettingsResponse:
        metadata, concurrency = self._ports.metadata, self._ports.account_concurrency
        functions, used_bytes = await metadata.usage(context.account, context.region)
        used_bytes += await self._layers.code_bytes(context.account, context.region)
        reserved = await metadata.total_reserved_concurrency(context.account, context.region)
        return GetAccountSettingsResponse(
            account_limit=AccountLimit(
                total_code_size=self._ports.code_storage_max_bytes,
                code_size_unzipped=UNZIPPED_MAX_BYTES,
                code_size_zipped=INLINE_ZIP_MAX_BYTES,
                concurrent_executions=concurrency,
                unreserved_concurrent_executions=max(concurrency - reserved, 0),
            ),
            account_usage=AccountUsage(total_code_size=used_bytes, function_count=functions),
        )
