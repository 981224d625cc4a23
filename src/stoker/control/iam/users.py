"""Users and their access keys."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from stoker.control.iam.answers import (
    exists,
    in_the_way,
    invalid,
    merged_tags,
    missing,
    over_quota,
    page,
    shown_user,
    unique_id,
)
from stoker.control.iam.directory import Directory
from stoker.control.iam.entities import Entities, check_deletable
from stoker.core.clock import Clock
from stoker.services import iam_types as types
from stoker.services.context import OperationHandler, RequestContext
from stoker.services.credentials import AccessKey, KeyKeeper
from stoker.services.identity import User

USERS_MAX: Final = 5000
"""Of an account."""
KEYS_MAX: Final = 2
"""Of a user."""


class Users:
    """Handlers of the operations on users themselves and on their keys."""

    def __init__(
        self, directory: Directory, keys: KeyKeeper, clock: Clock, new_id: Callable[[], str]
    ) -> None:
        self._directory = directory
        self._keys = keys
        self._clock = clock
        self._new_id = new_id
        self._entities: Entities[User] = Entities(directory, "User")

    def operations(self) -> Mapping[str, OperationHandler]:
        """Handlers by operation."""
        return {
            "CreateUser": self.create,
            "GetUser": self.get,
            "ListUsers": self.list,
            "DeleteUser": self.delete,
            "ListGroupsForUser": self.list_groups,
            "CreateAccessKey": self.create_key,
            "ListAccessKeys": self.list_keys,
            "UpdateAccessKey": self.update_key,
            "DeleteAccessKey": self.delete_key,
            **self._entities.operations(),
        }

    async def create(
        self, context: RequestContext, request: types.CreateUserRequest
    ) -> types.CreateUserResponse:
        async with self._directory.writing:
            known = self._directory.users(context.account)
            if any(user.name.lower() == request.user_name.lower() for user in known):
                raise exists(f"User with name {request.user_name} already exists.")
            if len(known) >= USERS_MAX:
                raise over_quota("UsersPerAccount", USERS_MAX)
            if request.permissions_boundary:
                self._entities.check_attachable(context, request.permissions_boundary)
            user = User(
                name=request.user_name,
                path=request.path or "/",
                account=context.account,
                unique_id=unique_id("AIDA", self._new_id()),
                created_at_s=float(int(self._clock.now_s())),
                tags=merged_tags({}, request.tags),
                boundary=request.permissions_boundary or "",
            )
            await self._directory.put(user)
        return types.CreateUserResponse(user=shown_user(user))

    async def get(self, context: RequestContext, request: types.GetUserRequest) -> types.GetUserResponse:
        """Without a name: who asks, the account's root included."""
        if request.user_name is None and context.principal_arn.endswith(":root"):
            root = types.User(
                path="/",
                user_name="root",
                user_id=context.account,
                arn=context.principal_arn,
                create_date=0.0,
            )
            return types.GetUserResponse(user=root)
        return types.GetUserResponse(user=shown_user(self._named(context, request)))

    async def list(self, context: RequestContext, request: types.ListUsersRequest) -> types.ListUsersResponse:
        prefix = request.path_prefix or "/"
        found = [user for user in self._directory.users(context.account) if user.path.startswith(prefix)]
        shown, marker = page(found, lambda user: user.name, request.marker, request.max_items)
        return types.ListUsersResponse(
            users=tuple(shown_user(user, listed=True) for user in shown),
            is_truncated=marker is not None,
            marker=marker,
        )

    async def delete(self, context: RequestContext, request: types.DeleteUserRequest) -> None:
        async with self._directory.writing:
            user = self._entities.find(context, request)
            if self._keys.keys_of(context.account, user.name):
                raise in_the_way("Cannot delete entity, must delete access keys first.")
            check_deletable(user)
            await self._directory.remove(user)

    async def list_groups(
        self, context: RequestContext, request: types.ListGroupsForUserRequest
    ) -> types.ListGroupsForUserResponse:
        """Groups are not served, so nobody is in one."""
        self._entities.find(context, request)
        return types.ListGroupsForUserResponse(groups=(), is_truncated=False)

    # --- keys

    async def create_key(
        self, context: RequestContext, request: types.CreateAccessKeyRequest
    ) -> types.CreateAccessKeyResponse:
        async with self._directory.writing:
            user = self._named(context, request)
            if len(self._keys.keys_of(context.account, user.name)) >= KEYS_MAX:
                raise over_quota("AccessKeysPerUser", KEYS_MAX)
            key, secret = await self._keys.create_key(context.account, user.name, user.arn)
        return types.CreateAccessKeyResponse(
            access_key=types.AccessKey(
                user_name=user.name,
                access_key_id=key.access_key_id,
                status="Active",
                secret_access_key=secret,
                create_date=key.created_at_s,
            )
        )

    async def list_keys(
        self, context: RequestContext, request: types.ListAccessKeysRequest
    ) -> types.ListAccessKeysResponse:
        user = self._named(context, request)
        keys = sorted(self._keys.keys_of(context.account, user.name), key=lambda key: key.access_key_id)
        shown, marker = page(keys, lambda key: key.access_key_id, request.marker, request.max_items)
        return types.ListAccessKeysResponse(
            access_key_metadata=tuple(
                types.AccessKeyMetadata(
                    user_name=user.name,
                    access_key_id=key.access_key_id,
                    status="Active" if key.active else "Inactive",
                    create_date=key.created_at_s,
                )
                for key in shown
            ),
            is_truncated=marker is not None,
            marker=marker,
        )

    async def update_key(self, context: RequestContext, request: types.UpdateAccessKeyRequest) -> None:
        async with self._directory.writing:
            key = self._key(context, request)
            await self._keys.set_key_active(context.account, key, active=request.status == "Active")

    async def delete_key(self, context: RequestContext, request: types.DeleteAccessKeyRequest) -> None:
        async with self._directory.writing:
            await self._keys.delete_key(context.account, self._key(context, request))

    def _key(self, context: RequestContext, request: Any) -> AccessKey:
        user = self._named(context, request)
        for key in self._keys.keys_of(context.account, user.name):
            if key.access_key_id == request.access_key_id:
                return key
        raise missing(f"The Access Key with id {request.access_key_id} cannot be found.")

    def _named(self, context: RequestContext, request: Any) -> User:
        """The user of the request, or who asks."""
        if request.user_name is not None:
            return self._entities.find(context, request)
        name = context.principal_arn.rpartition("/")[2]
        user = self._directory.user(context.account, name) if ":user/" in context.principal_arn else None
        if user is None:
            raise invalid("Must specify userName when calling with non-User credentials")
        return user
