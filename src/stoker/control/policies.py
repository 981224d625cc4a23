"""Resource policies of functions, their versions and aliases: who else may do what with them."""

import re
from typing import Final

import msgspec

from stoker.control.lookup import Target, target
from stoker.control.messages import function_not_found, not_implemented, update_in_progress
from stoker.control.ports import Ports
from stoker.control.statements import ResourcePolicy, function_statement, whole_policy
from stoker.core.errors import invalid_parameter, not_found, precondition_failed
from stoker.services.aliases import alias_key
from stoker.services.context import RequestContext
from stoker.services.functions import LATEST
from stoker.services.lambda_types import (
    AddPermissionRequest,
    AddPermissionResponse,
    DeleteResourcePolicyRequest,
    GetPolicyRequest,
    GetPolicyResponse,
    GetResourcePolicyRequest,
    GetResourcePolicyResponse,
    PutResourcePolicyRequest,
    PutResourcePolicyResponse,
    RemovePermissionRequest,
)
from stoker.services.records import (
    Entry,
    FunctionThere,
    Put,
    RecordChanged,
    RecordExists,
    RecordKey,
    RecordMissing,
    RecordThere,
    Remove,
    Requirement,
    RequirementUnmet,
    Shelf,
)

POLICY_KIND: Final = "policy"
"""Records: owner is the function's name, name its qualifier, or empty."""

_ALIAS: Final = re.compile(r"(?!\d+$)[a-zA-Z0-9_-]+", re.ASCII)


class FunctionPolicies:
    """Handlers of AddPermission, RemovePermission and GetPolicy."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._shelf = Shelf(ports.records, POLICY_KIND, ResourcePolicy)

    async def add(self, context: RequestContext, request: AddPermissionRequest) -> AddPermissionResponse:
        found = target(context, request.function_name, "AddPermission", request.qualifier)
        if found.qualifier == LATEST:
            raise invalid_parameter("We currently do not support adding policies for $LATEST.")
        revision_id, there = await self._qualified(found)
        statement = function_statement(request, found.arn)
        stored = await self._shelf.get(self._key(found))
        _check_revision(request.revision_id, stored.revision_id if stored else revision_id)
        policy = (stored.value if stored else ResourcePolicy()).adding(statement)
        await self._write(found, stored, policy, there)
        return AddPermissionResponse(statement=msgspec.json.encode(statement).decode())

    async def remove(self, context: RequestContext, request: RemovePermissionRequest) -> None:
        found = target(context, request.function_name, "RemovePermission", request.qualifier)
        if found.qualifier == LATEST:
            raise invalid_parameter("We currently do not support adding policies for $LATEST.")
        if await self._ports.metadata.function(found.key) is None:
            raise not_found(f"No policy found for: {found.arn}")
        _, there = await self._qualified(found)
        stored = await self._shelf.get(self._key(found))
        if stored is None:
            raise not_found("No policy is associated with the given resource.")
        policy = stored.value.without(request.statement_id)
        if policy is None:
            raise not_found(f"Statement {request.statement_id} is not found in resource policy.")
        _check_revision(request.revision_id, stored.revision_id)
        await self._write(found, stored, policy, there)

    async def get(self, context: RequestContext, request: GetPolicyRequest) -> GetPolicyResponse:
        found = target(context, request.function_name, "GetPolicy", request.qualifier)
        stored = await self._shelf.get(self._key(found))
        if stored is None:
            raise not_found("The resource you requested does not exist.")
        return GetPolicyResponse(policy=stored.value.text(), revision_id=stored.revision_id)

    async def put_whole(
        self, context: RequestContext, request: PutResourcePolicyRequest
    ) -> PutResourcePolicyResponse:
        """PutResourcePolicy: one document in the place of all statements."""
        found = _resource(context, request.resource_arn, "PutResourcePolicy")
        revision_id, there = await self._qualified(found)
        policy = whole_policy(request.policy, found.arn)
        stored = await self._shelf.get(self._key(found))
        _check_revision(request.revision_id, stored.revision_id if stored else revision_id)
        new_revision_id = await self._write(found, stored, policy, there)
        return PutResourcePolicyResponse(policy=policy.text(), revision_id=new_revision_id)

    async def get_whole(
        self, context: RequestContext, request: GetResourcePolicyRequest
    ) -> GetResourcePolicyResponse:
        """GetResourcePolicy."""
        found = _resource(context, request.resource_arn, "GetResourcePolicy")
        stored = await self._shelf.get(self._key(found))
        if stored is None:
            raise not_found("The resource you requested does not exist.")
        return GetResourcePolicyResponse(policy=stored.value.text(), revision_id=stored.revision_id)

    async def delete_whole(self, context: RequestContext, request: DeleteResourcePolicyRequest) -> None:
        """DeleteResourcePolicy."""
        found = _resource(context, request.resource_arn, "DeleteResourcePolicy")
        _, there = await self._qualified(found)
        stored = await self._shelf.get(self._key(found))
        if stored is None:
            raise not_found("No policy is associated with the given resource.")
        _check_revision(request.revision_id, stored.revision_id)
        await self._write(found, stored, ResourcePolicy(), there)

    def _key(self, found: Target) -> RecordKey:
        key = found.key
        return self._shelf.key(key.account, key.region, key.name, found.qualifier or "")

    async def _qualified(self, found: Target) -> tuple[str, Requirement]:
        """The revision of what the target names, and that it is there."""
        qualifier = found.qualifier or LATEST
        if _ALIAS.fullmatch(qualifier):
            if await self._ports.metadata.function(found.key) is None:
                raise function_not_found(found.key.arn)
            key = alias_key(found.key, qualifier)
            alias = await self._ports.records.get(key)
            if alias is None:
                raise not_found(f"Cannot find alias arn: {found.arn}")
            return alias.revision_id, RecordThere(key)
        version = await self._ports.metadata.version(found.key, qualifier)
        if version is None:
            raise function_not_found(found.arn)
        return version.revision_id, FunctionThere(found.key, qualifier)

    async def _write(
        self,
        found: Target,
        stored: Entry[ResourcePolicy] | None,
        policy: ResourcePolicy,
        there: Requirement,
    ) -> str:
        """Replace what was stored, if it still is; no statements, no policy. Returns the revision."""
        key = self._key(found)
        revision_id = self._ports.new_id()
        expected = stored.revision_id if stored else None
        if policy.statements:
            record = self._shelf.record(key, policy, revision_id, function=found.key.name)
            change = Put(record, expected)
        else:
            change = Remove(key, expected or "")
        try:
            await self._shelf.write(change, requires=(there,))
        except RequirementUnmet as problem:
            raise function_not_found(found.arn) from problem
        except (RecordExists, RecordMissing, RecordChanged) as problem:
            raise update_in_progress(found.arn) from problem
        self._ports.invalidation.publish(found.key)
        return revision_id


def _resource(context: RequestContext, arn: str, operation: str) -> Target:
    """The function, version or alias that the ARN of a resource names."""
    if ":function:" not in arn:
        raise not_implemented(f"{operation} of anything but a function")
    found = target(context, arn, operation)
    if found.qualifier == LATEST:
        raise invalid_parameter("We currently do not support adding policies for $LATEST.")
    return found


def _check_revision(given: str | None, current: str) -> None:
    if given is not None and given != current:
        raise precondition_failed(
            "The Revision Id provided does not match the latest Revision Id. "
            "Call the GetPolicy API to retrieve the latest Revision Id"
        )
