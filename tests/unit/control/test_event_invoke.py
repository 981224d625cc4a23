"""EventInvokeConfig: pages, merging, destinations, and what goes away with what."""

from stoker.services.aliases import Alias, alias_key, alias_record, alias_shelf
from stoker.services.functions import FunctionKey
from stoker.services.records import Put
from tests.unit.control.desk import ACCOUNT, REGION, START_S, Desk, arn

EMPTY = {"OnSuccess": {}, "OnFailure": {}}
QUEUE = f"arn:aws:sqs:{REGION}:123456789012:q"


async def put(desk: Desk, name: str = "fn", **members: object) -> dict[str, object]:
    return await desk.ask("PutFunctionEventInvokeConfig", FunctionName=name, **members)


async def test_a_put_replaces_and_an_update_merges(desk: Desk) -> None:
    await desk.active()
    shown = await put(desk, MaximumRetryAttempts=2, MaximumEventAgeInSeconds=60)
    assert shown == {
        "FunctionArn": f"{arn('fn')}:$LATEST",
        "LastModified": START_S,
        "MaximumRetryAttempts": 2,
        "MaximumEventAgeInSeconds": 60,
        "DestinationConfig": EMPTY,
    }
    desk.clock.advance(5)
    shown = await desk.ask(
        "UpdateFunctionEventInvokeConfig",
        FunctionName="fn",
        DestinationConfig={"OnFailure": {"Destination": QUEUE}},
    )
    assert (shown["MaximumRetryAttempts"], shown["LastModified"]) == (2, START_S + 5)
    assert shown["DestinationConfig"] == {"OnSuccess": {}, "OnFailure": {"Destination": QUEUE}}
    shown = await put(desk, MaximumRetryAttempts=0)
    assert "MaximumEventAgeInSeconds" not in shown
    assert shown["DestinationConfig"] == EMPTY


async def test_only_services_that_take_records_are_destinations(desk: Desk) -> None:
    await desk.active()
    await desk.active("other")
    bucket = "arn:aws:s3:::b"
    for config in (
        {"OnSuccess": {"Destination": arn("other")}, "OnFailure": {"Destination": bucket}},
        {"OnSuccess": {"Destination": f"arn:aws:events:{REGION}:123456789012:event-bus/b"}},
        {"OnSuccess": {"Destination": f"arn:aws:sns:{REGION}:123456789012:t"}, "OnFailure": {}},
    ):
        await put(desk, DestinationConfig=config)
    for config, shown in (
        (
            {"OnSuccess": {"Destination": bucket}},
            f"onSuccess=OnSuccess(destination={bucket}), onFailure=null",
        ),
        (
            {"OnFailure": {"Destination": "kafka://t"}},
            "onSuccess=null, onFailure=OnFailure(destination=kafka://t)",
        ),
    ):
        refused = await desk.refusal(
            "PutFunctionEventInvokeConfig", FunctionName="fn", DestinationConfig=config
        )
        words = f"The provided destination config DestinationConfig({shown}) is invalid."
        assert refused == ("InvalidParameterValueException", words)


async def test_it_goes_away_with_its_function(desk: Desk) -> None:
    await desk.active()
    await put(desk, MaximumRetryAttempts=0)
    await desk.ask("DeleteFunction", FunctionName="fn")
    await desk.active()
    listed = await desk.ask("ListFunctionEventInvokeConfigs", FunctionName="fn")
    assert listed["FunctionEventInvokeConfigs"] == []


async def test_aliases_and_versions_have_their_own(desk: Desk) -> None:
    await desk.active()
    key = FunctionKey(ACCOUNT, REGION, "fn")
    aliases = alias_shelf(desk.records)
    await aliases.write(Put(alias_record(aliases, alias_key(key, "live"), Alias(version="$LATEST"), "r")))
    shown = await put(desk, Qualifier="live", MaximumRetryAttempts=1)
    assert shown["FunctionArn"] == f"{arn('fn')}:live"
    await put(desk, MaximumRetryAttempts=0)
    first = await desk.ask("ListFunctionEventInvokeConfigs", FunctionName="fn", MaxItems=1)
    assert [one["MaximumRetryAttempts"] for one in first["FunctionEventInvokeConfigs"]] == [0]
    rest = await desk.ask("ListFunctionEventInvokeConfigs", FunctionName="fn", Marker=first["NextMarker"])
    assert rest == {"FunctionEventInvokeConfigs": [shown]}


async def test_a_marker_that_was_never_given(desk: Desk) -> None:
    await desk.active()
    for marker in ("x", "eyJ9", "W10="):
        code, _ = await desk.refusal("ListFunctionEventInvokeConfigs", FunctionName="fn", Marker=marker)
        assert code == "InvalidParameterValueException"
