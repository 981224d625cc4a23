"""What operations of IAM share: errors in IAM's words, pages, tags, identities as they are shown. Pure."""

import base64
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, TypeVar
from urllib.parse import quote

from stoker.core.errors import ServiceError
from stoker.core.policy.documents import IDENTITY, MalformedPolicy, read_policy
from stoker.services import iam_types as types
from stoker.services.identity import Identity, ManagedPolicy, Role, User

PAGE_DEFAULT: Final = 100
TAGS_MAX: Final = 50

Item = TypeVar("Item")


def missing(message: str) -> ServiceError:
    """404 NoSuchEntity."""
    return ServiceError("NoSuchEntity", message)


def exists(message: str) -> ServiceError:
    """409 EntityAlreadyExists."""
    return ServiceError("EntityAlreadyExists", message)


def in_the_way(message: str) -> ServiceError:
    """409 DeleteConflict."""
    return ServiceError("DeleteConflict", message)


def over_quota(quota: str, maximum: int) -> ServiceError:
    """409 LimitExceeded."""
    return ServiceError("LimitExceeded", f"Cannot exceed quota for {quota}: {maximum}")


def invalid(message: str) -> ServiceError:
    """400 ValidationError."""
    return ServiceError("ValidationError", message)


def check_document(text: str, kind: str = IDENTITY) -> None:
    """Raises MalformedPolicyDocument with IAM's words for what no policy of the kind is."""
    try:
        read_policy(text, kind)
    except MalformedPolicy as problem:
        raise ServiceError("MalformedPolicyDocument", str(problem)) from problem


def unique_id(prefix: str, seed: str) -> str:
    """An id as IAM gives them (AROA..., AIDA..., ANPA...), from a fresh UUID."""
    return prefix + base64.b32encode(hashlib.sha256(seed.encode()).digest()).decode()[:17]


def page(
    items: Sequence[Item], name: Callable[[Item], str], marker: str | None, max_items: int | None
) -> tuple[Sequence[Item], str | None]:
    """The items behind ``marker``, as many as asked for, and the marker of the rest; sorted by name before.

    Raises:
        ServiceError: a marker that was not given.
    """
    after = ""
    if marker is not None:
        try:
            after = base64.b64decode(marker, altchars=b"-_", validate=True).decode()
        except ValueError:
            raise invalid("Invalid Marker.") from None
    left = [item for item in items if name(item) > after]
    limit = max_items or PAGE_DEFAULT
    if len(left) <= limit:
        return left, None
    shown = left[:limit]
    return shown, base64.urlsafe_b64encode(name(shown[-1]).encode()).decode()


def merged_tags(stored: Mapping[str, str], given: Iterable[types.Tag] | None) -> dict[str, str]:
    """The tags with those of the request.

    Raises:
        ServiceError: a key twice, or too many of them.
    """
    added = list(given or ())
    keys = [tag.key for tag in added]
    if len({key.lower() for key in keys}) != len(keys):
        raise ServiceError(
            "InvalidInput", "Duplicate tag keys found. Please note that Tag keys are case insensitive."
        )
    merged = {**stored, **{tag.key: tag.value for tag in added}}
    if len(merged) > TAGS_MAX:
        raise ServiceError(
            "LimitExceeded", f"The number of tags has reached the maximum limit of {TAGS_MAX}."
        )
    return merged


def shown_tags(tags: Mapping[str, str]) -> tuple[types.Tag, ...]:
    """Tags as records."""
    return tuple(types.Tag(key=key, value=value) for key, value in sorted(tags.items()))


def encoded(document: str) -> str:
    """A policy document as IAM shows it: percent-encoded."""
    return quote(document, safe="")


def _boundary(identity: Identity) -> types.AttachedPermissionsBoundary | None:
    if not identity.boundary:
        return None
    return types.AttachedPermissionsBoundary(
        permissions_boundary_type="Policy", permissions_boundary_arn=identity.boundary
    )


def shown_role(role: Role, *, listed: bool = False) -> types.Role:
    """A role; lists leave out tags and boundary."""
    return types.Role(
        path=role.path,
        role_name=role.name,
        role_id=role.unique_id,
        arn=role.arn,
        create_date=role.created_at_s,
        assume_role_policy_document=encoded(role.trust),
        description=role.description,
        max_session_duration=role.max_session_s,
        permissions_boundary=None if listed else _boundary(role),
        tags=None if listed or not role.tags else shown_tags(role.tags),
        role_last_used=None if listed else types.RoleLastUsed(),
    )


def shown_user(user: User, *, listed: bool = False) -> types.User:
    """A user; lists leave out tags and boundary."""
    return types.User(
        path=user.path,
        user_name=user.name,
        user_id=user.unique_id,
        arn=user.arn,
        create_date=user.created_at_s,
        permissions_boundary=None if listed else _boundary(user),
        tags=None if listed or not user.tags else shown_tags(user.tags),
    )


def shown_policy(
    policy: ManagedPolicy, attachments: int, boundaries: int, *, listed: bool = False
) -> types.Policy:
    """A managed policy; lists leave out description and tags."""
    return types.Policy(
        policy_name=policy.name,
        policy_id=policy.unique_id,
        arn=policy.arn,
        path=policy.path,
        default_version_id=policy.default_version,
        attachment_count=attachments,
        permissions_boundary_usage_count=boundaries,
        is_attachable=True,
        description=None if listed else policy.description,
        create_date=policy.created_at_s,
        update_date=policy.updated_at_s,
        tags=None if listed or not policy.tags else shown_tags(policy.tags),
    )
