"""Layers: publish, show, list, delete. Their permissions are policies' business."""

from collections.abc import AsyncIterator, Callable
from typing import Any

from stoker.control.holds import CodeHolds
from stoker.control.layer_access import authorise_layer
from stoker.control.layer_checks import check_compatibility, check_filter
from stoker.control.layer_records import LayerRecords
from stoker.control.locations import code_location
from stoker.control.paging import PAGE_MAX, marked_place, marker, page_size
from stoker.control.ports import Ports
from stoker.control.records import shown_time
from stoker.control.settling import Settling
from stoker.control.sources import admitted_code, code_source
from stoker.control.storage import CodeStorage
from stoker.core.errors import invalid_parameter, not_found
from stoker.services.code import CodeArtifact
from stoker.services.context import RequestContext
from stoker.services.lambda_types import (
    DeleteLayerVersionRequest,
    FunctionCode,
    GetLayerVersionByArnRequest,
    GetLayerVersionRequest,
    GetLayerVersionResponse,
    LayersListItem,
    LayerVersionContentInput,
    LayerVersionContentOutput,
    LayerVersionsListItem,
    ListLayersRequest,
    ListLayersResponse,
    ListLayerVersionsRequest,
    ListLayerVersionsResponse,
    PublishLayerVersionRequest,
    PublishLayerVersionResponse,
)
from stoker.services.layers import LayerKey, LayerVersion, layer_version_arn, parse_layer_arn

_NOT_FOUND = "The resource you requested does not exist."


class Layers:
    """Handlers of the layer operations."""

    def __init__(
        self, ports: Ports, records: LayerRecords, holds: CodeHolds, settling: Settling, storage: CodeStorage
    ) -> None:
        self._ports = ports
        self._records = records
        self._holds = holds
        self._settling = settling
        self._storage = storage

    async def publish(
        self, context: RequestContext, request: PublishLayerVersionRequest
    ) -> PublishLayerVersionResponse:
        layer = _layer(context, request.layer_name)
        await authorise_layer(context, layer, layer.arn, "lambda:PublishLayerVersion")
        check_compatibility(request.compatible_runtimes or (), request.compatible_architectures or ())
        source = code_source(_as_code(request.content), "PublishLayerVersion")
        code = await admitted_code(source, self._ports.code, self._ports.objects, None)
        release = self._holds.take(code.code_sha256)
        version = LayerVersion(
            layer=layer,
            number=0,
            created=shown_time(self._ports.clock.now_s()),
            description=request.description or "",
            license_info=request.license_info,
            runtimes=request.compatible_runtimes,
            architectures=request.compatible_architectures,
            code_sha256=code.code_sha256,
            size_bytes=code.size_bytes,
            unpacked_bytes=code.unpacked_bytes,
        )
        stored = await self._settling.uninterrupted(self._publish_held(version, code, release))
        return PublishLayerVersionResponse(**self._shown(context, stored))

    async def get(self, context: RequestContext, request: GetLayerVersionRequest) -> GetLayerVersionResponse:
        layer = _layer(context, request.layer_name)
        return await self._get(context, layer, request.version_number)

    async def get_by_arn(
        self, context: RequestContext, request: GetLayerVersionByArnRequest
    ) -> GetLayerVersionResponse:
        named = parse_layer_arn(request.arn)
        if named is None or named[1] is None:
            # Of the model's pattern, but one of AWS's own layers, of which there are none here.
            raise not_found(_NOT_FOUND)
        return await self._get(context, named[0], named[1])

    async def list_versions(
        self, context: RequestContext, request: ListLayerVersionsRequest
    ) -> ListLayerVersionsResponse:
        check_filter(request.compatible_runtime)
        layer = _layer(context, request.layer_name)
        await authorise_layer(context, layer, layer.arn, "lambda:ListLayerVersions")
        limit = page_size(request.max_items)
        found: list[LayerVersion] = []
        async for version in self._newest_first(layer, below=_number_of(request.marker)):
            if _matches(version, request.compatible_runtime, request.compatible_architecture):
                found.append(version)
                if len(found) > limit:
                    break
        return ListLayerVersionsResponse(
            layer_versions=tuple(_item(version) for version in found[:limit]),
            next_marker=marker(str(found[limit - 1].number)) if len(found) > limit else None,
        )

    async def list(self, context: RequestContext, request: ListLayersRequest) -> ListLayersResponse:
        check_filter(request.compatible_runtime)
        limit = page_size(request.max_items)
        found: list[LayerVersion] = []
        after = marked_place(request.marker, "ListLayers")
        while len(found) <= limit:
            page = await self._records.latest(context.account, context.region, after=after, limit=limit + 1)
            for latest in page:
                matching = await self._latest_matching(latest, request)
                if matching is not None:
                    found.append(matching)
            if len(page) <= limit:
                break
            after = page[-1].layer.name
        return ListLayersResponse(
            layers=tuple(
                LayersListItem(
                    layer_name=version.layer.name,
                    layer_arn=version.layer.arn,
                    latest_matching_version=_item(version),
                )
                for version in found[:limit]
            ),
            next_marker=marker(found[limit - 1].layer.name) if len(found) > limit else None,
        )

    async def delete(self, context: RequestContext, request: DeleteLayerVersionRequest) -> None:
        """AWS answers 204 for a version that is not there, too."""
        layer = _layer(context, request.layer_name)
        number = request.version_number
        _check_number(number)
        await authorise_layer(
            context, layer, layer_version_arn(layer, number), action="lambda:DeleteLayerVersion"
        )
        await self._settling.uninterrupted(self._delete(layer, number))

    async def _get(self, context: RequestContext, layer: LayerKey, number: int) -> GetLayerVersionResponse:
        _check_number(number)
        await authorise_layer(context, layer, layer_version_arn(layer, number))
        version = await self._records.get(layer, number) if layer.region == context.region else None
        if version is None:
            raise not_found(_NOT_FOUND)
        return GetLayerVersionResponse(**self._shown(context, version))

    async def _publish_held(
        self, version: LayerVersion, code: CodeArtifact, release: Callable[[], None]
    ) -> LayerVersion:
        try:
            await self._storage.claim(version.layer, code.size_bytes)
            return await self._records.publish(version, self._ports.new_id())
        finally:
            release()
            await self._holds.forget_if_unused(code.code_sha256)

    async def _delete(self, layer: LayerKey, number: int) -> None:
        with self._holds.removing():
            deleted = await self._records.delete(layer, number, self._ports.new_id())
            if deleted is not None:
                self._holds.forget_later(deleted.code_sha256)

    async def _newest_first(self, layer: LayerKey, *, below: int | None) -> AsyncIterator[LayerVersion]:
        while True:
            page = await self._records.versions(layer, below=below, limit=PAGE_MAX + 1)
            for version in page:
                yield version
            if len(page) <= PAGE_MAX:
                return
            below = page[-1].number

    async def _latest_matching(self, latest: LayerVersion, request: ListLayersRequest) -> LayerVersion | None:
        runtime, architecture = request.compatible_runtime, request.compatible_architecture
        if _matches(latest, runtime, architecture):
            return latest
        async for version in self._newest_first(latest.layer, below=latest.number):
            if _matches(version, runtime, architecture):
                return version
        return None

    def _shown(self, context: RequestContext, version: LayerVersion) -> dict[str, Any]:
        """The members that publishing and getting answer with."""
        now_s, key = self._ports.clock.now_s(), self._ports.location_keys()[0]
        return {
            "content": LayerVersionContentOutput(
                location=code_location(context.endpoint, version.code_sha256, now_s, key),
                code_sha256=version.code_sha256,
                code_size=version.size_bytes,
            ),
            "layer_arn": version.layer.arn,
            "layer_version_arn": version.arn,
            "description": version.description,
            "created_date": version.created,
            "version": version.number,
            "compatible_architectures": version.architectures,
            "compatible_runtimes": version.runtimes,
            "license_info": version.license_info,
        }


def _layer(context: RequestContext, name: str) -> LayerKey:
    """The layer that a LayerName, plain or an ARN, names."""
    named = parse_layer_arn(name)
    if named is None:
        return LayerKey(context.account, context.region, name)
    layer = named[0]
    if layer.region != context.region and layer.account == context.account:
        raise not_found(_NOT_FOUND)
    return layer


def _check_number(number: int) -> None:
    if number < 1:
        raise invalid_parameter("Layer Version Cannot be less than 1.")


def _as_code(content: LayerVersionContentInput) -> FunctionCode:
    return FunctionCode(
        zip_file=content.zip_file,
        s3_bucket=content.s3_bucket,
        s3_key=content.s3_key,
        s3_object_version=content.s3_object_version,
        s3_object_storage_mode=content.s3_object_storage_mode,
    )


def _matches(version: LayerVersion, runtime: str | None, architecture: str | None) -> bool:
    """A version that names no architecture is for x86_64, as AWS's documentation has it."""
    if runtime is not None and runtime not in (version.runtimes or ()):
        return False
    return architecture is None or architecture in (version.architectures or ("x86_64",))


def _item(version: LayerVersion) -> LayerVersionsListItem:
    return LayerVersionsListItem(
        layer_version_arn=version.arn,
        version=version.number,
        description=version.description,
        created_date=version.created,
        compatible_architectures=version.architectures,
        compatible_runtimes=version.runtimes,
        license_info=version.license_info,
    )


def _number_of(given: str | None) -> int | None:
    """The version that a marker of ListLayerVersions stands behind."""
    text = marked_place(given, "ListLayerVersions")
    if not text:
        return None
    if not text.isascii() or not text.isdecimal() or len(text) > 19:
        raise invalid_parameter("The marker is not one that ListLayerVersions gave.")
    return int(text)
