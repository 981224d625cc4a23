"""Identities and access as one object: the directory, the authoriser, IAM's and STS's operations."""

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from stoker.control.access.authoriser import PolicyAuthoriser
from stoker.control.access.guard import LAMBDA_SERVICE, Guard, Handlers
from stoker.control.iam.directory import Directory
from stoker.control.iam.managed import ManagedPolicies
from stoker.control.iam.roles import Roles
from stoker.control.iam.sts import ASSUME_ROLE, SecurityTokens
from stoker.control.iam.users import Users
from stoker.core.clock import Clock
from stoker.core.errors import invalid_parameter
from stoker.core.policy.documents import TRUST, read_policy
from stoker.core.policy.evaluation import SERVICE, Asked, Grants, Principal, decide
from stoker.services.context import OperationHandler
from stoker.services.credentials import KeyKeeper, SessionIssuer
from stoker.services.functions import FunctionMetadata, Invalidation
from stoker.services.identity import Identities
from stoker.services.records import Records

STRICT: Final = "strict"
LENIENT: Final = "lenient"
"""Settings of ``roles``: whether a function's role must be kept here."""


class IdentityPorts(msgspec.Struct, frozen=True, kw_only=True):
    """What identities and access stand on."""

    records: Records
    metadata: FunctionMetadata
    invalidation: Invalidation
    keys: KeyKeeper
    issuer: SessionIssuer
    clock: Clock
    new_id: Callable[[], str]
    roles: str = LENIENT


class IdentityPlane:
    """Built from ports; ``start`` before the first request."""

    def __init__(self, ports: IdentityPorts) -> None:
        lenient = ports.roles == LENIENT
        self._lenient = lenient
        self._directory = Directory(ports.records)
        self.authoriser = PolicyAuthoriser(
            self._directory,
            ports.records,
            ports.metadata,
            ports.invalidation,
            ports.clock,
            lenient_roles=lenient,
        )
        self._roles = Roles(self._directory, ports.clock, ports.new_id)
        self._users = Users(self._directory, ports.keys, ports.clock, ports.new_id)
        self._policies = ManagedPolicies(self._directory, ports.clock, ports.new_id)
        self._tokens = SecurityTokens(self._directory, self.authoriser.grants_of, ports.issuer, ports.clock)

    async def start(self) -> None:
        """Read who there is."""
        await self._directory.start()

    def operations(self) -> Mapping[str, Mapping[str, OperationHandler]]:
        """Handlers by service and operation."""
        return {
            "iam": {
                **self._roles.operations(),
                **self._users.operations(),
                **self._policies.operations(),
            },
            "sts": self._tokens.operations(),
        }

    def guarded(self, handlers: Handlers) -> dict[str, dict[str, OperationHandler]]:
        """The handlers of all services, each behind the authoriser."""
        return Guard(self.authoriser, self._directory).guarded(handlers)

    def check_role(self, account: str, role_arn: str) -> None:
        """Whether Lambda may assume the role for a function of the account.

        Raises:
            ServiceError: InvalidParameterValueException.
        """
        check_role(self._directory, account, role_arn, lenient=self._lenient)


def check_role(identities: Identities, account: str, role_arn: str, *, lenient: bool) -> None:
    """As ``IdentityPlane.check_role``. A role that is not kept here passes where that is lenient."""
    refused = invalid_parameter("The role defined for the function cannot be assumed by Lambda.")
    role_account, _, resource = role_arn.split(":", 4)[4].partition(":")
    role = identities.role(account, resource.rpartition("/")[2])
    if role is None or role_account != account:
        if lenient:
            return
        raise refused
    trust = read_policy(role.trust, TRUST)
    principal = Principal(SERVICE, LAMBDA_SERVICE, "")
    keys = {"aws:sourceaccount": account, "aws:principalisawsservice": "true"}
    asked = Asked(principal, ASSUME_ROLE, role.arn, role.account, keys)
    if role.arn != role_arn or not decide(asked, Grants(resource=trust)).allowed:
        raise refused
