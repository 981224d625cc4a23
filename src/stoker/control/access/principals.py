"""From an authenticated request to its principal, and to the condition keys that every request has. Pure."""

import datetime
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from stoker.core.policy.conditions import Values
from stoker.core.policy.evaluation import ROOT, SESSION, USER, Principal
from stoker.services.context import RequestContext
from stoker.services.identity import Identities, Role, User

PRINCIPAL_CACHE_SIZE: Final = 4096


@lru_cache(maxsize=PRINCIPAL_CACHE_SIZE)
def read_arn(arn: str) -> tuple[str, str, str, str]:
    """(kind, account, name, session name) of a principal's ARN; the name is a user's or a role's."""
    account = arn.split(":", 5)[4]
    resource = arn.split(":", 5)[5]
    if resource == "root":
        return ROOT, account, "", ""
    kind, _, rest = resource.partition("/")
    if kind == "assumed-role":
        role, _, session = rest.partition("/")
        return SESSION, account, role, session
    return USER, account, rest.rpartition("/")[2], ""


def is_root(context: RequestContext) -> bool:
    """Whether the account itself asks."""
    return context.principal_arn.endswith(":root")


def principal_of(arn: str, identities: Identities) -> Principal:
    """The principal; a session with its role's ARN, of which sessions carry only the name."""
    kind, account, name, _ = read_arn(arn)
    if kind != SESSION:
        return Principal(kind, arn, account)
    role = identities.role(account, name)
    return Principal(kind, arn, account, role.arn if role else f"arn:aws:iam::{account}:role/{name}")


def is_current(context: RequestContext, identities: Identities) -> bool:
    """Whether a session is still of the role or user that it was made for, and of the caller's own account.

    Names are given again after a deletion, sessions carry no path, and a function may name another account's
    role.
    """
    kind, account, _, _ = read_arn(context.principal_arn)
    if kind == SESSION and account != context.account:
        return False
    identity = identity_of(context.principal_arn, identities)
    return not context.bound_to or identity is None or context.bound_to in (identity.arn, identity.unique_id)


def caller_of(context: RequestContext, identities: Identities) -> Principal:
    """The principal of a request; one that is nobody's any more is at home in no account."""
    principal = principal_of(context.principal_arn, identities)
    if is_current(context, identities):
        return principal
    return Principal(principal.kind, principal.arn, "")


def identity_of(arn: str, identities: Identities) -> Role | User | None:
    """The stored user, or role of a session; None for root and for what is not stored."""
    kind, account, name, _ = read_arn(arn)
    if kind == USER:
        return identities.user(account, name)
    return identities.role(account, name) if kind == SESSION else None


def user_id_of(arn: str, identities: Identities) -> str:
    """UserId as GetCallerIdentity shows it."""
    kind, account, name, session = read_arn(arn)
    identity = identity_of(arn, identities)
    if kind == ROOT:
        return account
    unique_id = identity.unique_id if identity else "AROA" + name.upper()[:17].ljust(17, "X")
    return f"{unique_id}:{session}" if kind == SESSION else unique_id


def request_keys(
    context: RequestContext, principal: Principal, identities: Identities, now_s: float
) -> dict[str, Values]:
    """The global condition keys of a request, in lower case."""
    moment = datetime.datetime.fromtimestamp(now_s, datetime.UTC)
    keys: dict[str, Values] = {
        "aws:currenttime": f"{moment:%Y-%m-%dT%H:%M:%SZ}",
        "aws:epochtime": str(int(now_s)),
        "aws:principalarn": principal.role_arn or principal.arn,
        "aws:principalaccount": principal.account,
        "aws:principaltype": {ROOT: "Account", USER: "User", SESSION: "AssumedRole"}[principal.kind],
        "aws:principalisawsservice": "false",
        "aws:requestedregion": context.region,
        "aws:securetransport": "true" if context.endpoint.startswith("https:") else "false",
        "aws:sourceip": address_of(context.source_ip),
        "aws:userid": user_id_of(principal.arn, identities),
        "aws:viaawsservice": "false",
    }
    if principal.kind == USER:
        keys["aws:username"] = read_arn(principal.arn)[2]
    identity = identity_of(principal.arn, identities)
    if identity is not None:
        keys |= {f"aws:principaltag/{name.lower()}": value for name, value in identity.tags.items()}
    return keys


def address_of(peer: str) -> str:
    """The address of a peer that is written ``HOST:PORT`` (``[HOST]:PORT`` for IPv6), or without a port."""
    if peer.startswith("["):
        return peer[1:].partition("]")[0]
    return peer.partition(":")[0] if peer.count(":") == 1 else peer


def tag_keys(tags: Mapping[str, str] | None) -> dict[str, Values]:
    """The condition keys of tags that a request brings."""
    if not tags:
        return {}
    keys: dict[str, Values] = {f"aws:requesttag/{name.lower()}": value for name, value in tags.items()}
    keys["aws:tagkeys"] = tuple(tags)
    return keys
