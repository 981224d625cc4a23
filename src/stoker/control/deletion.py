"""DeleteFunction: a whole function, or one of its published versions."""

from stoker.control.going_along import what_goes_along
from stoker.control.holds import CodeHolds
from stoker.control.lookup import Target, target
from stoker.control.messages import function_not_found
from stoker.control.ports import Ports
from stoker.control.settling import Settling
from stoker.core.errors import conflict, invalid_parameter
from stoker.services.aliases import ALIAS, alias_shelf, version_lookup
from stoker.services.context import RequestContext
from stoker.services.functions import LATEST, FunctionKey, FunctionMissing, VersionInUse
from stoker.services.lambda_types import DeleteFunctionRequest, DeleteFunctionResponse


class Deletion:
    """The handler of DeleteFunction."""

    def __init__(self, ports: Ports, holds: CodeHolds, settling: Settling) -> None:
        self._metadata = ports.metadata
        self._records = ports.records
        self._aliases = alias_shelf(ports.records)
        self._invalidation = ports.invalidation
        self._holds = holds
        self._settling = settling

    async def delete(self, context: RequestContext, request: DeleteFunctionRequest) -> DeleteFunctionResponse:
        found = target(context, request.function_name, "DeleteFunction", request.qualifier)
        deletion = self._whole(found) if found.qualifier is None else self._version(found, found.qualifier)
        await self._settling.uninterrupted(deletion)
        return DeleteFunctionResponse(status_code=204)

    async def _whole(self, found: Target) -> None:
        with self._holds.removing():
            try:
                deleted = await self._metadata.delete(found.key)
            except FunctionMissing as problem:
                raise function_not_found(found.arn) from problem
            for code_sha256 in frozenset[str]().union(*(version.codes for version in deleted)):
                self._holds.forget_later(code_sha256)
        self._invalidation.publish(found.key)

    async def _version(self, found: Target, qualifier: str) -> None:
        """AWS answers 204 also for a version that is not there."""
        if qualifier == LATEST:
            raise invalid_parameter("$LATEST version cannot be deleted without deleting the function.")
        if not qualifier.isdecimal():
            raise invalid_parameter("Deletion of aliases is not currently supported.")
        key = found.key
        version = await self._metadata.version(key, qualifier)
        if version is None:
            if await self._metadata.function(key) is None:
                raise function_not_found(found.arn)
            return
        with self._holds.removing():
            try:
                await self._metadata.delete_version(
                    key, qualifier, unless=(ALIAS, version_lookup(key.name, qualifier))
                )
            except VersionInUse as problem:
                raise conflict(await self._in_use(key, qualifier)) from problem
            except FunctionMissing:
                return
            for code_sha256 in version.codes:
                self._holds.forget_later(code_sha256)
        # Numbers are never given again, so nobody could inherit these in the meantime.
        if gone := await what_goes_along(self._records, key, qualifier):
            await self._records.write(gone)
        self._invalidation.publish(key)

    async def _in_use(self, key: FunctionKey, version: str) -> str:
        lookup = version_lookup(key.name, version)
        referring = await self._aliases.referring(key.account, key.region, lookup)
        names = ", ".join(entry.key.name for entry in referring)
        return f"Unable to delete version because the following aliases reference it: [{names}]"
