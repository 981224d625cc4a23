"""Policy documents: JSON to frozen statements, refusing what IAM refuses. Pure.

Three kinds differ in what they may say: identity policies name no principal, trust policies no resource.
"""

import re
from functools import lru_cache
from typing import Any, Final, cast

import msgspec

from stoker.core.errors import StokerError
from stoker.core.policy.conditions import Condition, read_operator

IDENTITY: Final = "identity"
TRUST: Final = "trust"
RESOURCE: Final = "resource"

DOCUMENT_MAX_CHARACTERS: Final = 131_072
DOCUMENT_CACHE_SIZE: Final = 4096

_VERSIONS: Final = ("2008-10-17", "2012-10-17")
_TOP: Final = frozenset({"Version", "Id", "Statement"})
_ELEMENTS: Final = ("Action", "NotAction", "Resource", "NotResource", "Principal", "NotPrincipal")
_MEMBERS: Final = frozenset(("Sid", "Effect", "Condition", *_ELEMENTS))
_ACTION: Final = re.compile(r"\*|[a-zA-Z0-9-]+:[a-zA-Z0-9*?]+")
_SID: Final = re.compile(r"[a-zA-Z0-9]*")
_BAD_SID: Final = (
    "Statement IDs (SID) must be alpha-numeric. Check that your input satisfies the regular expression "
    "[0-9A-Za-z]*"
)
_NO_VENDOR: Final = "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc."
_PRINCIPALS: Final = frozenset({"AWS", "Service", "Federated", "CanonicalUser"})


class MalformedPolicy(StokerError):
    """The text is no policy, or none of its kind; the message is IAM's."""


class Principals(msgspec.Struct, frozen=True):
    """Whom a statement names, by kind; ``everyone`` for ``*`` alone."""

    everyone: bool = False
    aws: tuple[str, ...] = ()
    services: tuple[str, ...] = ()


class Statement(msgspec.Struct, frozen=True):
    """One statement. ``without_…``: it applies to everything but what is listed."""

    allow: bool
    actions: tuple[str, ...]
    resources: tuple[str, ...] = ()
    principals: Principals | None = None
    conditions: tuple[Condition, ...] = ()
    without_actions: bool = False
    without_resources: bool = False
    without_principals: bool = False
    sid: str = ""


class Policy(msgspec.Struct, frozen=True):
    """A document; ``variables`` whether its version knows them."""

    statements: tuple[Statement, ...]
    variables: bool = True


@lru_cache(maxsize=DOCUMENT_CACHE_SIZE)
def read_policy(text: str, kind: str = IDENTITY) -> Policy:
    """Read a document of a kind.

    Raises:
        MalformedPolicy
    """
    if len(text) > DOCUMENT_MAX_CHARACTERS:
        raise MalformedPolicy("Syntax errors in policy.")
    try:
        document: Any = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        raise MalformedPolicy("This policy contains invalid Json") from None
    if not isinstance(document, dict) or not cast("dict[str, Any]", document).keys() <= _TOP:
        raise MalformedPolicy("Syntax errors in policy.")
    members = cast("dict[str, Any]", document)
    version = members.get("Version", "2008-10-17")
    if version not in _VERSIONS:
        raise MalformedPolicy("Policy document must be version 2012-10-17 or greater.")
    found = members.get("Statement")
    statements = cast("list[Any]", found) if isinstance(found, list) else [found]
    if found is None or not statements:
        raise MalformedPolicy("Syntax errors in policy.")
    variables = version == "2012-10-17"
    read = tuple(_statement(each, kind, variables) for each in statements)
    sids = [each.sid for each in read if each.sid]
    if len(sids) != len(set(sids)):
        raise MalformedPolicy("Statement IDs (SID) in a single policy must be unique.")
    return Policy(read, variables)


def _statement(value: Any, kind: str, variables: bool) -> Statement:
    if not isinstance(value, dict) or not cast("dict[str, Any]", value).keys() <= _MEMBERS:
        raise MalformedPolicy("Syntax errors in policy.")
    members = cast("dict[str, Any]", value)
    effect = members.get("Effect")
    if effect not in ("Allow", "Deny"):
        raise MalformedPolicy("Syntax errors in policy.")
    sid = members.get("Sid", "")
    if not isinstance(sid, str) or (kind == IDENTITY and not _SID.fullmatch(sid)):
        raise MalformedPolicy(
            "Statement IDs (SID) must be alpha-numeric. Check that your input satisfies the "
            "regular expression [0-9A-Za-z]*"
        )
    actions, without_actions = _actions(members)
    resources, without_resources = _resources(members, kind)
    principals, without_principals = _principals_of(members, kind)
    return Statement(
        effect == "Allow",
        actions,
        resources,
        principals,
        _conditions(members.get("Condition", {}), variables),
        without_actions,
        without_resources,
        without_principals,
        sid,
    )


def _actions(members: dict[str, Any]) -> tuple[tuple[str, ...], bool]:
    if ("Action" in members) == ("NotAction" in members):
        raise MalformedPolicy(
            "Syntax errors in policy." if "Action" in members else "Policy statement must contain actions."
        )
    without = "NotAction" in members
    actions = _texts(members["NotAction" if without else "Action"])
    if not actions:
        raise MalformedPolicy("Policy statement must contain actions.")
    for action in actions:
        if not _ACTION.fullmatch(action):
            raise MalformedPolicy(_NO_VENDOR if ":" not in action else "Syntax errors in policy.")
    return actions, without


def _resources(members: dict[str, Any], kind: str) -> tuple[tuple[str, ...], bool]:
    given = [name for name in ("Resource", "NotResource") if name in members]
    if kind == TRUST:
        if given:
            raise MalformedPolicy(f"Has prohibited field {given[0]}")
        return ("*",), False
    if len(given) != 1:
        raise MalformedPolicy(
            "Syntax errors in policy." if given else "Policy statement must contain resources."
        )
    resources = _texts(members[given[0]])
    if not resources:
        raise MalformedPolicy("Policy statement must contain resources.")
    for resource in resources:
        if resource != "*" and not resource.startswith(("arn:", "*", "${")):
            raise MalformedPolicy(f'Resource {resource} must be in ARN format or "*".')
    return resources, given[0] == "NotResource"


def _principals_of(members: dict[str, Any], kind: str) -> tuple[Principals | None, bool]:
    given = [name for name in ("Principal", "NotPrincipal") if name in members]
    if kind == IDENTITY:
        if given:
            raise MalformedPolicy("Policy document should not specify a principal.")
        return None, False
    if len(given) != 1:
        raise MalformedPolicy("Syntax errors in policy." if given else "Missing required field Principal")
    return _principals(members[given[0]]), given[0] == "NotPrincipal"


def _principals(value: Any) -> Principals:
    if value == "*":
        return Principals(everyone=True)
    if not isinstance(value, dict) or not value or not cast("dict[str, Any]", value).keys() <= _PRINCIPALS:
        raise MalformedPolicy("Syntax errors in policy.")
    named = {name: _texts(each) for name, each in cast("dict[str, Any]", value).items()}
    aws = named.get("AWS", ())
    for principal in aws:
        # Only whole: AWS takes no wildcard within the ARN of a principal.
        if principal != "*" and ("*" in principal or "?" in principal):
            raise MalformedPolicy(f'Invalid principal in policy: "AWS":"{principal}"')
    return Principals("*" in aws, aws, named.get("Service", ()))


def _conditions(value: Any, variables: bool) -> tuple[Condition, ...]:
    if not isinstance(value, dict):
        raise MalformedPolicy("Syntax errors in policy.")
    found: list[Condition] = []
    for name, keys in cast("dict[str, Any]", value).items():
        read = read_operator(name)
        if read is None or not isinstance(keys, dict):
            raise MalformedPolicy(f"Invalid Condition type : {name}.")
        operator, negated, quantifier, if_exists = read
        for key, values in cast("dict[str, Any]", keys).items():
            if ":" not in key:
                raise MalformedPolicy(
                    "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc."
                )
            texts = _texts(values, scalars=True)
            found.append(Condition(operator, key.lower(), texts, negated, quantifier, if_exists, variables))
    return tuple(found)


def _texts(value: Any, *, scalars: bool = False) -> tuple[str, ...]:
    """One text or a list of them; ``scalars``: also booleans and numbers, as conditions have them."""
    items = cast("list[Any]", value) if isinstance(value, list) else [value]
    texts: list[str] = []
    for item in items:
        if isinstance(item, str):
            texts.append(item)
        elif scalars and isinstance(item, bool):
            texts.append("true" if item else "false")
        elif scalars and isinstance(item, int | float):
            texts.append(str(item))
        else:
            raise MalformedPolicy("Syntax errors in policy.")
    return tuple(texts)
