"""Every operation of CloudWatch Logs, IAM and STS that is served: its action, resource and condition keys."""

from collections.abc import Callable
from typing import Any, Final

from stoker.control.access.authoriser import Question
from stoker.control.access.principals import read_arn, tag_keys
from stoker.core.policy.conditions import Values
from stoker.services.context import RequestContext
from stoker.services.identity import Identities, ManagedPolicy, Role, User
from stoker.services.logs import named_group

Ask = Callable[[RequestContext, Any, str, Identities], Question]

IAM_DENIED: Final = "AccessDenied"


# --- logs


def _log_group(context: RequestContext, request: Any, action: str, _: Identities) -> Question:
    """A group or a stream of it. Policies name groups with and without what follows their name."""
    group = getattr(request, "log_group_name", None) or getattr(request, "log_group_identifier", None) or ""
    # Of an ARN only the name counts, here as in what serves the request: groups are the caller's own.
    group = named_group(group) if group.startswith("arn:") else group
    arn = f"arn:aws:logs:{context.region}:{context.account}:log-group:{group}"
    stream = getattr(request, "log_stream_name", None) or ""
    return Question(
        action=action,
        resource=f"{arn}:log-stream:{stream}",
        account=context.account,
        aliases=() if stream else (arn,),
    )


LOGS_ACTIONS: Final[dict[str, Ask]] = dict.fromkeys(
    (
        "CreateLogGroup",
        "CreateLogStream",
        "DeleteLogGroup",
        "DeleteLogStream",
        "DeleteRetentionPolicy",
        "DescribeLogGroups",
        "DescribeLogStreams",
        "FilterLogEvents",
        "GetLogEvents",
        "PutLogEvents",
        "PutRetentionPolicy",
    ),
    _log_group,
)

# --- iam


_KEYS: Final = {"policy_arn": "iam:policyarn", "permissions_boundary": "iam:permissionsboundary"}


def _iam(
    context: RequestContext,
    action: str,
    resource: str,
    request: Any,
    known: Role | User | ManagedPolicy | None = None,
) -> Question:
    keys: dict[str, Values] = {}
    for name, value in (known.tags if known else {}).items():
        keys |= {f"aws:resourcetag/{name.lower()}": value, f"iam:resourcetag/{name.lower()}": value}
    if isinstance(known, Role | User) and known.boundary:
        keys["iam:permissionsboundary"] = known.boundary
    tags = getattr(request, "tags", None)
    if tags:
        keys |= tag_keys({tag.key: tag.value for tag in tags})
    removed = getattr(request, "tag_keys", None)
    if removed:
        keys["aws:tagkeys"] = tuple(removed)
    for member, name in _KEYS.items():
        value = getattr(request, member, None)
        if value:
            keys[name] = value
    return Question(action=action, resource=resource, account=context.account, keys=keys, code=IAM_DENIED)


def _role(context: RequestContext, request: Any, action: str, identities: Identities) -> Question:
    name: str = request.role_name
    known = identities.role(context.account, name)
    path = getattr(request, "path", None) or "/"
    arn = known.arn if known else f"arn:aws:iam::{context.account}:role{path}{name}"
    return _iam(context, action, arn, request, known)


def _user(context: RequestContext, request: Any, action: str, identities: Identities) -> Question:
    name: str | None = request.user_name
    if name is None:
        kind, _, own, _ = read_arn(context.principal_arn)
        name = own if kind == "user" else "root"
    known = identities.user(context.account, name)
    path = getattr(request, "path", None) or "/"
    arn = known.arn if known else f"arn:aws:iam::{context.account}:user{path}{name}"
    return _iam(context, action, arn, request, known)


def _policy(context: RequestContext, request: Any, action: str, identities: Identities) -> Question:
    arn: str | None = getattr(request, "policy_arn", None)
    if arn is None:
        arn = f"arn:aws:iam::{context.account}:policy{request.path or '/'}{request.policy_name}"
    return _iam(context, action, arn, request, identities.managed(arn))


def _all(kind: str) -> Ask:
    def ask(context: RequestContext, request: Any, action: str, _: Identities) -> Question:
        prefix = request.path_prefix or "/"
        return _iam(context, action, f"arn:aws:iam::{context.account}:{kind}{prefix}", request)

    return ask


_BY_ROLE: Final = (
    "AttachRolePolicy CreateRole DeleteRole DeleteRolePermissionsBoundary DeleteRolePolicy DetachRolePolicy "
    "GetRole GetRolePolicy ListAttachedRolePolicies ListInstanceProfilesForRole ListRolePolicies "
    "ListRoleTags PutRolePermissionsBoundary PutRolePolicy TagRole UntagRole UpdateAssumeRolePolicy "
    "UpdateRole UpdateRoleDescription"
)
_BY_USER: Final = (
    "AttachUserPolicy CreateAccessKey CreateUser DeleteAccessKey DeleteUser DeleteUserPermissionsBoundary "
    "DeleteUserPolicy DetachUserPolicy GetUser GetUserPolicy ListAccessKeys ListAttachedUserPolicies "
    "ListGroupsForUser ListUserPolicies ListUserTags PutUserPermissionsBoundary PutUserPolicy TagUser "
    "UntagUser UpdateAccessKey"
)
_BY_POLICY: Final = (
    "CreatePolicy CreatePolicyVersion DeletePolicy DeletePolicyVersion GetPolicy GetPolicyVersion "
    "ListEntitiesForPolicy ListPolicyTags ListPolicyVersions SetDefaultPolicyVersion TagPolicy UntagPolicy"
)

IAM_ACTIONS: Final[dict[str, Ask]] = {
    **dict.fromkeys(_BY_ROLE.split(), _role),
    **dict.fromkeys(_BY_USER.split(), _user),
    **dict.fromkeys(_BY_POLICY.split(), _policy),
    "ListRoles": _all("role"),
    "ListUsers": _all("user"),
    "ListPolicies": _all("policy"),
}

STS_UNCHECKED: Final = frozenset({"AssumeRole", "GetCallerIdentity", "GetSessionToken"})
"""AssumeRole decides by itself, by the role's trust; the others need no permission."""
