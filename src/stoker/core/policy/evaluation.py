"""May this principal do that? AWS's published evaluation order over policies that were read already. Pure.

An explicit deny anywhere wins. Within one account an allow by the identity's or by the resource's policy is
enough; between accounts both sides must allow. Boundaries and session policies narrow what identities may.
"""

from collections.abc import Iterable
from enum import Enum
from typing import Final

import msgspec

from stoker.core.policy.conditions import Context, holds, single
from stoker.core.policy.documents import Policy, Principals, Statement
from stoker.core.policy.patterns import UnresolvedVariable, has_variables, matches, matches_arn, resolved

ROOT: Final = "root"
USER: Final = "user"
SESSION: Final = "session"
SERVICE: Final = "service"
ANONYMOUS: Final = "anonymous"


class Principal(msgspec.Struct, frozen=True):
    """Who asks. ``role_arn`` is set for sessions; of a service, ``arn`` is its name (s3.amazonaws.com)."""

    kind: str
    arn: str
    account: str
    role_arn: str = ""


class Asked(msgspec.Struct, frozen=True):
    """One action on one resource, with the condition keys of the request (in lower case)."""

    principal: Principal
    action: str
    resource: str
    resource_account: str
    context: Context


class Grants(msgspec.Struct, frozen=True):
    """All policies that apply: the identity's own, what narrows them, and the resource's."""

    identity: tuple[Policy, ...] = ()
    boundary: Policy | None = None
    session: Policy | None = None
    resource: Policy | None = None


class Reason(Enum):
    """Why; the values are AWS's words for it in AccessDenied messages, with ``{}`` for the action."""

    ALLOWED = ""
    DENIED_BY_IDENTITY = "with an explicit deny in an identity-based policy"
    DENIED_BY_BOUNDARY = "with an explicit deny in a permissions boundary"
    DENIED_BY_SESSION = "with an explicit deny in a session policy"
    DENIED_BY_RESOURCE = "with an explicit deny in a resource-based policy"
    IDENTITY_SILENT = "because no identity-based policy allows the {} action"
    BOUNDARY_SILENT = "because no permissions boundary allows the {} action"
    SESSION_SILENT = "because no session policy allows the {} action"
    RESOURCE_SILENT = "because no resource-based policy allows the {} action"


class Decision(msgspec.Struct, frozen=True):
    """``lasting``: it holds for every request with this principal, action and resource."""

    reason: Reason
    lasting: bool

    @property
    def allowed(self) -> bool:
        return self.reason is Reason.ALLOWED


# How a statement's principal names the caller; an account's delegation leaves the word to identity policies.
_NOT_NAMED: Final = 0
_BY_ACCOUNT: Final = 1
_BY_ROLE: Final = 2
_BY_NAME: Final = 3


class _Verdict(msgspec.Struct):
    """What one kind of policy says: how strongly it allows, and whether it denies."""

    allows: int = _NOT_NAMED
    denies: bool = False


def decide(asked: Asked, grants: Grants) -> Decision:
    """The decision over all policies that apply."""
    notes = _Notes()
    reason = _reason(asked, grants, notes)
    return Decision(reason, not notes.conditional)


def permits(policy: Policy, asked: Asked) -> bool:
    """Whether one policy by itself allows and does not deny: a trust policy, with the caller as principal."""
    verdict = _verdict((policy,), asked, _Notes())
    return verdict.allows > _NOT_NAMED and not verdict.denies


class _Notes(msgspec.Struct):
    conditional: bool = False
    """Something but principal, action and resource had a say."""


def _reason(asked: Asked, grants: Grants, notes: _Notes) -> Reason:
    identity = _verdict(grants.identity, asked, notes)
    boundary = _narrowing(grants.boundary, asked, notes)
    session = _narrowing(grants.session, asked, notes)
    resource = _verdict(() if grants.resource is None else (grants.resource,), asked, notes)
    for verdict, denied in (
        (identity, Reason.DENIED_BY_IDENTITY),
        (boundary, Reason.DENIED_BY_BOUNDARY),
        (session, Reason.DENIED_BY_SESSION),
        (resource, Reason.DENIED_BY_RESOURCE),
    ):
        if verdict.denies:
            return denied
    own = asked.principal.account == asked.resource_account
    has_identity = asked.principal.kind not in (SERVICE, ANONYMOUS)
    if not resource.allows and not (own and has_identity):
        return Reason.RESOURCE_SILENT
    if resource.allows == _BY_NAME and (own or not has_identity):
        return Reason.ALLOWED
    named_role = own and resource.allows == _BY_ROLE
    if asked.principal.kind != ROOT and not identity.allows and not named_role:
        return Reason.IDENTITY_SILENT
    return _narrowed(boundary, session)


def _narrowed(boundary: _Verdict, session: _Verdict) -> Reason:
    if not boundary.allows:
        return Reason.BOUNDARY_SILENT
    return Reason.ALLOWED if session.allows else Reason.SESSION_SILENT


def _narrowing(policy: Policy | None, asked: Asked, notes: _Notes) -> _Verdict:
    return _Verdict(_BY_NAME) if policy is None else _verdict((policy,), asked, notes)


def _verdict(policies: Iterable[Policy], asked: Asked, notes: _Notes) -> _Verdict:
    verdict = _Verdict()
    for policy in policies:
        for statement in policy.statements:
            named = _applies(statement, policy.variables, asked, notes)
            if not named:
                continue
            if not statement.allow:
                verdict.denies = True
                return verdict
            verdict.allows = max(verdict.allows, named)
    return verdict


def _applies(statement: Statement, variables: bool, asked: Asked, notes: _Notes) -> int:
    """How strongly the statement names the caller; 0 when it says nothing about the request."""
    if any(matches(action, asked.action, ignore_case=True) for action in statement.actions) == (
        statement.without_actions
    ):
        return _NOT_NAMED
    named = _named(statement, asked.principal)
    if not named:
        return _NOT_NAMED
    try:
        if _resource_matches(statement, variables, asked, notes) == statement.without_resources:
            return _NOT_NAMED
        if statement.conditions:
            notes.conditional = True
            if not all(holds(condition, asked.context) for condition in statement.conditions):
                return _NOT_NAMED
    except UnresolvedVariable:
        return _NOT_NAMED
    return named


def _resource_matches(statement: Statement, variables: bool, asked: Asked, notes: _Notes) -> bool:
    for resource in statement.resources:
        if variables and has_variables(resource):
            notes.conditional = True
            if matches_arn(resolved(resource, single(asked.context)), asked.resource):
                return True
        elif matches_arn(resource, asked.resource):
            return True
    return False


def _named(statement: Statement, principal: Principal) -> int:
    if statement.principals is None:
        return _BY_NAME
    named = _how_named(statement.principals, principal)
    if statement.without_principals:
        return _NOT_NAMED if named else _BY_NAME
    if named == _BY_ACCOUNT and not statement.allow:
        return _BY_NAME
    return named


def _how_named(principals: Principals, principal: Principal) -> int:
    if principal.kind == SERVICE:
        return _BY_NAME if principals.everyone or principal.arn in principals.services else _NOT_NAMED
    if principals.everyone:
        return _BY_ROLE if principal.kind == SESSION else _BY_NAME
    if principal.arn in principals.aws:
        return _BY_ACCOUNT if principal.kind == ROOT else _BY_NAME
    if principal.role_arn and principal.role_arn in principals.aws:
        return _BY_ROLE
    account = principal.account
    if account and (account in principals.aws or f"arn:aws:iam::{account}:root" in principals.aws):
        return _BY_ACCOUNT
    return _NOT_NAMED
