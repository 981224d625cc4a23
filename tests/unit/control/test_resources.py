"""Lists, tags, concurrency and account settings."""

from typing import Any

import msgspec
import pytest

from tests.unit.control.desk import CONTEXT, Desk, arn, zipped

LIST_HIDES = {
    "State",
    "StateReason",
    "StateReasonCode",
    "LastUpdateStatus",
    "LastUpdateStatusReason",
    "LastUpdateStatusReasonCode",
}


async def test_lists_page_by_page_without_states(desk: Desk) -> None:
    for name in ("c", "a", "b"):
        await desk.create(name)
    first = await desk.ask("ListFunctions", MaxItems=2)
    assert [found["FunctionName"] for found in first["Functions"]] == ["a", "b"]
    assert all(not LIST_HIDES & found.keys() for found in first["Functions"])
    rest = await desk.ask("ListFunctions", MaxItems=2, Marker=first["NextMarker"])
    assert [found["FunctionName"] for found in rest["Functions"]] == ["c"]
    assert "NextMarker" not in rest


async def test_a_page_holds_fifty_at_most(desk: Desk) -> None:
    for number in range(51):
        await desk.create(f"f{number:02}")
    page = await desk.ask("ListFunctions", MaxItems=10_000)
    assert len(page["Functions"]) == 50
    assert "NextMarker" in page
    await desk.settled()


async def test_all_versions_are_listed_with_qualified_arns(desk: Desk) -> None:
    await desk.create("a")
    (found,) = (await desk.ask("ListFunctions", FunctionVersion="ALL"))["Functions"]
    assert found["FunctionArn"] == arn("a") + ":$LATEST"
    (found,) = (await desk.ask("ListFunctions"))["Functions"]
    assert found["FunctionArn"] == arn("a")


async def test_functions_of_other_regions_and_accounts_are_not_listed(desk: Desk) -> None:
    await desk.create("a")
    for elsewhere in ({"region": "us-east-1"}, {"account": "999999999999"}):
        context = msgspec.structs.replace(CONTEXT, **elsewhere)
        assert (await desk.ask("ListFunctions", context))["Functions"] == []


async def test_master_region_finds_replicas_of_which_there_are_none(desk: Desk) -> None:
    await desk.create("a")
    replicas = await desk.ask("ListFunctions", FunctionVersion="ALL", MasterRegion="us-east-1")
    assert replicas["Functions"] == []
    every = await desk.ask("ListFunctions", FunctionVersion="ALL", MasterRegion="ALL")
    assert len(every["Functions"]) == 1
    code, _ = await desk.refusal("ListFunctions", MasterRegion="us-east-1")
    assert code == "InvalidParameterValueException"


@pytest.mark.parametrize("marker", ["!", "a", "gA=="])
async def test_a_made_up_marker_is_refused_or_starts_somewhere(desk: Desk, marker: str) -> None:
    code, _ = await desk.refusal("ListFunctions", Marker=marker)
    assert code == "InvalidParameterValueException"


async def test_the_life_of_tags(desk: Desk) -> None:
    await desk.active(Tags={"A": "tag-a"})
    resource = arn("fn")
    assert await desk.ask("ListTags", Resource=resource) == {"Tags": {"A": "tag-a"}}
    assert await desk.ask("TagResource", Resource=resource, Tags={"A": "new", "B": "tag-b"}) == {}
    assert (await desk.ask("ListTags", Resource=resource))["Tags"] == {"A": "new", "B": "tag-b"}
    assert await desk.ask("UntagResource", Resource=resource, TagKeys=["A", "unknown"]) == {}
    assert (await desk.ask("ListTags", Resource=resource))["Tags"] == {"B": "tag-b"}
    await desk.ask("UntagResource", Resource=resource, TagKeys=["B"])
    assert await desk.ask("ListTags", Resource=resource) == {"Tags": {}}


@pytest.mark.parametrize(
    ("operation", "members", "code", "message"),
    [
        (
            "TagResource",
            {"Resource": arn("fn"), "Tags": {}},
            "InvalidParameterValueException",
            "An error occurred and the request cannot be processed.",
        ),
        (
            "TagResource",
            {"Resource": arn("nothing"), "Tags": {"a": "b"}},
            "ResourceNotFoundException",
            f"Function not found: {arn('nothing')}",
        ),
        (
            "TagResource",
            {"Resource": arn("fn") + ":v1", "Tags": {"a": "b"}},
            "InvalidParameterValueException",
            "Tags on function aliases and versions are not supported. Please specify a function ARN.",
        ),
        (
            "TagResource",
            {"Resource": arn("fn"), "Tags": {f"k{number}": "" for number in range(51)}},
            "InvalidParameterValueException",
            "Number of tags exceeds resource tag limit.",
        ),
        (
            "UntagResource",
            {"Resource": arn("fn"), "TagKeys": []},
            "ValidationException",
            "1 validation error detected: Value null at 'tagKeys' failed to satisfy constraint: "
            "Member must not be null",
        ),
        ("ListTags", {"Resource": "arn:aws:something"}, "ValidationException", None),
        (
            "ListTags",
            {"Resource": arn("fn").replace("function:fn", "layer:fn")},
            "NotImplementedException",
            "Tagging of a layer is not implemented yet.",
        ),
    ],
)
async def test_refused_tags(
    desk: Desk, operation: str, members: dict[str, Any], code: str, message: str | None
) -> None:
    await desk.active()
    refused = await desk.refusal(operation, **members)
    assert refused == (code, message or refused[1])
    assert await desk.ask("ListTags", Resource=arn("fn")) == {"Tags": {}}


async def test_the_life_of_a_reservation(desk: Desk) -> None:
    await desk.active()
    assert await desk.ask("GetFunctionConcurrency", FunctionName="fn") == {}
    for value in (0, 900):
        put = await desk.ask("PutFunctionConcurrency", FunctionName="fn", ReservedConcurrentExecutions=value)
        assert put == {"ReservedConcurrentExecutions": value}
        assert await desk.ask("GetFunctionConcurrency", FunctionName="fn") == put
    assert await desk.ask("DeleteFunctionConcurrency", FunctionName="fn") == {}
    assert await desk.ask("GetFunctionConcurrency", FunctionName="fn") == {}


async def test_a_hundred_stay_unreserved(desk: Desk) -> None:
    for name in ("one", "two"):
        await desk.active(name)
    await desk.ask("PutFunctionConcurrency", FunctionName="one", ReservedConcurrentExecutions=850)
    assert await desk.refusal(
        "PutFunctionConcurrency", FunctionName="two", ReservedConcurrentExecutions=51
    ) == (
        "InvalidParameterValueException",
        "Specified ReservedConcurrentExecutions for function decreases account's "
        "UnreservedConcurrentExecution below its minimum value of [100].",
    )
    await desk.ask("PutFunctionConcurrency", FunctionName="two", ReservedConcurrentExecutions=50)


async def test_zero_can_be_reserved_in_the_smallest_account(tmp_path: Any) -> None:
    desk = Desk(tmp_path, account_concurrency=10)
    await desk.active()
    await desk.ask("PutFunctionConcurrency", FunctionName="fn", ReservedConcurrentExecutions=0)
    code, _ = await desk.refusal("PutFunctionConcurrency", FunctionName="fn", ReservedConcurrentExecutions=1)
    assert code == "InvalidParameterValueException"


async def test_concurrency_belongs_to_functions_not_versions(desk: Desk) -> None:
    await desk.active()
    assert await desk.refusal(
        "PutFunctionConcurrency", FunctionName=arn("fn") + ":1", ReservedConcurrentExecutions=1
    ) == (
        "InvalidParameterValueException",
        "This operation is permitted on Lambda functions only. Aliases and versions do not support this "
        "operation. Please specify either a function name or an unqualified function ARN.",
    )


async def test_account_settings_count_what_is_there(desk: Desk) -> None:
    await desk.active("one")
    await desk.active("two", Code={"ZipFile": zipped("x = 22")})
    await desk.ask("PutFunctionConcurrency", FunctionName="one", ReservedConcurrentExecutions=300)
    assert await desk.ask("GetAccountSettings") == {
        "AccountLimit": {
            "TotalCodeSize": 300 * 1024**3,
            "CodeSizeUnzipped": 262_144_000,
            "CodeSizeZipped": 52_428_800,
            "ConcurrentExecutions": 1000,
            "UnreservedConcurrentExecutions": 700,
        },
        "AccountUsage": {"TotalCodeSize": 2 * len(zipped()) + 1, "FunctionCount": 2},
    }


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (
            {"LogFormat": "JSON"},
            {"LogFormat": "JSON", "ApplicationLogLevel": "INFO", "SystemLogLevel": "INFO"},
        ),
        (
            {"LogFormat": "JSON", "ApplicationLogLevel": "DEBUG"},
            {"LogFormat": "JSON", "ApplicationLogLevel": "DEBUG", "SystemLogLevel": "INFO"},
        ),
        (
            {"LogFormat": "JSON", "SystemLogLevel": "DEBUG"},
            {"LogFormat": "JSON", "ApplicationLogLevel": "INFO", "SystemLogLevel": "DEBUG"},
        ),
        ({"LogGroup": "cool_lambda"}, {"LogFormat": "Text", "LogGroup": "cool_lambda"}),
    ],
)
async def test_a_part_of_the_logging_configuration_keeps_the_rest(
    desk: Desk, given: dict[str, str], shown: dict[str, str]
) -> None:
    await desk.active()
    updated = await desk.ask("UpdateFunctionConfiguration", FunctionName="fn", LoggingConfig=given)
    assert updated["LoggingConfig"] == {"LogGroup": "/aws/lambda/fn"} | shown


async def test_going_back_to_text_drops_the_levels(desk: Desk) -> None:
    await desk.active(LoggingConfig={"LogFormat": "JSON", "ApplicationLogLevel": "DEBUG"})
    updated = await desk.ask(
        "UpdateFunctionConfiguration", FunctionName="fn", LoggingConfig={"LogFormat": "Text"}
    )
    assert updated["LoggingConfig"] == {"LogFormat": "Text", "LogGroup": "/aws/lambda/fn"}
