"""Managed policies: up to five versions of a document that identities share."""

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from stoker.control.iam.answers import (
    check_document,
    encoded,
    exists,
    in_the_way,
    merged_tags,
    missing,
    over_quota,
    page,
    shown_policy,
    shown_tags,
    unique_id,
)
from stoker.control.iam.aws_managed import AWS
from stoker.control.iam.directory import Directory
from stoker.core.clock import Clock
from stoker.core.errors import ServiceError
from stoker.services import iam_types as types
from stoker.services.context import OperationHandler, RequestContext
from stoker.services.identity import ManagedPolicy, PolicyVersion

POLICIES_MAX: Final = 1500
"""Of an account."""
VERSIONS_MAX: Final = 5
DOCUMENT_MAX_CHARACTERS: Final = 6_144
"""White space not counted."""


class ManagedPolicies:
    """Handlers of the operations on managed policies."""

    def __init__(self, directory: Directory, clock: Clock, new_id: Callable[[], str]) -> None:
        self._directory = directory
        self._clock = clock
        self._new_id = new_id

    def operations(self) -> Mapping[str, OperationHandler]:
        """Handlers by operation."""
        return {
            "CreatePolicy": self.create,
            "GetPolicy": self.get,
            "ListPolicies": self.list,
            "DeletePolicy": self.delete,
            "CreatePolicyVersion": self.create_version,
            "GetPolicyVersion": self.get_version,
            "ListPolicyVersions": self.list_versions,
            "SetDefaultPolicyVersion": self.set_default,
            "DeletePolicyVersion": self.delete_version,
            "ListEntitiesForPolicy": self.list_entities,
            "TagPolicy": self.tag,
            "UntagPolicy": self.untag,
            "ListPolicyTags": self.list_tags,
        }

    async def create(
        self, context: RequestContext, request: types.CreatePolicyRequest
    ) -> types.CreatePolicyResponse:
        _check(request.policy_document)
        now_s = float(int(self._clock.now_s()))
        async with self._directory.writing:
            known = self._directory.policies(context.account)
            if any(policy.name.lower() == request.policy_name.lower() for policy in known):
                raise exists(
                    f"A policy called {request.policy_name} already exists. Duplicate names are not allowed."
                )
            if len(known) >= POLICIES_MAX:
                raise over_quota("PoliciesPerAccount", POLICIES_MAX)
            first = PolicyVersion(version_id="v1", document=request.policy_document, created_at_s=now_s)
            policy = ManagedPolicy(
                name=request.policy_name,
                path=request.path or "/",
                account=context.account,
                unique_id=unique_id("ANPA", self._new_id()),
                created_at_s=now_s,
                updated_at_s=now_s,
                default_version="v1",
                versions=(first,),
                description=request.description,
                tags=merged_tags({}, request.tags),
            )
            await self._directory.put(policy)
        return types.CreatePolicyResponse(policy=self._shown(policy))

    async def get(self, context: RequestContext, request: types.GetPolicyRequest) -> types.GetPolicyResponse:
        return types.GetPolicyResponse(policy=self._shown(self._find(context, request.policy_arn)))

    async def list(
        self, context: RequestContext, request: types.ListPoliciesRequest
    ) -> types.ListPoliciesResponse:
        scope = request.scope or "All"
        found: list[ManagedPolicy] = []
        if scope in ("All", "Local"):
            found += self._directory.policies(context.account)
        if scope in ("All", "AWS"):
            found += self._directory.policies(AWS)
        prefix = request.path_prefix or "/"
        found = [policy for policy in found if policy.path.startswith(prefix)]
        if request.only_attached:
            found = [policy for policy in found if self._attachments(policy)]
        found.sort(key=lambda policy: policy.arn)
        shown, marker = page(found, lambda policy: policy.arn, request.marker, request.max_items)
        return types.ListPoliciesResponse(
            policies=tuple(self._shown(policy, listed=True) for policy in shown),
            is_truncated=marker is not None,
            marker=marker,
        )

    async def delete(self, context: RequestContext, request: types.DeletePolicyRequest) -> None:
        async with self._directory.writing:
            policy = self._own(context, request.policy_arn)
            if self._attachments(policy) or self._directory.bounded_by(policy.arn):
                raise in_the_way("Cannot delete a policy attached to entities.")
            if len(policy.versions) > 1:
                raise in_the_way(
                    "This policy has more than one version. Before you delete a policy, you must delete the "
                    "policy's versions. The default version is deleted with the policy."
                )
            await self._directory.remove(policy)

    # --- versions

    async def create_version(
        self, context: RequestContext, request: types.CreatePolicyVersionRequest
    ) -> types.CreatePolicyVersionResponse:
        _check(request.policy_document)
        async with self._directory.writing:
            policy = self._own(context, request.policy_arn)
            if len(policy.versions) >= VERSIONS_MAX:
                raise ServiceError(
                    "LimitExceeded",
                    "A managed policy can have up to 5 versions. Before you create a new version, you must "
                    "delete an existing version.",
                )
            number = policy.last_version + 1
            now_s = float(int(self._clock.now_s()))
            version = PolicyVersion(
                version_id=f"v{number}", document=request.policy_document, created_at_s=now_s
            )
            changed = msgspec.structs.replace(
                policy,
                versions=(*policy.versions, version),
                last_version=number,
                default_version=version.version_id if request.set_as_default else policy.default_version,
                updated_at_s=now_s,
            )
            await self._directory.put(changed)
        return types.CreatePolicyVersionResponse(
            policy_version=_shown_version(changed, version, with_document=False)
        )

    async def get_version(
        self, context: RequestContext, request: types.GetPolicyVersionRequest
    ) -> types.GetPolicyVersionResponse:
        policy = self._find(context, request.policy_arn)
        version = _version(policy, request.version_id)
        return types.GetPolicyVersionResponse(policy_version=_shown_version(policy, version))

    async def list_versions(
        self, context: RequestContext, request: types.ListPolicyVersionsRequest
    ) -> types.ListPolicyVersionsResponse:
        policy = self._find(context, request.policy_arn)
        versions = tuple(
            _shown_version(policy, each, with_document=False) for each in reversed(policy.versions)
        )
        return types.ListPolicyVersionsResponse(versions=versions, is_truncated=False)

    async def set_default(
        self, context: RequestContext, request: types.SetDefaultPolicyVersionRequest
    ) -> None:
        async with self._directory.writing:
            policy = self._own(context, request.policy_arn)
            version = _version(policy, request.version_id)
            await self._directory.put(msgspec.structs.replace(policy, default_version=version.version_id))

    async def delete_version(
        self, context: RequestContext, request: types.DeletePolicyVersionRequest
    ) -> None:
        async with self._directory.writing:
            policy = self._own(context, request.policy_arn)
            version = _version(policy, request.version_id)
            if version.version_id == policy.default_version:
                raise in_the_way("Cannot delete the default version of a policy.")
            left = tuple(each for each in policy.versions if each is not version)
            await self._directory.put(msgspec.structs.replace(policy, versions=left))

    # --- the rest

    async def list_entities(
        self, context: RequestContext, request: types.ListEntitiesForPolicyRequest
    ) -> types.ListEntitiesForPolicyResponse:
        policy = self._find(context, request.policy_arn)
        roles, users = self._directory.attached_to(policy.arn)
        wanted = request.entity_filter
        return types.ListEntitiesForPolicyResponse(
            policy_groups=(),
            policy_users=tuple(
                types.PolicyUser(user_name=user.name, user_id=user.unique_id)
                for user in users
                if user.account == context.account and wanted in (None, "User", "LocalManagedPolicy")
            ),
            policy_roles=tuple(
                types.PolicyRole(role_name=role.name, role_id=role.unique_id)
                for role in roles
                if role.account == context.account and wanted in (None, "Role", "LocalManagedPolicy")
            ),
            is_truncated=False,
        )

    async def tag(self, context: RequestContext, request: types.TagPolicyRequest) -> None:
        async with self._directory.writing:
            policy = self._own(context, request.policy_arn)
            tags = merged_tags(policy.tags, request.tags)
            await self._directory.put(msgspec.structs.replace(policy, tags=tags))

    async def untag(self, context: RequestContext, request: types.UntagPolicyRequest) -> None:
        async with self._directory.writing:
            policy = self._own(context, request.policy_arn)
            left = {key: value for key, value in policy.tags.items() if key not in request.tag_keys}
            await self._directory.put(msgspec.structs.replace(policy, tags=left))

    async def list_tags(
        self, context: RequestContext, request: types.ListPolicyTagsRequest
    ) -> types.ListPolicyTagsResponse:
        tags = shown_tags(self._find(context, request.policy_arn).tags)
        shown, marker = page(tags, lambda tag: tag.key, request.marker, request.max_items)
        return types.ListPolicyTagsResponse(tags=tuple(shown), is_truncated=marker is not None, marker=marker)

    def _find(self, context: RequestContext, arn: str) -> ManagedPolicy:
        policy = self._directory.managed(arn)
        if policy is None or policy.account not in (context.account, AWS):
            raise missing(f"Policy {arn} was not found.")
        return policy

    def _own(self, context: RequestContext, arn: str) -> ManagedPolicy:
        """One that the account may change."""
        policy = self._find(context, arn)
        if policy.account == AWS:
            raise ServiceError("AccessDenied", f"Policy {arn} is AWS's own and cannot be changed.")
        return policy

    def _attachments(self, policy: ManagedPolicy) -> int:
        return sum(map(len, self._directory.attached_to(policy.arn)))

    def _shown(self, policy: ManagedPolicy, *, listed: bool = False) -> types.Policy:
        boundaries = self._directory.bounded_by(policy.arn)
        return shown_policy(policy, self._attachments(policy), boundaries, listed=listed)


def _check(document: str) -> None:
    check_document(document)
    if len("".join(document.split())) > DOCUMENT_MAX_CHARACTERS:
        raise over_quota("PolicySize", DOCUMENT_MAX_CHARACTERS)


def _version(policy: ManagedPolicy, version_id: str) -> PolicyVersion:
    for version in policy.versions:
        if version.version_id == version_id:
            return version
    raise missing(f"Policy {policy.arn} version {version_id} does not exist or is not attachable.")


def _shown_version(
    policy: ManagedPolicy, version: PolicyVersion, *, with_document: bool = True
) -> types.PolicyVersion:
    return types.PolicyVersion(
        document=encoded(version.document) if with_document else None,
        version_id=version.version_id,
        is_default_version=version.version_id == policy.default_version,
        create_date=version.created_at_s,
    )
