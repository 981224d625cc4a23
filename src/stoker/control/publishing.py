"""When $LATEST becomes a new version, and what that version is. Pure; the store runs it in a transaction."""

import msgspec

from stoker.control.messages import revision_mismatch
from stoker.control.records import ACTIVE, CREATING, SUCCESSFUL, check_settled, shown_time, with_next_image
from stoker.core.errors import invalid_parameter
from stoker.services.functions import FunctionVersion, Publication, RevisionMismatch

_OWN = (
    "version",
    "deployment_id",
    "revision_id",
    "last_modified",
    "state",
    "last_update",
    "description",
    "source_description",
)
"""Members in which a version differs from the $LATEST that it was published from."""


class NewVersion(msgspec.Struct, frozen=True, kw_only=True):
    """What a version gets that $LATEST does not have."""

    revision_id: str
    deployment_id: str
    now_s: float
    description: str | None = None
    """Replaces the description that $LATEST has."""


class Guards(msgspec.Struct, frozen=True, kw_only=True):
    """What must hold of $LATEST for PublishVersion to go on."""

    code_sha256: str | None = None
    revision_id: str | None = None


def published_version(source: FunctionVersion, number: int, new: NewVersion) -> FunctionVersion:
    """A version from a $LATEST that is ready, and so ready itself, or from one that is not yet: Pending."""
    ready = source.state == ACTIVE and source.last_update in (None, SUCCESSFUL)
    return msgspec.structs.replace(
        with_next_image(source),
        version=str(number),
        revision_id=new.revision_id,
        deployment_id=new.deployment_id,
        last_modified=shown_time(new.now_s),
        description=source.description if new.description is None else new.description,
        source_description=source.description,
        state=ACTIVE if ready else CREATING,
        last_update=SUCCESSFUL if ready else None,
    )


def is_unchanged(source: FunctionVersion, newest: FunctionVersion | None) -> bool:
    """Whether code and configuration are what the newest version was published from."""
    if newest is None or newest.source_description != source.description:
        return False
    own = {name: getattr(source, name) for name in _OWN}
    return msgspec.structs.replace(newest, **own) == source


def publication(
    stored: FunctionVersion,
    newest: FunctionVersion | None,
    number: int,
    *,
    guards: Guards,
    new: NewVersion,
    latest_revision_id: str,
) -> Publication:
    """PublishVersion: a new version, or the newest one when nothing has changed since.

    Raises:
        ServiceError: a guard does not hold, or $LATEST is being created or updated.
    """
    if guards.revision_id is not None and guards.revision_id != stored.revision_id:
        raise revision_mismatch()
    if guards.code_sha256 is not None and guards.code_sha256 != stored.code_sha256:
        raise invalid_parameter(
            f"CodeSHA256 ({guards.code_sha256}) is different from current CodeSHA256 in $LATEST "
            f"({stored.code_sha256}). Please try again with the CodeSHA256 in $LATEST."
        )
    check_settled(stored)
    if is_unchanged(stored, newest):
        return Publication(latest=stored, existing=newest)
    latest = msgspec.structs.replace(stored, revision_id=latest_revision_id)
    return Publication(latest=latest, published=published_version(stored, number, new))


def update_publication(
    stored: FunctionVersion,
    newest: FunctionVersion | None,
    number: int,
    *,
    updated: FunctionVersion,
    expected_revision_id: str,
    new: NewVersion,
) -> Publication:
    """An update of $LATEST that is published at once.

    Raises:
        RevisionMismatch: $LATEST is not the one that ``updated`` was made from.
    """
    if stored.revision_id != expected_revision_id:
        raise RevisionMismatch(stored.arn)
    if is_unchanged(with_next_image(updated), newest):
        return Publication(latest=updated, existing=newest)
    return Publication(latest=updated, published=published_version(updated, number, new))
