"""Versions and aliases through boto3: what is refused, what is paged, and which version runs."""

import json
import time
from collections import Counter
from typing import Any

import pytest

from tests.conformance.recorded import OTHER, answer, arn, created, invalid, not_found, refusal, settled
from tests.running import ACCOUNT, REGION, RunningStoker, python_zip

NAME = "versions"
ONLY_LATEST = (
    "Current operation does not support versions other than $LATEST. "
    "Please set the version to $LATEST or do not set a version in your request."
)
PROBE = """
import os
COUNT = 0
def lambda_handler(event, context):
    global COUNT
    COUNT += 1
    print("handled", event)
    return {
        "version": context.function_version,
        "variable": os.environ["AWS_LAMBDA_FUNCTION_VERSION"],
        "stream": context.log_stream_name,
        "arn": context.invoked_function_arn,
        "count": COUNT,
    }
"""


@pytest.fixture(scope="module")
def service(stoker: RunningStoker) -> Any:
    """A client, with a function that has versions 1 and 2 and the alias ``live`` on 1."""
    client = stoker.client("lambda")
    created(stoker, NAME, Code={"ZipFile": python_zip(PROBE)})
    publish(stoker, NAME, 2)
    client.create_alias(FunctionName=NAME, Name="live", FunctionVersion="1")
    return client


def publish(stoker: RunningStoker, name: str, count: int) -> None:
    service = stoker.client("lambda")
    for number in range(count):
        service.update_function_configuration(FunctionName=name, Description=f"{number}")
        settled(stoker, name)
        service.publish_version(FunctionName=name)


def invoke(service: Any, function: str, **more: Any) -> tuple[str, dict[str, Any]]:
    shown = service.invoke(FunctionName=function, **more)
    assert "FunctionError" not in shown
    return shown["ExecutedVersion"], json.loads(shown["Payload"].read())


def versions(service: Any, name: str, **paging: Any) -> list[str]:
    pages = service.get_paginator("list_versions_by_function").paginate(FunctionName=name, **paging)
    return [version["Version"] for page in pages for version in page["Versions"]]


def aliases(service: Any, name: str, **more: Any) -> list[str]:
    pages = service.get_paginator("list_aliases").paginate(FunctionName=name, **more)
    return [alias["Name"] for page in pages for alias in page["Aliases"]]


def test_nothing_new_is_published_twice(stoker: RunningStoker) -> None:
    service, name = stoker.client("lambda"), "versions-nothing-new"
    created(stoker, name)
    first = answer(service.publish_version, FunctionName=name, Description="one")
    again = answer(service.publish_version, FunctionName=name, Description="two")
    assert again == first
    assert versions(service, name) == ["$LATEST", "1"]
    same = answer(service.update_function_configuration, FunctionName=name, Description="other")
    assert same["HTTP"] == 200
    settled(stoker, name)
    assert service.publish_version(FunctionName=name)["Version"] == "2"
    service.delete_function(FunctionName=name, Qualifier="2")
    assert service.publish_version(FunctionName=name)["Version"] == "3"
    assert versions(service, name) == ["$LATEST", "1", "3"]


def test_versions_are_paged(stoker: RunningStoker) -> None:
    service, name = stoker.client("lambda"), "versions-paged"
    created(stoker, name)
    publish(stoker, name, 11)
    expected = ["$LATEST", *map(str, range(1, 12))]
    assert versions(service, name, PaginationConfig={"PageSize": 3}) == expected
    assert versions(service, name) == expected
    page = service.list_versions_by_function(FunctionName=name, MaxItems=12)
    assert "NextMarker" not in page
    assert answer(service.list_versions_by_function, FunctionName=name, Marker="?")["HTTP"] == 400
    pages = service.get_paginator("list_functions").paginate(
        FunctionVersion="ALL", PaginationConfig={"PageSize": 5}
    )
    every = [each for page in pages for each in page["Functions"] if each["FunctionName"] == name]
    assert [each["Version"] for each in every] == expected
    assert every[0]["FunctionArn"] == f"{arn(name)}:$LATEST"
    assert every[10]["FunctionArn"] == f"{arn(name)}:10"


@pytest.mark.parametrize("qualifier", ["1", "live", "none"])
@pytest.mark.parametrize(
    ("operation", "members"),
    [
        ("update_function_code", {"ZipFile": OTHER}),
        ("update_function_configuration", {"Timeout": 5}),
        ("publish_version", {}),
        ("list_versions_by_function", {}),
    ],
)
def test_only_latest_changes(service: Any, operation: str, members: dict[str, Any], qualifier: str) -> None:
    refused = answer(getattr(service, operation), FunctionName=f"{NAME}:{qualifier}", **members)
    assert refused == invalid(ONLY_LATEST)


def test_what_is_not_there(service: Any) -> None:
    for operation in ("publish_version", "list_versions_by_function"):
        assert answer(getattr(service, operation), FunctionName="no-such") == not_found("no-such")
    mismatch = invalid("The derived qualifier from the function name does not match the specified qualifier.")
    assert answer(service.get_alias, FunctionName=f"{NAME}:1", Name="live") == mismatch
    assert answer(service.list_aliases, FunctionName=f"{NAME}:1") == mismatch
    assert answer(service.get_function, FunctionName=f"{NAME}:1", Qualifier="2") == mismatch


@pytest.mark.parametrize(
    "function",
    ["{0}:{1}", f"{ACCOUNT}:function:{{0}}:{{1}}", f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{{0}}:{{1}}"],
)
def test_every_way_to_name_a_version(service: Any, function: str) -> None:
    for qualifier, version in (("1", "1"), ("live", "1"), ("$LATEST", "$LATEST")):
        shown = service.get_function(FunctionName=function.format(NAME, qualifier))["Configuration"]
        assert (shown["FunctionArn"], shown["Version"]) == (f"{arn(NAME)}:{qualifier}", version)
        executed, seen = invoke(service, function.format(NAME, qualifier))
        assert executed == seen["version"] == seen["variable"] == version
        assert f"[{version}]" in seen["stream"]
        assert seen["arn"] == f"{arn(NAME)}:{qualifier}"


def test_a_version_in_use_is_kept(service: Any, stoker: RunningStoker) -> None:
    name = "versions-in-use"
    created(stoker, name)
    publish(stoker, name, 3)
    weights = {"AdditionalVersionWeights": {"2": 0.5}}
    service.create_alias(FunctionName=name, Name="one", FunctionVersion="1", RoutingConfig=weights)
    service.create_alias(FunctionName=name, Name="two", FunctionVersion="1")
    for version, users in (("1", "one, two"), ("2", "one")):
        words = f"Unable to delete version because the following aliases reference it: [{users}]"
        refused = answer(service.delete_function, FunctionName=name, Qualifier=version)
        assert refused == refusal("ResourceConflictException", words, 409, Type="User", message=words)
    assert answer(service.delete_function, FunctionName=f"{name}:3")["HTTP"] == 204
    assert answer(service.delete_function, FunctionName=name, Qualifier="3")["HTTP"] == 204
    assert answer(service.delete_function, FunctionName=name, Qualifier="one") == invalid(
        "Deletion of aliases is not currently supported."
    )
    assert answer(service.delete_function, FunctionName=name, Qualifier="$LATEST") == invalid(
        "$LATEST version cannot be deleted without deleting the function."
    )
    assert versions(service, name) == ["$LATEST", "1", "2"]
    assert aliases(service, name) == ["one", "two"]
    assert aliases(service, name, FunctionVersion="2") == ["one"]
    service.delete_function(FunctionName=name)
    assert answer(service.get_alias, FunctionName=name, Name="one")["HTTP"] == 404
    created(stoker, name)
    assert service.publish_version(FunctionName=name)["Version"] == "1"
    assert aliases(service, name) == []


def test_an_alias_through_its_life(service: Any) -> None:
    named = {"FunctionName": NAME, "Name": "moving"}
    service.create_alias(FunctionVersion="1", Description="first", **named)
    routed = answer(service.update_alias, RoutingConfig={"AdditionalVersionWeights": {"2": 0.1}}, **named)
    assert (routed["FunctionVersion"], routed["Description"]) == ("1", "first")
    assert routed["RoutingConfig"] == {"AdditionalVersionWeights": {"2": 0.1}}
    assert answer(service.update_alias, FunctionVersion="2", **named) == invalid(
        "Invalid function version 2. Function version 2 is already included in routing configuration."
    )
    assert answer(service.update_alias, FunctionVersion="9", **named) == not_found(f"{NAME}:9")
    cleared = answer(service.update_alias, FunctionVersion="2", RoutingConfig={}, **named)
    assert (cleared["FunctionVersion"], cleared.get("RoutingConfig")) == ("2", None)
    assert answer(service.get_alias, **named) == cleared
    assert invoke(service, NAME, Qualifier="moving")[0] == "2"
    service.update_alias(FunctionVersion="1", **named)
    assert invoke(service, NAME, Qualifier="moving")[0] == "1"
    assert answer(service.delete_alias, **named) == {"HTTP": 204}
    assert answer(service.invoke, FunctionName=NAME, Qualifier="moving") == not_found(f"{NAME}:moving")


def test_a_new_alias_inherits_no_policy(service: Any) -> None:
    named = {"FunctionName": NAME, "Name": "granted"}
    service.create_alias(FunctionVersion="1", **named)
    grant = {"StatementId": "s", "Action": "lambda:InvokeFunction", "Principal": "s3.amazonaws.com"}
    service.add_permission(FunctionName=NAME, Qualifier="granted", **grant)
    service.delete_alias(**named)
    service.create_alias(FunctionVersion="2", **named)
    assert answer(service.get_policy, FunctionName=NAME, Qualifier="granted")["HTTP"] == 404


def test_aliases_are_paged(service: Any, stoker: RunningStoker) -> None:
    name = "versions-aliases-paged"
    created(stoker, name)
    service.publish_version(FunctionName=name)
    names = [f"alias-{number:02}" for number in range(7)]
    for each in names:
        service.create_alias(FunctionName=name, Name=each, FunctionVersion="1")
    assert aliases(service, name, PaginationConfig={"PageSize": 3}) == names
    assert aliases(service, name, FunctionVersion="1", PaginationConfig={"PageSize": 3}) == names
    assert aliases(service, name, FunctionVersion="$LATEST") == []


def test_weights_share_invocations_out(service: Any) -> None:
    weights = {"AdditionalVersionWeights": {"2": 0.5}}
    service.create_alias(FunctionName=NAME, Name="split", FunctionVersion="1", RoutingConfig=weights)
    counts: Counter[str] = Counter()
    for _ in range(60):
        executed, seen = invoke(service, NAME, Qualifier="split")
        assert executed == seen["version"]
        counts[executed] += 1
    assert set(counts) == {"1", "2"}
    assert 12 <= counts["1"] <= 48


def test_other_versions_stay_warm(service: Any, stoker: RunningStoker) -> None:
    name = "versions-warm"
    created(stoker, name, Code={"ZipFile": python_zip(PROBE)})
    service.publish_version(FunctionName=name)
    assert invoke(service, name, Qualifier="1")[1]["count"] == 1
    assert invoke(service, name)[1]["count"] == 1
    publish(stoker, name, 1)
    service.create_alias(FunctionName=name, Name="live", FunctionVersion="1")
    service.update_alias(FunctionName=name, Name="live", FunctionVersion="2")
    service.update_function_configuration(FunctionName=name, MemorySize=256)
    settled(stoker, name)
    assert invoke(service, name, Qualifier="1")[1]["count"] == 2
    assert invoke(service, name)[1]["count"] == 1
    assert invoke(service, name, Qualifier="live")[1]["count"] == 1
    assert service.get_function_configuration(FunctionName=name, Qualifier="1")["MemorySize"] == 128


def test_an_event_runs_what_its_alias_stands_for(service: Any, stoker: RunningStoker) -> None:
    service.create_alias(FunctionName=NAME, Name="events", FunctionVersion="2")
    sent = service.invoke(FunctionName=NAME, Qualifier="events", InvocationType="Event", Payload=b'"event-1"')
    assert sent["StatusCode"] == 202
    refused = answer(service.invoke, FunctionName=NAME, Qualifier="none", InvocationType="Event")
    assert refused == not_found(f"{NAME}:none")
    logs, deadline = stoker.client("logs"), time.monotonic() + 20
    while time.monotonic() < deadline:
        found = logs.filter_log_events(logGroupName=f"/aws/lambda/{NAME}", filterPattern='"event-1"')[
            "events"
        ]
        if found:
            assert "[2]" in found[0]["logStreamName"]
            return
        time.sleep(0.1)
    raise AssertionError("the event was not run")


def test_members_are_shown_and_published(service: Any, stoker: RunningStoker) -> None:
    name, queue = "versions-members", f"arn:aws:sqs:{REGION}:{ACCOUNT}:dead"
    files = [{"Arn": f"arn:aws:elasticfilesystem:{REGION}:{ACCOUNT}:access-point/fsap-{'0' * 17}"}]
    files[0]["LocalMountPath"] = "/mnt/data"
    given = {
        "DeadLetterConfig": {"TargetArn": queue},
        "FileSystemConfigs": files,
        "TracingConfig": {"Mode": "Active"},
    }
    created(stoker, name, **given)
    service.publish_version(FunctionName=name)
    cleared = {"DeadLetterConfig": {"TargetArn": ""}, "FileSystemConfigs": []}
    service.update_function_configuration(FunctionName=name, **cleared)
    latest = settled(stoker, name)
    version = service.get_function_configuration(FunctionName=name, Qualifier="1")
    assert {member: version[member] for member in given} == given
    assert [member for member in cleared if member in latest] == []
    assert latest["TracingConfig"] == {"Mode": "Active"}
