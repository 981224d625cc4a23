"""Every identity and managed policy of every account, in memory and on record. One writer at a time."""

import asyncio
from collections.abc import Callable, Iterator
from typing import TypeVar

from stoker.control.iam.aws_managed import AWS_MANAGED
from stoker.services.identity import MANAGED_POLICY, ROLE, USER, Identity, ManagedPolicy, Role, User
from stoker.services.records import ANY_REVISION, Put, RecordKey, Records, Remove, Shelf

Kept = TypeVar("Kept", Role, User, ManagedPolicy)


class Directory:
    """The Identities port. Writers hold ``writing`` from what they read to what they write."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._roles = Shelf(records, ROLE, Role)
        self._users = Shelf(records, USER, User)
        self._policies = Shelf(records, MANAGED_POLICY, ManagedPolicy)
        self._role_by: dict[tuple[str, str], Role] = {}
        self._user_by: dict[tuple[str, str], User] = {}
        self._policy_by: dict[str, ManagedPolicy] = {policy.arn: policy for policy in AWS_MANAGED}
        self._callbacks: list[Callable[[], None]] = []
        self._lock = asyncio.Lock()

    async def start(self) -> None:
        """Read everything."""
        for role in await self._roles.every():
            self._role_by[role.key.account, role.key.name] = role.value
        for user in await self._users.every():
            self._user_by[user.key.account, user.key.name] = user.value
        for policy in await self._policies.every():
            self._policy_by[policy.value.arn] = policy.value

    def role(self, account: str, name: str) -> Role | None:
        return self._role_by.get((account, name))

    def user(self, account: str, name: str) -> User | None:
        return self._user_by.get((account, name))

    def managed(self, arn: str) -> ManagedPolicy | None:
        return self._policy_by.get(arn)

    def subscribe(self, callback: Callable[[], None]) -> None:
        self._callbacks.append(callback)

    def roles(self, account: str) -> list[Role]:
        """All of an account, by name."""
        return sorted(_of(self._role_by, account), key=lambda role: role.name)

    def users(self, account: str) -> list[User]:
        """All of an account, by name."""
        return sorted(_of(self._user_by, account), key=lambda user: user.name)

    def policies(self, account: str) -> list[ManagedPolicy]:
        """An account's own, by name; of ``aws``, AWS's."""
        found = (policy for policy in self._policy_by.values() if policy.account == account)
        return sorted(found, key=lambda policy: policy.name)

    def attached_to(self, arn: str) -> tuple[list[Role], list[User]]:
        """Who has a managed policy attached."""
        return (
            [role for role in self._role_by.values() if arn in role.attached],
            [user for user in self._user_by.values() if arn in user.attached],
        )

    def bounded_by(self, arn: str) -> int:
        """How many identities have the policy as their boundary."""
        identities: list[Identity] = [*self._role_by.values(), *self._user_by.values()]
        return sum(identity.boundary == arn for identity in identities)

    @property
    def writing(self) -> asyncio.Lock:
        """Held by whoever reads in order to write."""
        return self._lock

    async def put(self, value: Role | User | ManagedPolicy) -> None:
        """Store a new or changed one."""
        if isinstance(value, Role):
            await self._write(self._roles, self._role_key(value), value)
            self._role_by[value.account, value.name] = value
        elif isinstance(value, User):
            await self._write(self._users, self._user_key(value), value)
            self._user_by[value.account, value.name] = value
        else:
            await self._write(self._policies, self._policy_key(value), value)
            self._policy_by[value.arn] = value
        self._tell()

    async def remove(self, value: Role | User | ManagedPolicy) -> None:
        """Delete one that is there."""
        if isinstance(value, Role):
            await self._records.write([Remove(self._role_key(value))])
            del self._role_by[value.account, value.name]
        elif isinstance(value, User):
            await self._records.write([Remove(self._user_key(value))])
            del self._user_by[value.account, value.name]
        else:
            await self._records.write([Remove(self._policy_key(value))])
            del self._policy_by[value.arn]
        self._tell()

    def _tell(self) -> None:
        for callback in self._callbacks:
            callback()

    async def _write(self, shelf: Shelf[Kept], key: RecordKey, value: Kept) -> None:
        await shelf.write(Put(shelf.record(key, value, "1"), ANY_REVISION))

    def _role_key(self, role: Role) -> RecordKey:
        return self._roles.key(role.account, "", "", role.name)

    def _user_key(self, user: User) -> RecordKey:
        return self._users.key(user.account, "", "", user.name)

    def _policy_key(self, policy: ManagedPolicy) -> RecordKey:
        return self._policies.key(policy.account, "", "", policy.name)


def _of(known: dict[tuple[str, str], Kept], account: str) -> Iterator[Kept]:
    return (value for (owner, _), value in known.items() if owner == account)
