"""Roles, users and managed policies as they are kept, and the port that tells who there is."""

from collections.abc import Callable
from typing import Final, Protocol

import msgspec

ROLE: Final = "iam-role"
USER: Final = "iam-user"
MANAGED_POLICY: Final = "iam-policy"
"""Kinds of records; identities have no region, and names that are unique in their account."""


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """What roles and users share."""

    name: str
    path: str
    account: str
    unique_id: str
    created_at_s: float
    tags: dict[str, str] = {}
    inline: dict[str, str] = {}
    """Policy documents by name."""
    attached: tuple[str, ...] = ()
    """ARNs of managed policies."""
    boundary: str = ""
    """ARN of the managed policy that is the permissions boundary."""


class Role(Identity, frozen=True, kw_only=True):
    """A role."""

    trust: str
    description: str | None = None
    max_session_s: int = 3600

    @property
    def arn(self) -> str:
        return f"arn:aws:iam::{self.account}:role{self.path}{self.name}"


class User(Identity, frozen=True, kw_only=True):
    """A user."""

    @property
    def arn(self) -> str:
        return f"arn:aws:iam::{self.account}:user{self.path}{self.name}"


class PolicyVersion(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a managed policy."""

    version_id: str
    document: str
    created_at_s: float


class ManagedPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """A managed policy; AWS's own have the account ``aws``."""

    name: str
    path: str
    account: str
    unique_id: str
    created_at_s: float
    updated_at_s: float
    default_version: str
    versions: tuple[PolicyVersion, ...]
    last_version: int = 1
    """The number that was given last; numbers are not given again."""
    description: str | None = None
    tags: dict[str, str] = {}

    @property
    def arn(self) -> str:
        return f"arn:aws:iam::{self.account}:policy{self.path}{self.name}"

    @property
    def document(self) -> str:
        """What is in force."""
        return next(each.document for each in self.versions if each.version_id == self.default_version)


class Identities(Protocol):
    """Who there is, in memory; changes are told."""

    def role(self, account: str, name: str) -> Role | None: ...

    def user(self, account: str, name: str) -> User | None: ...

    def managed(self, arn: str) -> ManagedPolicy | None: ...

    def subscribe(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` after any identity or managed policy changed."""
        ...
