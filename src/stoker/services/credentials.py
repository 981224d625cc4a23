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
        self, *, account: str, role_arn: str, session_name: str, lifetime_s: int = ...
    ) -> Credential:
        """Keys of a function's role; valid for ``lifetime_s`` and across restarts, stored nowhere."""
        ...
