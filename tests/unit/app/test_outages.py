"""What callers are told of the service's own troubles."""

import errno

import pytest

from stoker.api.errors import internal_failure
from stoker.core.disk import disk_full
from stoker.services.object_store import ObjectStoreFull, ObjectStoreUnavailable
from stoker.services.outages import outage


def raised_from(cause: BaseException) -> BaseException:
    """An error of two more layers."""
    try:
        try:
            raise ValueError("of /var/lib/secret") from cause
        except ValueError as problem:
            raise RuntimeError("x") from problem
    except RuntimeError as problem:
        return problem


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/var/lib/secret"), "no space is left on the disk"),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "/var/lib/secret"), "the disk quota is used up"),
        (ObjectStoreFull("the disk quota is used up", "/var/lib/secret"), "the disk quota is used up"),
        (
            ObjectStoreUnavailable("s3://secret: refused"),
            "the object store of the service does not answer",
        ),
    ],
)
def test_outages_are_said_without_places(problem: BaseException, words: str) -> None:
    for each in (problem, raised_from(problem)):
        assert outage(each) == words
        answer = internal_failure("lambda", each)
        assert answer.message == f"The request cannot be processed: {words}."
        assert answer.code == "ServiceException"


def test_anything_else_is_not_told() -> None:
    for problem in (OSError(errno.EACCES, "denied"), ValueError("secret")):
        assert outage(problem) is None
        told = internal_failure("lambda", problem).message
        assert told == "An error occurred and the request cannot be processed."


def test_other_errors_are_not_of_the_disk() -> None:
    assert disk_full(errno.EIO) is None
    assert disk_full(None) is None
