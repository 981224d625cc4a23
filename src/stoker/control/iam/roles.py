"""Roles: who may assume them, and how long."""

from collections.abc import Callable, Mapping
from typing import Final

from stoker.control.iam.answers import (
    check_document,
    exists,
    merged_tags,
    over_quota,
    page,
    shown_role,
    unique_id,
)
from stoker.control.iam.directory import Directory
from stoker.control.iam.entities import Entities, check_deletable
from stoker.core.clock import Clock
from stoker.core.policy.documents import TRUST
from stoker.services import iam_types as types
from stoker.services.context import OperationHandler, RequestContext
from stoker.services.identity import Role

ROLES_MAX: Final = 1000
"""Of an account."""


class Roles:
    """Handlers of the operations on roles themselves."""

    def __init__(self, directory: Directory, clock: Clock, new_id: Callable[[], str]) -> None:
        self._directory = directory
        self._clock = clock
        self._new_id = new_id
        self._entities: Entities[Role] = Entities(directory, "Role")

    def operations(self) -> Mapping[str, OperationHandler]:
        """Handlers by operation."""
        return {
            "CreateRole": self.create,
            "GetRole": self.get,
            "ListRoles": self.list,
            "UpdateRole": self.update,
            "UpdateRoleDescription": self.describe,
            "UpdateAssumeRolePolicy": self.update_trust,
            "DeleteRole": self.delete,
            "ListInstanceProfilesForRole": self.list_instance_profiles,
            **self._entities.operations(),
        }

    async def create(
        self, context: RequestContext, request: types.CreateRoleRequest
    ) -> types.CreateRoleResponse:
        check_document(request.assume_role_policy_document, TRUST)
        async with self._directory.writing:
            known = self._directory.roles(context.account)
            if any(role.name.lower() == request.role_name.lower() for role in known):
                raise exists(f"Role with name {request.role_name} already exists.")
            if len(known) >= ROLES_MAX:
                raise over_quota("RolesPerAccount", ROLES_MAX)
            if request.permissions_boundary:
                self._entities.check_attachable(context, request.permissions_boundary)
            role = Role(
                name=request.role_name,
                path=request.path or "/",
                account=context.account,
                unique_id=unique_id("AROA", self._new_id()),
                created_at_s=float(int(self._clock.now_s())),
                trust=request.assume_role_policy_document,
                description=request.description,
                max_session_s=request.max_session_duration or 3600,
                tags=merged_tags({}, request.tags),
                boundary=request.permissions_boundary or "",
            )
            await self._directory.put(role)
        return types.CreateRoleResponse(role=shown_role(role))

    async def get(self, context: RequestContext, request: types.GetRoleRequest) -> types.GetRoleResponse:
        return types.GetRoleResponse(role=shown_role(self._entities.find(context, request)))

    async def list(self, context: RequestContext, request: types.ListRolesRequest) -> types.ListRolesResponse:
        prefix = request.path_prefix or "/"
        found = [role for role in self._directory.roles(context.account) if role.path.startswith(prefix)]
        shown, marker = page(found, lambda role: role.name, request.marker, request.max_items)
        return types.ListRolesResponse(
            roles=tuple(shown_role(role, listed=True) for role in shown),
            is_truncated=marker is not None,
            marker=marker,
        )

    async def update(
        self, context: RequestContext, request: types.UpdateRoleRequest
    ) -> types.UpdateRoleResponse:
        async with self._directory.writing:
            role = self._entities.find(context, request)
            await self._entities.change(
                role,
                description=role.description if request.description is None else request.description,
                max_session_s=request.max_session_duration or role.max_session_s,
            )
        return types.UpdateRoleResponse()

    async def describe(
        self, context: RequestContext, request: types.UpdateRoleDescriptionRequest
    ) -> types.UpdateRoleDescriptionResponse:
        async with self._directory.writing:
            role = self._entities.find(context, request)
            changed = await self._entities.change(role, description=request.description)
        return types.UpdateRoleDescriptionResponse(role=shown_role(changed))

    async def update_trust(
        self, context: RequestContext, request: types.UpdateAssumeRolePolicyRequest
    ) -> None:
        check_document(request.policy_document, TRUST)
        async with self._directory.writing:
            role = self._entities.find(context, request)
            await self._entities.change(role, trust=request.policy_document)

    async def delete(self, context: RequestContext, request: types.DeleteRoleRequest) -> None:
        async with self._directory.writing:
            role = self._entities.find(context, request)
            check_deletable(role)
            await self._directory.remove(role)

    async def list_instance_profiles(
        self, context: RequestContext, request: types.ListInstanceProfilesForRoleRequest
    ) -> types.ListInstanceProfilesForRoleResponse:
        """There are no instances here, so no role is in a profile of one."""
        self._entities.find(context, request)
        return types.ListInstanceProfilesForRoleResponse(instance_profiles=(), is_truncated=False)
