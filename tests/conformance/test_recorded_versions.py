"""Published versions, every answer compared member by member with what AWS answered (recorded)."""

import base64
import hashlib
import json
from typing import Any

import pytest

from tests.conformance.recorded import (
    ACTIVE,
    ECHO,
    OTHER,
    PENDING,
    UPDATING,
    answer,
    arn,
    configuration,
    created,
    creation,
    invalid,
    not_found,
    refusal,
    settled,
)
from tests.running import RunningStoker, python_zip

LOCATION = {"RepositoryType": "S3"}
REVISION = (
    "The Revision Id provided does not match the latest Revision Id. "
    "Call the GetFunction/GetAlias API to retrieve the latest Revision Id"
)
WRONG_REVISION = refusal("PreconditionFailedException", REVISION, 412, Type="User", message=REVISION)
UNLISTED = dict.fromkeys(
    ("State", "StateReason", "StateReasonCode", "LastUpdateStatus", "RuntimeVersionConfig"), None
)


def published(name: str, number: str, *changes: dict[str, Any]) -> dict[str, Any]:
    """A version as the API shows it."""
    return configuration(name, ACTIVE, {"FunctionArn": f"{arn(name)}:{number}", "Version": number}, *changes)


def get(stoker: RunningStoker, name: str, **qualified: str) -> dict[str, Any]:
    """GetFunction's configuration."""
    shown = answer(stoker.client("lambda").get_function, FunctionName=name, **qualified)
    assert shown["Code"].pop("Location").startswith("http")
    assert shown["Code"] == LOCATION
    return shown["Configuration"]


def test_publishing_is_guarded_by_the_revision(stoker: RunningStoker) -> None:
    service, name = stoker.client("lambda"), "recorded-publish-revision"
    created(stoker, name)
    revision = get(stoker, name)["RevisionId"]
    refused = answer(service.publish_version, FunctionName=name, RevisionId="doesntexist")
    assert refused == WRONG_REVISION
    shown = answer(service.publish_version, FunctionName=name, RevisionId=revision)
    assert shown == {**published(name, "1"), "HTTP": 201}


def test_publishing_is_guarded_by_the_code(stoker: RunningStoker) -> None:
    service, name = stoker.client("lambda"), "recorded-publish-sha256"
    created(stoker, name)
    sha256 = base64.b64encode(hashlib.sha256(ECHO).digest()).decode()
    assert answer(service.publish_version, FunctionName=name, CodeSha256="somenonexistentsha256") == invalid(
        "CodeSHA256 (somenonexistentsha256) is different from current CodeSHA256 in $LATEST "
        f"({sha256}). Please try again with the CodeSHA256 in $LATEST."
    )
    shown = answer(service.publish_version, FunctionName=name, CodeSha256=sha256)
    assert shown == {**published(name, "1"), "HTTP": 201}


def test_an_update_can_be_published(stoker: RunningStoker) -> None:
    service, name = stoker.client("lambda"), "recorded-publish-update"
    created(stoker, name)
    before = get(stoker, name)
    shown = answer(service.update_function_code, FunctionName=name, ZipFile=OTHER, Publish=True)
    coded = {"CodeSize": len(OTHER)}
    pending = {"LastUpdateStatus": None, **PENDING}
    assert shown == {**published(name, "1", coded, pending), "HTTP": 200}
    service.get_waiter("published_version_active").wait(FunctionName=name, Qualifier="1")
    settled(stoker, name)
    version, latest = get(stoker, name, Qualifier="1"), get(stoker, name, Qualifier="$LATEST")
    assert version == published(name, "1", coded)
    assert latest == configuration(name, ACTIVE, coded, FunctionArn=f"{arn(name)}:$LATEST")
    assert len({before["RevisionId"], version["RevisionId"], latest["RevisionId"]}) == 3


def test_a_function_can_be_created_published(stoker: RunningStoker) -> None:
    service, name = stoker.client("lambda"), "recorded-create-published"
    shown = answer(service.create_function, **creation(name, Publish=True))
    assert shown == {**configuration(name, PENDING, Version="1"), "HTTP": 201}
    service.get_waiter("published_version_active").wait(FunctionName=name, Qualifier="1")
    settled(stoker, name)
    assert get(stoker, name, Qualifier="1") == published(name, "1")
    assert get(stoker, name) == configuration(name, ACTIVE)
    listed = answer(service.list_versions_by_function, FunctionName=name)
    latest = configuration(name, FunctionArn=f"{arn(name)}:$LATEST", RuntimeVersionConfig=None)
    assert listed == {"Versions": [latest, published(name, "1", UNLISTED)], "HTTP": 200}
    every = [
        shown
        for page in service.get_paginator("list_functions").paginate(FunctionVersion="ALL")
        for shown in page["Functions"]
        if shown["FunctionName"] == name
    ]
    assert every == [latest, published(name, "1", UNLISTED)]


PROBE = """
def lambda_handler(event, context):
    arn = context.invoked_function_arn
    return {"version_id": "version%s", "invoked_arn": arn, "version_from_ctx": context.function_version}
"""


def invoked(stoker: RunningStoker, name: str, **qualified: str) -> tuple[str, dict[str, Any]]:
    shown = stoker.client("lambda").invoke(FunctionName=name, **qualified)
    assert shown["StatusCode"] == 200
    return shown["ExecutedVersion"], json.loads(shown["Payload"].read())


def expected(name: str, version: str, code: int, qualifier: str = "") -> tuple[str, dict[str, Any]]:
    invoked_arn = arn(name) + qualifier
    return version, {
        "version_id": f"version{code}",
        "invoked_arn": invoked_arn,
        "version_from_ctx": version,
    }


def test_versions_keep_their_code(stoker: RunningStoker) -> None:
    service, name = stoker.client("lambda"), "recorded-versions-code"
    zips = {number: python_zip(PROBE % number) for number in (1, 2, 3)}
    created(stoker, name, Code={"ZipFile": zips[1]}, Description="No version :(")
    first = {"CodeSize": len(zips[1]), "Description": "First version description :)"}
    assert answer(service.publish_version, FunctionName=name, Description="First version description :)") == {
        **published(name, "1", first),
        "HTTP": 201,
    }
    updated = answer(service.update_function_code, FunctionName=name, ZipFile=zips[2])
    described = {"CodeSize": len(zips[2]), "Description": "No version :("}
    assert updated == {**configuration(name, UPDATING, described), "HTTP": 200}
    settled(stoker, name)
    assert invoked(stoker, name) == expected(name, "$LATEST", 2)
    second = {"CodeSize": len(zips[2]), "Description": "Second version description :)"}
    assert answer(
        service.publish_version, FunctionName=name, Description="Second version description :)"
    ) == {**published(name, "2", second), "HTTP": 201}
    assert invoked(stoker, name, Qualifier="1") == expected(name, "1", 1, ":1")
    assert invoked(stoker, name, Qualifier="2") == expected(name, "2", 2, ":2")
    updated = answer(service.update_function_code, FunctionName=name, ZipFile=zips[3], Publish=True)
    described["CodeSize"] = len(zips[3])
    pending = {"LastUpdateStatus": None, **PENDING}
    assert updated == {**published(name, "3", described, pending), "HTTP": 200}
    assert invoked(stoker, name, Qualifier="3") == expected(name, "3", 3, ":3")
    settled(stoker, name)
    assert invoked(stoker, f"{name}:1") == expected(name, "1", 1, ":1")
    assert invoked(stoker, f"{arn(name)}:2") == expected(name, "2", 2, ":2")
    assert invoked(stoker, name) == expected(name, "$LATEST", 3)


def test_revisions_of_versions_and_aliases(stoker: RunningStoker) -> None:
    service, name = stoker.client("lambda"), "recorded-version-revisions"
    created(stoker, name)
    first = get(stoker, name)["RevisionId"]
    version = answer(service.publish_version, FunctionName=name, RevisionId=first)
    assert version == {**published(name, "1"), "HTTP": 201}
    assert get(stoker, name, Qualifier="1") == published(name, "1", {"RevisionId": version["RevisionId"]})
    second = get(stoker, name)["RevisionId"]
    assert len({first, second, version["RevisionId"]}) == 3
    assert answer(service.publish_version, FunctionName=name, RevisionId=first) == WRONG_REVISION
    assert get(stoker, name)["RevisionId"] == second
    alias = answer(service.create_alias, FunctionName=name, Name="revised", FunctionVersion="1")
    changed = {"FunctionName": name, "Name": "revised", "Description": "something changed"}
    updated = answer(service.update_alias, RevisionId=alias["RevisionId"], **changed)
    assert updated == {
        "AliasArn": f"{arn(name)}:revised",
        "Name": "revised",
        "FunctionVersion": "1",
        "Description": "something changed",
        "RevisionId": updated["RevisionId"],
        "HTTP": 200,
    }
    assert updated["RevisionId"] != alias["RevisionId"]
    assert answer(service.update_alias, RevisionId=alias["RevisionId"], **changed) == WRONG_REVISION
    assert get(stoker, name)["RevisionId"] == second


@pytest.mark.parametrize("operation", ["get_function", "get_function_configuration", "invoke"])
@pytest.mark.parametrize("qualifier", ["1221", "no-alias"])
def test_a_version_that_is_not_there(stoker: RunningStoker, operation: str, qualifier: str) -> None:
    service, name = stoker.client("lambda"), "recorded-no-version"
    if answer(service.get_function, FunctionName=name)["HTTP"] == 404:
        created(stoker, name)
    refused = answer(getattr(service, operation), FunctionName=name, Qualifier=qualifier)
    assert refused == not_found(f"{name}:{qualifier}")
