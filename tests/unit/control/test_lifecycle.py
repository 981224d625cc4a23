"""The life of a function, member by member as recorded from AWS Lambda."""

import asyncio
import base64
import hashlib
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from stoker.services.code import CodeMissing
from stoker.services.functions import LATEST, FunctionKey
from tests.unit.control.desk import ACCOUNT, REGION, ROLE, Desk, arn, zipped

KEY = FunctionKey(ACCOUNT, REGION, "fn")
PENDING = {
    "State": "Pending",
    "StateReason": "The function is being created.",
    "StateReasonCode": "Creating",
}
IN_PROGRESS = {
    "LastUpdateStatus": "InProgress",
    "LastUpdateStatusReason": "The function is being created.",
    "LastUpdateStatusReasonCode": "Creating",
}


def sha256(content: bytes) -> str:
    return base64.b64encode(hashlib.sha256(content).digest()).decode()


def configuration(**changes: Any) -> dict[str, Any]:
    """What Lambda shows of a function created with the mandatory members only."""
    shown = {
        "FunctionName": "fn",
        "FunctionArn": arn("fn"),
        "Runtime": "python3.12",
        "Role": ROLE,
        "Handler": "handler.handler",
        "CodeSize": len(zipped()),
        "Description": "",
        "Timeout": 3,
        "MemorySize": 128,
        "LastModified": "2026-01-31T12:00:00.250+0000",
        "CodeSha256": sha256(zipped()),
        "Version": "$LATEST",
        "TracingConfig": {"Mode": "PassThrough"},
        "RevisionId": "id-1",
        "PackageType": "Zip",
        "Architectures": ["x86_64"],
        "EphemeralStorage": {"Size": 512},
        "SnapStart": {"ApplyOn": "None", "OptimizationStatus": "Off"},
        "LoggingConfig": {"LogFormat": "Text", "LogGroup": "/aws/lambda/fn"},
    }
    return shown | changes


def without_runtime_version(shown: dict[str, Any]) -> dict[str, Any]:
    version = shown.pop("RuntimeVersionConfig")["RuntimeVersionArn"]
    assert version.startswith(f"arn:aws:lambda:{REGION}::runtime:")
    return shown


async def test_creation_answers_pending_with_every_default(desk: Desk) -> None:
    assert without_runtime_version(await desk.create()) == configuration(**PENDING)


async def test_creation_keeps_every_member(desk: Desk) -> None:
    created = await desk.create(
        Description="d",
        Timeout=900,
        MemorySize=10_240,
        EphemeralStorage={"Size": 10_240},
        Environment={"Variables": {"A": "b"}},
        Architectures=["x86_64"],
        LoggingConfig={"LogFormat": "JSON", "SystemLogLevel": "WARN", "LogGroup": "/g"},
        TracingConfig={"Mode": "Active"},
        VpcConfig={"SubnetIds": [], "SecurityGroupIds": []},
        KMSKeyArn="arn:aws:kms:x",
        PackageType="Zip",
        SnapStart={"ApplyOn": "PublishedVersions"},
        Layers=[],
    )
    assert without_runtime_version(created) == configuration(
        Description="d",
        Timeout=900,
        MemorySize=10_240,
        EphemeralStorage={"Size": 10_240},
        Environment={"Variables": {"A": "b"}},
        LoggingConfig={
            "LogFormat": "JSON",
            "ApplicationLogLevel": "INFO",
            "SystemLogLevel": "WARN",
            "LogGroup": "/g",
        },
        TracingConfig={"Mode": "Active"},
        VpcConfig={
            "SubnetIds": [],
            "SecurityGroupIds": [],
            "VpcId": "",
            "Ipv6AllowedForDualStack": False,
        },
        KMSKeyArn="arn:aws:kms:x",
        SnapStart={"ApplyOn": "PublishedVersions", "OptimizationStatus": "Off"},
        **PENDING,
    )


async def test_an_empty_environment_is_shown_as_such(desk: Desk) -> None:
    assert (await desk.create(Environment={"Variables": {}}))["Environment"] == {"Variables": {}}
    assert "Environment" not in await desk.create("other")


async def test_a_function_becomes_active_with_another_revision(desk: Desk) -> None:
    await desk.active()
    shown = await desk.ask("GetFunctionConfiguration", FunctionName="fn")
    assert without_runtime_version(shown) == configuration(
        State="Active", LastUpdateStatus="Successful", RevisionId="id-3"
    )


async def test_get_function_adds_code_tags_and_concurrency(desk: Desk) -> None:
    await desk.active()
    plain = await desk.ask("GetFunction", FunctionName="fn")
    assert set(plain) == {"Code", "Configuration"}
    assert set(plain["Code"]) == {"Location", "RepositoryType"}
    assert plain["Code"]["RepositoryType"] == "S3"
    await desk.ask("TagResource", Resource=arn("fn"), Tags={"a": "b"})
    await desk.ask("PutFunctionConcurrency", FunctionName="fn", ReservedConcurrentExecutions=0)
    full = await desk.ask("GetFunction", FunctionName="fn")
    assert full["Tags"] == {"a": "b"}
    assert full["Concurrency"] == {"ReservedConcurrentExecutions": 0}


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ({"FunctionName": "fn"}, arn("fn")),
        ({"FunctionName": arn("fn")}, arn("fn")),
        ({"FunctionName": f"{ACCOUNT}:function:fn"}, arn("fn")),
        ({"FunctionName": "fn", "Qualifier": "$LATEST"}, arn("fn") + ":$LATEST"),
        ({"FunctionName": "fn:$LATEST"}, arn("fn") + ":$LATEST"),
    ],
)
async def test_the_arn_is_qualified_as_the_caller_qualified_it(
    desk: Desk, given: dict[str, str], shown: str
) -> None:
    await desk.active()
    assert (await desk.ask("GetFunctionConfiguration", **given))["FunctionArn"] == shown
    assert (await desk.ask("GetFunction", **given))["Configuration"]["FunctionArn"] == shown


async def test_the_location_downloads_the_very_zip_for_a_while(desk: Desk) -> None:
    await desk.active()
    location = urlsplit((await desk.ask("GetFunction", FunctionName="fn"))["Code"]["Location"])
    assert f"{location.scheme}://{location.netloc}" == "http://127.0.0.1:9797"
    assert location.path.startswith("/_stoker/code/")
    query = dict(parse_qsl(location.query))
    file = await desk.plane.code_download(location.path, query)
    assert file is not None
    assert file.read_bytes() == zipped()
    desk.clock.advance(601)
    assert await desk.plane.code_download(location.path, query) is None


async def test_a_forged_location_finds_nothing(desk: Desk) -> None:
    await desk.active()
    location = urlsplit((await desk.ask("GetFunction", FunctionName="fn"))["Code"]["Location"])
    query = dict(parse_qsl(location.query))
    forgeries: list[tuple[str, dict[str, str]]] = [
        (location.path, query | {"Expires": "9999999999"}),
        (location.path, query | {"Signature": "0" * 64}),
        (location.path, query | {"Signature": "ü"}),
        (location.path, {"Expires": query["Expires"]}),
        (location.path, {}),
        (location.path.replace("/code/", "/code/../"), query),
        ("/_stoker/code/00.zip", query),
    ]
    for path, forged in forgeries:
        assert await desk.plane.code_download(path, forged) is None


async def test_updating_code_shows_in_progress_then_successful(desk: Desk) -> None:
    await desk.active()
    desk.clock.advance(60)
    new = zipped("x = 2")
    updated = await desk.ask("UpdateFunctionCode", FunctionName="fn", ZipFile=new)
    assert without_runtime_version(updated) == configuration(
        CodeSha256=sha256(new),
        CodeSize=len(new),
        LastModified="2026-01-31T12:01:00.250+0000",
        RevisionId="id-4",
        State="Active",
        **IN_PROGRESS,
    )
    await desk.settled()
    shown = await desk.ask("GetFunctionConfiguration", FunctionName="fn")
    assert (shown["LastUpdateStatus"], shown["RevisionId"]) == ("Successful", "id-6")
    assert "LastUpdateStatusReason" not in shown


async def test_updating_configuration_changes_what_is_named_only(desk: Desk) -> None:
    await desk.active(Environment={"Variables": {"A": "b"}}, Description="before")
    updated = await desk.ask(
        "UpdateFunctionConfiguration",
        FunctionName="fn",
        Timeout=10,
        MemorySize=512,
        Runtime="python3.11",
        Handler="other.handler",
        EphemeralStorage={"Size": 1024},
    )
    assert without_runtime_version(updated) == configuration(
        Environment={"Variables": {"A": "b"}},
        Description="before",
        Timeout=10,
        MemorySize=512,
        Runtime="python3.11",
        Handler="other.handler",
        EphemeralStorage={"Size": 1024},
        RevisionId="id-4",
        State="Active",
        **IN_PROGRESS,
    )


async def test_an_environment_is_replaced_whole_and_can_be_emptied(desk: Desk) -> None:
    await desk.active(Environment={"Variables": {"A": "b"}})
    updated = await desk.ask("UpdateFunctionConfiguration", FunctionName="fn", Environment={})
    assert updated["Environment"] == {"Variables": {}}


async def test_a_redundant_update_makes_a_new_revision_too(desk: Desk) -> None:
    await desk.active()
    revisions = [(await desk.ask("GetFunctionConfiguration", FunctionName="fn"))["RevisionId"]]
    for _ in range(2):
        await desk.ask("UpdateFunctionConfiguration", FunctionName="fn", Description="same")
        await desk.settled()
        revisions.append((await desk.ask("GetFunctionConfiguration", FunctionName="fn"))["RevisionId"])
    assert len(set(revisions)) == 3


@pytest.mark.parametrize(
    ("operation", "members", "other"),
    [
        ("UpdateFunctionConfiguration", {"Description": "other"}, False),
        ("UpdateFunctionConfiguration", {"Timeout": 3}, False),
        ("UpdateFunctionConfiguration", {"Timeout": 4}, True),
        ("UpdateFunctionConfiguration", {"Environment": {"Variables": {"A": "b"}}}, True),
        ("UpdateFunctionConfiguration", {"Role": ROLE + "2"}, True),
        ("UpdateFunctionCode", {"ZipFile": zipped("x = 2")}, True),
        ("UpdateFunctionCode", {"ZipFile": zipped()}, False),
    ],
)
async def test_only_what_sandboxes_notice_is_another_deployment(
    desk: Desk, operation: str, members: dict[str, Any], other: bool
) -> None:
    await desk.active()
    before = await desk.metadata.version(KEY, LATEST)
    await desk.ask(operation, FunctionName="fn", **members)
    after = await desk.metadata.version(KEY, LATEST)
    assert before is not None
    assert after is not None
    assert (before.deployment_id != after.deployment_id) is other


async def test_a_dry_run_changes_nothing(desk: Desk) -> None:
    await desk.active()
    before = await desk.ask("GetFunctionConfiguration", FunctionName="fn")
    new = zipped("x = 2")
    shown = await desk.ask("UpdateFunctionCode", FunctionName="fn", ZipFile=new, DryRun=True)
    assert shown["CodeSha256"] == sha256(new)
    assert await desk.ask("GetFunctionConfiguration", FunctionName="fn") == before
    assert await desk.code.stored() == [sha256(zipped())]


async def test_deleting_answers_204_and_forgets_the_code(desk: Desk) -> None:
    await desk.active()
    assert await desk.ask("DeleteFunction", FunctionName="fn") == {"StatusCode": 204}
    await asyncio.sleep(0.01)
    assert await desk.code.stored() == []
    assert await desk.refusal("GetFunction", FunctionName="fn") == (
        "ResourceNotFoundException",
        f"Function not found: {arn('fn')}",
    )


async def test_code_of_two_functions_stays_until_both_are_gone(desk: Desk) -> None:
    await desk.active("one")
    await desk.active("two")
    await desk.ask("DeleteFunction", FunctionName="one")
    await asyncio.sleep(0.01)
    assert len(await desk.code.stored()) == 1
    await desk.ask("DeleteFunction", FunctionName="two")
    await asyncio.sleep(0.01)
    assert await desk.code.stored() == []


async def test_replaced_code_is_forgotten(desk: Desk) -> None:
    await desk.active()
    await desk.ask("UpdateFunctionCode", FunctionName="fn", ZipFile=zipped("x = 2"))
    await desk.settled()
    await asyncio.sleep(0.01)
    assert await desk.code.stored() == [sha256(zipped("x = 2"))]


async def test_code_of_a_refused_creation_is_forgotten(desk: Desk) -> None:
    await desk.create()
    other = {"ZipFile": zipped("x = 2")}
    outcomes = await asyncio.gather(
        *(desk.create("both", Code=other) for _ in range(2)), return_exceptions=True
    )
    assert sum(isinstance(outcome, dict) for outcome in outcomes) == 1
    await desk.settled()
    assert len(await desk.code.stored()) == 2


async def test_caches_hear_of_every_change(desk: Desk) -> None:
    await desk.active()
    assert desk.published == [KEY, KEY]
    await desk.ask("PutFunctionConcurrency", FunctionName="fn", ReservedConcurrentExecutions=1)
    await desk.ask("DeleteFunctionConcurrency", FunctionName="fn")
    assert len(desk.published) == 4
    await desk.ask("UpdateFunctionConfiguration", FunctionName="fn", Timeout=4)
    await desk.settled()
    await desk.ask("DeleteFunction", FunctionName="fn")
    assert desk.published == [KEY] * 7


async def test_code_that_cannot_be_made_ready_fails_the_function(desk: Desk) -> None:
    desk.code.gate.clear()
    await desk.create()
    desk.code.fail_next(CodeMissing("gone"))
    desk.code.gate.set()
    await desk.settled()
    shown = await desk.ask("GetFunctionConfiguration", FunctionName="fn")
    assert (shown["State"], shown["StateReasonCode"]) == ("Failed", "InternalError")
    assert shown["LastUpdateStatus"] == "Failed"
    await desk.ask("UpdateFunctionCode", FunctionName="fn", ZipFile=zipped("x = 2"))
    await desk.settled()
    assert (await desk.ask("GetFunctionConfiguration", FunctionName="fn"))["State"] == "Active"


async def test_a_restart_brings_to_an_end_what_was_under_way(desk: Desk) -> None:
    desk.code.gate.clear()
    await desk.create()
    for task in desk.plane._settling._tasks:
        task.cancel()
    await desk.settled()
    assert (await desk.ask("GetFunctionConfiguration", FunctionName="fn"))["State"] == "Pending"
    desk.code.gate.set()
    await desk.code.admit(zipped("orphan"))
    await desk.plane.start()
    await desk.settled()
    assert (await desk.ask("GetFunctionConfiguration", FunctionName="fn"))["State"] == "Active"
    assert await desk.code.stored() == [sha256(zipped())]


async def test_a_caller_that_vanishes_leaves_no_function_pending(desk: Desk) -> None:
    """Cancelled at any step of the way, the function is either not there or becomes active."""
    for steps in range(12):
        name = f"fn{steps}"
        asking = asyncio.create_task(desk.create(name, Code={"ZipFile": zipped(f"x = {steps}")}))
        for _ in range(steps):
            await asyncio.sleep(0)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await desk.settled()
    shown = (await desk.ask("ListFunctions"))["Functions"]
    assert shown
    for found in shown:
        state = await desk.ask("GetFunctionConfiguration", FunctionName=found["FunctionName"])
        assert state["State"] == "Active"
    await desk.plane.start()
    assert len(await desk.code.stored()) == len(shown)
