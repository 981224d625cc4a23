"""Functions through their life, every answer compared member by member with what AWS answered (recorded)."""

import base64
import hashlib
import urllib.request

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
from tests.running import RunningStoker, node_runtime

LOCATION = {"RepositoryType": "S3"}
CHANGED = {
    "Description": "Changed-Description",
    "Environment": {"Variables": {"ENV_A": "a"}},
    "MemorySize": 512,
    "Timeout": 10,
    "Runtime": node_runtime() or "provided.al2023",
}
WRONG_REVISION = refusal(
    "PreconditionFailedException",
    "The Revision Id provided does not match the latest Revision Id. "
    "Call the GetFunction/GetAlias API to retrieve the latest Revision Id",
    412,
    Type="User",
    message="The Revision Id provided does not match the latest Revision Id. "
    "Call the GetFunction/GetAlias API to retrieve the latest Revision Id",
)


def get(stoker: RunningStoker, name: str, **qualified: str) -> dict[str, object]:
    """GetFunction's answer without the URL, which differs at every call."""
    shown = answer(stoker.client("lambda").get_function, FunctionName=name, **qualified)
    assert shown["Code"].pop("Location").startswith("http")
    return shown


def test_the_life_of_a_function(stoker: RunningStoker) -> None:
    service, name = stoker.client("lambda"), "recorded-life"
    given = {"Environment": {"Variables": {}}, "MemorySize": 256, "Timeout": 5}
    assert answer(service.create_function, **creation(name, **given)) == {
        **configuration(name, given, PENDING),
        "HTTP": 201,
    }
    settled(stoker, name)
    expected = {"Code": LOCATION, "HTTP": 200}
    assert get(stoker, name) == {**expected, "Configuration": configuration(name, given, ACTIVE)}
    assert answer(service.update_function_configuration, FunctionName=name, **CHANGED) == {
        **configuration(name, CHANGED, UPDATING),
        "HTTP": 200,
    }
    settled(stoker, name)
    assert get(stoker, name) == {**expected, "Configuration": configuration(name, CHANGED, ACTIVE)}
    coded = {**CHANGED, "CodeSize": len(OTHER)}
    assert answer(service.update_function_code, FunctionName=name, ZipFile=OTHER) == {
        **configuration(name, coded, UPDATING),
        "HTTP": 200,
    }
    settled(stoker, name)
    assert get(stoker, name) == {**expected, "Configuration": configuration(name, coded, ACTIVE)}
    assert answer(service.delete_function, FunctionName=name) == {"StatusCode": 204, "HTTP": 204}
    assert answer(service.delete_function, FunctionName=name) == not_found(name)


def test_an_update_that_changes_nothing_is_an_update(stoker: RunningStoker) -> None:
    service, name = stoker.client("lambda"), "recorded-redundant"
    revisions = [created(stoker, name, Description="Initial description")["RevisionId"]]
    revisions.append(settled(stoker, name)["RevisionId"])
    for _ in range(2):
        update = answer(service.update_function_configuration, FunctionName=name, Description="1st")
        assert update == {**configuration(name, UPDATING, Description="1st"), "HTTP": 200}
        settled(stoker, name)
        after = answer(service.get_function_configuration, FunctionName=name)
        assert after == {**configuration(name, ACTIVE, Description="1st"), "HTTP": 200}
        assert get(stoker, name)["Configuration"] == {k: v for k, v in after.items() if k != "HTTP"}
        revisions += [update["RevisionId"], after["RevisionId"]]
    assert len(set(revisions)) == 6, "every step has a revision of its own"


def test_revisions(stoker: RunningStoker) -> None:
    service, name = stoker.client("lambda"), "recorded-revisions"
    first = created(stoker, name)["RevisionId"]
    second = get(stoker, name)["Configuration"]["RevisionId"]  # type: ignore[index]
    code = {"FunctionName": name, "ZipFile": ECHO}
    assert answer(service.update_function_code, RevisionId=first, **code) == WRONG_REVISION
    third = answer(service.update_function_code, RevisionId=second, **code)
    assert third == {**configuration(name, UPDATING), "HTTP": 200}
    fourth = settled(stoker, name)["RevisionId"]
    change = {"FunctionName": name, "Runtime": "provided.al2023"}
    assert (
        answer(service.update_function_configuration, RevisionId=third["RevisionId"], **change)
        == WRONG_REVISION
    )
    fifth = answer(service.update_function_configuration, RevisionId=fourth, **change)
    assert fifth == {**configuration(name, UPDATING, Runtime="provided.al2023"), "HTTP": 200}
    sixth = settled(stoker, name)["RevisionId"]
    assert len({first, second, third["RevisionId"], fourth, fifth["RevisionId"], sixth}) == 6


def test_a_list_shows_neither_states_nor_runtime_versions(stoker: RunningStoker) -> None:
    service = stoker.client("lambda")
    names = ["recorded-list-1", "recorded-list-2"]
    for name in names:
        created(stoker, name, Environment={"Variables": {}}, Timeout=30)
    for version in (None, "ALL"):
        pages = service.get_paginator("list_functions").paginate(
            **({} if version is None else {"FunctionVersion": version})
        )
        found = {shown["FunctionName"]: shown for page in pages for shown in page["Functions"]}
        for name in names:
            assert found[name] == configuration(
                name,
                Environment={"Variables": {}},
                Timeout=30,
                RuntimeVersionConfig=None,
                FunctionArn=arn(name) if version is None else f"{arn(name)}:$LATEST",
            )


def test_code_is_found_at_its_location(stoker: RunningStoker) -> None:
    service, name = stoker.client("lambda"), "recorded-location"
    created(stoker, name)
    for archive in (ECHO, OTHER):
        service.update_function_code(FunctionName=name, ZipFile=archive)
        settled(stoker, name)
        shown = service.get_function(FunctionName=name)
        with urllib.request.urlopen(shown["Code"]["Location"]) as download:
            assert download.read() == archive
        digest = base64.b64encode(hashlib.sha256(archive).digest()).decode()
        found = shown["Configuration"]
        assert (found["CodeSha256"], found["CodeSize"]) == (digest, len(archive))


def test_a_version_that_does_not_exist(stoker: RunningStoker) -> None:
    service, name = stoker.client("lambda"), "recorded-versions"
    created(stoker, name)
    for call in (service.get_function, service.get_function_configuration):
        assert answer(call, FunctionName=name, Qualifier="1221") == not_found(f"{name}:1221")
    deletion = {"FunctionName": name, "Qualifier": "1233"}
    assert answer(service.delete_function, **deletion)["HTTP"] == 204
    assert get(stoker, name, Qualifier="$LATEST")["Configuration"] == configuration(
        name, ACTIVE, FunctionArn=f"{arn(name)}:$LATEST"
    )


@pytest.mark.parametrize(
    "operation",
    [
        "delete_function",
        "get_function",
        "get_function_configuration",
        "get_function_concurrency",
        "delete_function_concurrency",
        "invoke",
    ],
)
def test_a_function_that_does_not_exist(stoker: RunningStoker, operation: str) -> None:
    call = getattr(stoker.client("lambda"), operation)
    assert answer(call, FunctionName="recorded-nothing") == not_found("recorded-nothing")


def test_tags_of_a_creation_are_shown(stoker: RunningStoker) -> None:
    service, name = stoker.client("lambda"), "recorded-tagged"
    created(stoker, name, Tags={"testtag": "custom"})
    assert get(stoker, name) == {
        "Code": LOCATION,
        "Configuration": configuration(name, ACTIVE),
        "Tags": {"testtag": "custom"},
        "HTTP": 200,
    }
    assert answer(service.list_tags, Resource=arn(name)) == {"Tags": {"testtag": "custom"}, "HTTP": 200}


def test_account_settings_have_these_members(stoker: RunningStoker) -> None:
    shown = answer(stoker.client("lambda").get_account_settings)
    assert {member: sorted(value) for member, value in shown.items() if member != "HTTP"} == {
        "AccountLimit": [
            "CodeSizeUnzipped",
            "CodeSizeZipped",
            "ConcurrentExecutions",
            "TotalCodeSize",
            "UnreservedConcurrentExecutions",
        ],
        "AccountUsage": ["FunctionCount", "TotalCodeSize"],
    }
    limits = shown["AccountLimit"]
    assert limits["CodeSizeUnzipped"] == 262_144_000
    assert limits["CodeSizeZipped"] == 52_428_800


def test_reserved_concurrency(stoker: RunningStoker) -> None:
    service, name = stoker.client("lambda"), "recorded-reserved"
    created(stoker, name)
    here = {"FunctionName": name}
    reserved = {"ReservedConcurrentExecutions": 0, "HTTP": 200}
    assert answer(service.get_function_concurrency, **here) == {"HTTP": 200}
    assert answer(service.put_function_concurrency, ReservedConcurrentExecutions=0, **here) == reserved
    assert answer(service.get_function_concurrency, **here) == reserved
    assert answer(service.invoke, **here) == refusal(
        "TooManyRequestsException",
        "Rate Exceeded.",
        429,
        Reason="ReservedFunctionConcurrentInvocationLimitExceeded",
        Type="User",
        message="Rate Exceeded.",
    )
    assert answer(service.delete_function_concurrency, **here)["HTTP"] == 204
    assert answer(service.get_function_concurrency, **here) == {"HTTP": 200}


def test_reservations_leave_a_hundred_unreserved(stoker: RunningStoker) -> None:
    service, name = stoker.client("lambda"), "recorded-greedy"
    created(stoker, name)
    message = (
        "Specified ReservedConcurrentExecutions for function decreases account's "
        "UnreservedConcurrentExecution below its minimum value of [100]."
    )
    assert answer(
        service.put_function_concurrency, FunctionName=name, ReservedConcurrentExecutions=901
    ) == refusal("InvalidParameterValueException", message, message=message)


def test_snap_start_of_a_runtime_that_has_none(stoker: RunningStoker) -> None:
    service, name = stoker.client("lambda"), "recorded-snap"
    created(stoker, name)
    assert answer(
        service.update_function_configuration, FunctionName=name, SnapStart={"ApplyOn": "PublishedVersions"}
    ) == invalid(f"{settled(stoker, name)['Runtime']} is not supported for SnapStart enabled functions.")
