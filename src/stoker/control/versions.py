"""Published versions: PublishVersion and ListVersionsByFunction."""

from functools import partial

from stoker.control.environments import Environments
from stoker.control.lookup import check_latest, target
from stoker.control.messages import function_not_found, not_implemented
from stoker.control.paging import marked_version, page_size, version_marker
from stoker.control.ports import Ports
from stoker.control.publishing import Guards, NewVersion, publication
from stoker.control.settling import Settling
from stoker.control.shapes import listed_configuration, shown_configuration
from stoker.control.storage import CodeStorage
from stoker.services.context import RequestContext
from stoker.services.functions import LATEST, FunctionKey, FunctionMissing, Publication, Publish
from stoker.services.lambda_types import (
    FunctionConfiguration,
    ListVersionsByFunctionRequest,
    ListVersionsByFunctionResponse,
    PublishVersionRequest,
)


class Versions:
    """Handlers of the version operations."""

    def __init__(self, ports: Ports, settling: Settling, storage: CodeStorage) -> None:
        self._ports = ports
        self._metadata = ports.metadata
        self._settling = settling
        self._storage = storage
        self._environments = Environments(ports.environments)

    async def publish(self, context: RequestContext, request: PublishVersionRequest) -> FunctionConfiguration:
        found = target(context, request.function_name, "PublishVersion")
        check_latest(found)
        if request.publish_to:
            raise not_implemented("PublishTo")
        latest = await self._metadata.version(found.key, LATEST)
        if latest is None:
            raise function_not_found(found.key.arn)
        await self._storage.claim(found.key, latest.code_size_bytes)
        decide = partial(
            publication,
            guards=Guards(code_sha256=request.code_sha256, revision_id=request.revision_id),
            new=NewVersion(
                revision_id=self._ports.new_id(),
                deployment_id=self._ports.new_id(),
                now_s=self._ports.clock.now_s(),
                description=request.description,
            ),
            latest_revision_id=self._ports.new_id(),
        )
        made = await self._settling.uninterrupted(self._publish(found.key, decide))
        return await self._environments.shown(shown_configuration(made.result), made.result)

    async def _publish(self, key: FunctionKey, decide: Publish) -> Publication:
        try:
            made = await self._metadata.publish(key, decide)
        except FunctionMissing as problem:
            raise function_not_found(key.arn) from problem
        if made.published is not None:
            self._ports.invalidation.publish(key)
        return made

    async def list(
        self, context: RequestContext, request: ListVersionsByFunctionRequest
    ) -> ListVersionsByFunctionResponse:
        key = check_latest(target(context, request.function_name, "ListVersionsByFunction"))
        limit = page_size(request.max_items)
        _, number = marked_version(request.marker, "ListVersionsByFunction")
        found = await self._metadata.list_versions(
            key.account, key.region, name=key.name, after=(key.name, number), limit=limit + 1
        )
        if not found and await self._metadata.function(key) is None:
            raise function_not_found(key.arn)
        page = found[:limit]
        return ListVersionsByFunctionResponse(
            versions=await self._environments.listed(
                (listed_configuration(version, qualified=True), version) for version in page
            ),
            next_marker=version_marker(key.name, page[-1].number) if len(found) > limit else None,
        )
