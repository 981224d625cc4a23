"""Layers as functions use them: from the ARNs of a request to what the stored version keeps."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

from stoker.control.holds import CodeHolds
from stoker.control.layer_access import authorise_layer
from stoker.control.layer_records import LayerRecords
from stoker.control.ports import Ports
from stoker.control.sources import UNZIPPED_MAX_BYTES
from stoker.core.errors import ServiceError, invalid_parameter
from stoker.services.context import RequestContext
from stoker.services.functions import LayerUse
from stoker.services.layers import LayerKey, LayerVersion, parse_layer_arn

LAYERS_MAX = 5


class FunctionLayers:
    """Resolves the Layers member, and keeps what it found from going away while a function is written."""

    def __init__(self, ports: Ports, records: LayerRecords, holds: CodeHolds) -> None:
        self._code = ports.code
        self._records = records
        self._holds = holds

    async def resolve(self, context: RequestContext, arns: Sequence[str] | None) -> tuple[LayerUse, ...]:
        """What a request's Layers stand for; only words and layers are checked, not sizes.

        Raises:
            ServiceError: too many, unknown, of another region, not allowed, or two of one layer.
        """
        if not arns:
            return ()
        if len(arns) > LAYERS_MAX:
            raise invalid_parameter(f"Cannot reference more than {LAYERS_MAX} layers.")
        uses: list[LayerUse] = []
        seen: dict[LayerKey, str] = {}
        for arn in arns:
            version = await self._version(context, arn)
            if version.layer in seen:
                raise invalid_parameter(
                    "Two different versions of the same layer are not allowed to be referenced in the same "
                    f"function. {seen[version.layer]} and {arn} are versions of the same layer."
                )
            seen[version.layer] = arn
            uses.append(_use(version))
        return tuple(uses)

    def check_size(self, unpacked_bytes: int, layers: Sequence[LayerUse]) -> None:
        """Refuse code of this size that is too big together with its layers.

        Raises:
            ServiceError: InvalidParameterValueException.
        """
        total_bytes = unpacked_bytes + sum(layer.unpacked_bytes for layer in layers)
        if layers and total_bytes > UNZIPPED_MAX_BYTES:
            raise invalid_parameter(
                "Function code combined with layers exceeds the maximum allowed size of "
                f"{UNZIPPED_MAX_BYTES} bytes. The actual size is {total_bytes} bytes."
            )

    async def check_size_with(self, code_sha256: str, layers: Sequence[LayerUse]) -> None:
        """As ``check_size``, for code that is stored already."""
        code = await self._code.artifact(code_sha256) if layers else None
        self.check_size(0 if code is None else code.unpacked_bytes, layers)

    @asynccontextmanager
    async def held(self, layers: Sequence[LayerUse]) -> AsyncGenerator[None]:
        """Keep the layers' code while a version that names it is written.

        Raises:
            ServiceError: one of them was deleted since it was resolved.
        """
        releases = [self._holds.take(layer.code_sha256) for layer in layers]
        try:
            for layer in layers:
                named = parse_layer_arn(layer.arn)
                if named is None or await self._records.get(named[0], named[1] or 0) is None:
                    raise _does_not_exist(layer.arn)
            yield
        finally:
            for release in releases:
                release()
            for layer in layers:
                await self._holds.forget_if_unused(layer.code_sha256)

    async def _version(self, context: RequestContext, arn: str) -> LayerVersion:
        named = parse_layer_arn(arn)
        if named is None or named[1] is None:
            raise _does_not_exist(arn)  # of the model's pattern: one of AWS's own layers
        layer, number = named[0], named[1]
        await authorise_layer(context, layer, arn)
        if layer.region != context.region:
            raise invalid_parameter(
                "Layers are not in the same region as the function. "
                f"Layers are expected to be in region {context.region}."
            )
        version = await self._records.get(layer, number)
        if version is None:
            raise _does_not_exist(arn)
        return version


def _use(version: LayerVersion) -> LayerUse:
    return LayerUse(
        arn=version.arn,
        code_sha256=version.code_sha256,
        size_bytes=version.size_bytes,
        unpacked_bytes=version.unpacked_bytes,
    )


def _does_not_exist(arn: str) -> ServiceError:
    return invalid_parameter(f"Layer version {arn} does not exist.")
