"""Policies of layer versions: which other accounts may use them."""

import msgspec

from stoker.control.layer_access import authorise_layer
from stoker.control.ports import Ports
from stoker.control.statements import ResourcePolicy, layer_statement
from stoker.core.errors import conflict, invalid_parameter, not_found, precondition_failed
from stoker.services.context import RequestContext
from stoker.services.lambda_types import (
    AddLayerVersionPermissionRequest,
    AddLayerVersionPermissionResponse,
    GetLayerVersionPolicyRequest,
    GetLayerVersionPolicyResponse,
    RemoveLayerVersionPermissionRequest,
)
from stoker.services.layers import (
    POLICY_KIND,
    LayerKey,
    layer_version_arn,
    parse_layer_arn,
    version_key,
)
from stoker.services.records import (
    Entry,
    Put,
    RecordChanged,
    RecordExists,
    RecordMissing,
    RecordThere,
    Remove,
    RequirementUnmet,
    Shelf,
)


class LayerPolicies:
    """Handlers of the operations on permissions of layer versions."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._shelf = Shelf(ports.records, POLICY_KIND, ResourcePolicy)

    async def add(
        self, context: RequestContext, request: AddLayerVersionPermissionRequest
    ) -> AddLayerVersionPermissionResponse:
        layer, number = await _version(
            context, "AddLayerVersionPermission", request.layer_name, request.version_number
        )
        arn = layer_version_arn(layer, number)
        if await self._ports.records.get(version_key(layer, number)) is None:
            raise not_found(f"Layer version {arn} does not exist.")
        statement = layer_statement(request, arn)
        stored = await self._stored(layer, number)
        _check_revision(request.revision_id, stored)
        policy = (stored.value if stored else ResourcePolicy()).adding(statement)
        revision_id = await self._write(layer, number, stored, policy)
        text = msgspec.json.encode(statement).decode()
        return AddLayerVersionPermissionResponse(statement=text, revision_id=revision_id)

    async def remove(self, context: RequestContext, request: RemoveLayerVersionPermissionRequest) -> None:
        layer, number = await _version(
            context, "RemoveLayerVersionPermission", request.layer_name, request.version_number
        )
        stored = await self._stored(layer, number)
        if stored is None:
            raise not_found("No policy is associated with the given resource.")
        _check_revision(request.revision_id, stored)
        policy = stored.value.without(request.statement_id)
        if policy is None:
            raise not_found(f"Statement {request.statement_id} is not found in resource policy.")
        await self._write(layer, number, stored, policy)

    async def get(
        self, context: RequestContext, request: GetLayerVersionPolicyRequest
    ) -> GetLayerVersionPolicyResponse:
        layer, number = await _version(
            context, "GetLayerVersionPolicy", request.layer_name, request.version_number
        )
        stored = await self._stored(layer, number)
        if stored is None:
            raise not_found("No policy is associated with the given resource.")
        return GetLayerVersionPolicyResponse(policy=stored.value.text(), revision_id=stored.revision_id)

    async def _stored(self, layer: LayerKey, number: int) -> Entry[ResourcePolicy] | None:
        key = self._shelf.key(layer.account, layer.region, layer.name, str(number))
        return await self._shelf.get(key)

    async def _write(
        self, layer: LayerKey, number: int, stored: Entry[ResourcePolicy] | None, policy: ResourcePolicy
    ) -> str:
        key = self._shelf.key(layer.account, layer.region, layer.name, str(number))
        revision_id = self._ports.new_id()
        expected = stored.revision_id if stored else None
        if policy.statements:
            change = Put(self._shelf.record(key, policy, revision_id), expected)
        else:
            change = Remove(key, expected or "")
        try:
            await self._shelf.write(change, requires=(RecordThere(version_key(layer, number)),))
        except RequirementUnmet as problem:
            raise not_found(f"Layer version {layer_version_arn(layer, number)} does not exist.") from problem
        except (RecordExists, RecordMissing, RecordChanged) as problem:
            raise conflict("The policy was changed at the same time; ask again.") from problem
        return revision_id


async def _version(context: RequestContext, operation: str, name: str, number: int) -> tuple[LayerKey, int]:
    parsed = parse_layer_arn(name)
    layer = parsed[0] if parsed else LayerKey(context.account, context.region, name)
    if number < 1:
        raise invalid_parameter("Layer Version Cannot be less than 1.")
    await authorise_layer(context, layer, layer_version_arn(layer, number), f"lambda:{operation}")
    return layer, number


def _check_revision(given: str | None, stored: Entry[ResourcePolicy] | None) -> None:
    if given is not None and (stored is None or given != stored.revision_id):
        raise precondition_failed(
            "The Revision Id provided does not match the latest Revision Id. "
            "Call the GetLayerPolicy API to retrieve the latest Revision Id"
        )
