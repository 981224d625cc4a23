"""What roles and users have in common: inline and attached policies, boundaries, tags."""

from collections.abc import Mapping
from typing import Any, Final, Generic, TypeVar

import msgspec

from stoker.control.iam.answers import (
    check_document,
    encoded,
    in_the_way,
    merged_tags,
    missing,
    over_quota,
    page,
    shown_tags,
)
from stoker.control.iam.directory import Directory
from stoker.services import iam_types as types
from stoker.services.context import OperationHandler, RequestContext
from stoker.services.identity import Role, User

INLINE_MAX_CHARACTERS: Final = {"Role": 10_240, "User": 2_048}
"""Of all inline policies of an identity together, white space not counted."""
ATTACHED_MAX: Final = 10

Kind = TypeVar("Kind", Role, User)


class Entities(Generic[Kind]):
    """Handlers that roles and users share; ``word`` is Role or User, as in the names of operations."""

    def __init__(self, directory: Directory, word: str) -> None:
        self._directory = directory
        self._word = word
        self._member = f"{word.lower()}_name"

    def operations(self) -> Mapping[str, OperationHandler]:
        """Handlers by operation."""
        word = self._word
        return {
            f"Put{word}Policy": self.put_inline,
            f"Get{word}Policy": self.get_inline,
            f"List{word}Policies": self.list_inline,
            f"Delete{word}Policy": self.delete_inline,
            f"Attach{word}Policy": self.attach,
            f"Detach{word}Policy": self.detach,
            f"ListAttached{word}Policies": self.list_attached,
            f"Put{word}PermissionsBoundary": self.put_boundary,
            f"Delete{word}PermissionsBoundary": self.delete_boundary,
            f"Tag{word}": self.tag,
            f"Untag{word}": self.untag,
            f"List{word}Tags": self.list_tags,
        }

    def find(self, context: RequestContext, request: Any) -> Kind:
        """The identity that the request names.

        Raises:
            ServiceError: NoSuchEntity.
        """
        name: str = getattr(request, self._member)
        known: Any = self._directory.role if self._word == "Role" else self._directory.user
        found: Kind | None = known(context.account, name)
        if found is None:
            raise missing(f"The {self._word.lower()} with name {name} cannot be found.")
        return found

    async def change(self, identity: Kind, **members: Any) -> Kind:
        """Store the identity with other members; the caller holds ``writing``."""
        changed = msgspec.structs.replace(identity, **members)
        await self._directory.put(changed)
        return changed

    def check_attachable(self, context: RequestContext, arn: str) -> None:
        """Raises NoSuchEntity for a policy that the account cannot use."""
        policy = self._directory.managed(arn)
        if policy is None or policy.account not in (context.account, "aws"):
            raise missing(f"Policy {arn} does not exist or is not attachable.")

    # --- inline

    async def put_inline(self, context: RequestContext, request: Any) -> None:
        check_document(request.policy_document)
        async with self._directory.writing:
            identity = self.find(context, request)
            inline = {**identity.inline, request.policy_name: request.policy_document}
            size = sum(len("".join(document.split())) for document in inline.values())
            if size > INLINE_MAX_CHARACTERS[self._word]:
                raise over_quota(
                    f"Maximum policy size of {INLINE_MAX_CHARACTERS[self._word]} bytes exceeded for "
                    f"{self._word.lower()} {identity.name}",
                    INLINE_MAX_CHARACTERS[self._word],
                )
            await self.change(identity, inline=inline)

    async def get_inline(self, context: RequestContext, request: Any) -> Any:
        identity = self.find(context, request)
        document = self._inline(identity, request.policy_name)
        answer: Any = getattr(types, f"Get{self._word}PolicyResponse")
        return answer(
            **{self._member: identity.name},
            policy_name=request.policy_name,
            policy_document=encoded(document),
        )

    async def list_inline(self, context: RequestContext, request: Any) -> Any:
        names = sorted(self.find(context, request).inline)
        shown, marker = page(names, str, request.marker, request.max_items)
        answer: Any = getattr(types, f"List{self._word}PoliciesResponse")
        return answer(policy_names=tuple(shown), is_truncated=marker is not None, marker=marker)

    async def delete_inline(self, context: RequestContext, request: Any) -> None:
        async with self._directory.writing:
            identity = self.find(context, request)
            self._inline(identity, request.policy_name)
            left = {name: text for name, text in identity.inline.items() if name != request.policy_name}
            await self.change(identity, inline=left)

    def _inline(self, identity: Kind, name: str) -> str:
        document = identity.inline.get(name)
        if document is None:
            raise missing(f"The {self._word.lower()} policy with name {name} cannot be found.")
        return document

    # --- attached

    async def attach(self, context: RequestContext, request: Any) -> None:
        async with self._directory.writing:
            identity = self.find(context, request)
            self.check_attachable(context, request.policy_arn)
            if request.policy_arn in identity.attached:
                return
            if len(identity.attached) >= ATTACHED_MAX:
                raise over_quota(f"PoliciesPer{self._word}", ATTACHED_MAX)
            await self.change(identity, attached=(*identity.attached, request.policy_arn))

    async def detach(self, context: RequestContext, request: Any) -> None:
        async with self._directory.writing:
            identity = self.find(context, request)
            if request.policy_arn not in identity.attached:
                raise missing(f"Policy {request.policy_arn} was not found.")
            left = tuple(arn for arn in identity.attached if arn != request.policy_arn)
            await self.change(identity, attached=left)

    async def list_attached(self, context: RequestContext, request: Any) -> Any:
        prefix = request.path_prefix or "/"
        found = [self._directory.managed(arn) for arn in self.find(context, request).attached]
        policies = [policy for policy in found if policy is not None and policy.path.startswith(prefix)]
        policies.sort(key=lambda policy: policy.name)
        shown, marker = page(policies, lambda policy: policy.name, request.marker, request.max_items)
        answer: Any = getattr(types, f"ListAttached{self._word}PoliciesResponse")
        return answer(
            attached_policies=tuple(
                types.AttachedPolicy(policy_name=policy.name, policy_arn=policy.arn) for policy in shown
            ),
            is_truncated=marker is not None,
            marker=marker,
        )

    # --- boundaries and tags

    async def put_boundary(self, context: RequestContext, request: Any) -> None:
        async with self._directory.writing:
            identity = self.find(context, request)
            self.check_attachable(context, request.permissions_boundary)
            await self.change(identity, boundary=request.permissions_boundary)

    async def delete_boundary(self, context: RequestContext, request: Any) -> None:
        async with self._directory.writing:
            identity = self.find(context, request)
            if not identity.boundary:
                raise missing(f"The {self._word.lower()} {identity.name} has no permissions boundary.")
            await self.change(identity, boundary="")

    async def tag(self, context: RequestContext, request: Any) -> None:
        async with self._directory.writing:
            identity = self.find(context, request)
            await self.change(identity, tags=merged_tags(identity.tags, request.tags))

    async def untag(self, context: RequestContext, request: Any) -> None:
        async with self._directory.writing:
            identity = self.find(context, request)
            gone = set(request.tag_keys)
            left = {key: value for key, value in identity.tags.items() if key not in gone}
            await self.change(identity, tags=left)

    async def list_tags(self, context: RequestContext, request: Any) -> Any:
        tags = shown_tags(self.find(context, request).tags)
        shown, marker = page(tags, lambda tag: tag.key, request.marker, request.max_items)
        answer: Any = getattr(types, f"List{self._word}TagsResponse")
        return answer(tags=tuple(shown), is_truncated=marker is not None, marker=marker)


def check_deletable(identity: Role | User) -> None:
    """Raises DeleteConflict while policies are attached or embedded."""
    if identity.attached:
        raise in_the_way("Cannot delete entity, must detach all policies first.")
    if identity.inline:
        raise in_the_way("Cannot delete entity, must delete policies first.")
