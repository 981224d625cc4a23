"""Access keys as the API needs them to check signatures. Who keeps them is not known here."""

from typing import Protocol

import msgspec


class Credential(msgspec.Struct, frozen=True, kw_only=True):
    """An access key and whom it stands for. ``session_token`` is set for temporary keys only."""

    access_key_id: str
    secret: str
    account: str
    principal_arn: str
    session_token: str | None = None
    session_policy: str = ""
    """What narrows a session beyond its role; empty: nothing does."""
    bound_to: str = ""
    """ARN or unique id of the one role or user whose session it is, as names are given again; empty: none."""

    def __repr__(self) -> str:
        return f"Credential({self.access_key_id}, {self.principal_arn})"


class Credentials(Protocol):
    """Keys that are valid now."""

    def lookup(self, access_key_id: str, session_token: str | None) -> Credential | None:
        """The key, or None when it is unknown, expired, or does not go with ``session_token``.

        Called for every request, before anything is trusted: in memory, no waiting.
        """
        ...


class SessionIssuer(Protocol):
    """Makes the temporary keys that a sandbox calls AWS APIs with."""

    def issue_session(
        self,
        *,
        account: str,
        role_arn: str,
        session_name: str,
        lifetime_s: int = ...,
        session_policy: str = ...,
        bound_to: str = ...,
    ) -> Credential:
        """Keys of a role; valid for ``lifetime_s`` and across restarts, stored nowhere. ``bound_to``: the
        role's unique id; without it, whatever has its ARN."""
        ...

    def issue_user_session(
        self, *, account: str, user_arn: str, lifetime_s: int, bound_to: str = ...
    ) -> Credential:
        """Temporary keys of a user, or of an account's root."""
        ...


class AccessKey(msgspec.Struct, frozen=True, kw_only=True):
    """A user's long-lived key, without its secret."""

    access_key_id: str
    user_name: str
    active: bool
    created_at_s: float


class KeyKeeper(Protocol):
    """Keeps users' keys. Each change holds for every process of the service once it has returned."""

    def keys_of(self, account: str, user_name: str) -> list[AccessKey]:
        """A user's keys, oldest first."""
        ...

    async def create_key(self, account: str, user_name: str, user_arn: str) -> tuple[AccessKey, str]:
        """Make and store a key; returns it with its secret, which is shown only now."""
        ...

    async def set_key_active(self, account: str, key: AccessKey, *, active: bool) -> None: ...

    async def delete_key(self, account: str, key: AccessKey) -> None: ...
