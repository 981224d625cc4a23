"""Function URL configs: members, identity, merging, refusals, pages, and what a URL outlives."""

from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.control.urls import shown_url
from stoker.services.aliases import Alias, alias_key, alias_record, alias_shelf
from stoker.services.functions import FunctionKey
from stoker.services.records import Put, Remove
from stoker.services.urls import account_of, new_url_id
from tests.unit.control.desk import ACCOUNT, REGION, Desk, arn

KEY = FunctionKey(ACCOUNT, REGION, "fn")
MOMENT = "2026-01-31T12:00:00.250000Z"
RULE = r"Member must satisfy regular expression pattern: ((?!^\d+$)^[0-9a-zA-Z-_]+$)"


async def create(desk: Desk, **members: Any) -> dict[str, Any]:
    given: dict[str, Any] = {"FunctionName": "fn", "AuthType": "NONE"} | members
    return await desk.ask("CreateFunctionUrlConfig", **given)


async def alias(desk: Desk, name: str) -> None:
    shelf = alias_shelf(desk.records)
    await shelf.write(Put(alias_record(shelf, alias_key(KEY, name), Alias(version="$LATEST"), "r")))


def id_of(shown: dict[str, Any]) -> str:
    return str(urlsplit(str(shown["FunctionUrl"])).hostname).partition(".")[0]


async def test_all_members_are_shown_as_they_were_given(desk: Desk) -> None:
    await desk.active()
    cors = {
        "AllowCredentials": False,
        "AllowHeaders": ["x-a"],
        "AllowMethods": ["GET", "*"],
        "AllowOrigins": ["https://a.example"],
        "ExposeHeaders": [],
        "MaxAge": 0,
    }
    shown = await create(desk, Cors=cors, InvokeMode="BUFFERED", AuthType="AWS_IAM")
    url = f"http://{id_of(shown)}.lambda-url.{REGION}.localhost:9797/"
    assert shown == {
        "FunctionUrl": url,
        "FunctionArn": arn("fn"),
        "AuthType": "AWS_IAM",
        "Cors": cors,
        "CreationTime": MOMENT,
        "InvokeMode": "BUFFERED",
    }
    got = await desk.ask("GetFunctionUrlConfig", FunctionName="fn")
    assert got == {**shown, "LastModifiedTime": MOMENT}
    assert desk.published.count(KEY) >= 2


async def test_what_was_not_given_is_not_shown(desk: Desk) -> None:
    await desk.active()
    assert set(await create(desk)) == {"FunctionUrl", "FunctionArn", "AuthType", "CreationTime"}


async def test_an_update_keeps_the_address_and_what_it_does_not_name(desk: Desk) -> None:
    await desk.active()
    first = await create(desk, Cors={"MaxAge": 5})
    desk.clock.advance(1)
    updated = await desk.ask("UpdateFunctionUrlConfig", FunctionName="fn", AuthType="AWS_IAM")
    assert updated == {
        **first,
        "AuthType": "AWS_IAM",
        "LastModifiedTime": "2026-01-31T12:00:01.250000Z",
    }
    replaced = await desk.ask("UpdateFunctionUrlConfig", FunctionName="fn", Cors={"AllowOrigins": ["*"]})
    assert (replaced["Cors"], replaced["AuthType"]) == ({"AllowOrigins": ["*"]}, "AWS_IAM")


async def test_a_function_and_each_alias_have_one_url_each(desk: Desk) -> None:
    await desk.active()
    await alias(desk, "live")
    whole, live = await create(desk), await create(desk, Qualifier="live")
    by_name = await desk.ask("GetFunctionUrlConfig", FunctionName="fn:live")
    assert id_of(by_name) == id_of(live) != id_of(whole)
    assert live["FunctionArn"] == f"{arn('fn')}:live"
    refused = await desk.refusal("CreateFunctionUrlConfig", FunctionName="fn:live", AuthType="NONE")
    assert refused == (
        "ResourceConflictException",
        f"Failed to create function url config for [functionArn = {arn('fn')}:live]. "
        "Error message:  FunctionUrlConfig exists for this Lambda function",
    )


@pytest.mark.parametrize("qualifier", ["1", "$LATEST"])
async def test_versions_and_latest_are_refused_in_the_name_too(desk: Desk, qualifier: str) -> None:
    await desk.active()
    refused = await desk.refusal("CreateFunctionUrlConfig", FunctionName=f"fn:{qualifier}", AuthType="NONE")
    assert refused[0] == "ValidationException"
    assert refused[1] == (
        f"1 validation error detected: Value '{qualifier}' at 'qualifier' failed to satisfy constraint: {RULE}"
    )


@pytest.mark.parametrize(
    ("operation", "members", "message"),
    [
        ("CreateFunctionUrlConfig", {"AuthType": "NONE"}, "Function does not exist"),
        ("UpdateFunctionUrlConfig", {"AuthType": "NONE"}, "Function does not exist"),
        ("ListFunctionUrlConfigs", {}, "Function does not exist"),
        ("GetFunctionUrlConfig", {}, "The resource you requested does not exist."),
        ("DeleteFunctionUrlConfig", {}, "The resource you requested does not exist."),
    ],
)
async def test_functions_that_do_not_exist(
    desk: Desk, operation: str, members: dict[str, Any], message: str
) -> None:
    refused = await desk.refusal(operation, FunctionName="nobody", **members)
    assert refused == ("ResourceNotFoundException", message)


async def test_an_alias_that_does_not_exist(desk: Desk) -> None:
    await desk.active()
    refused = await desk.refusal(
        "CreateFunctionUrlConfig", FunctionName="fn", AuthType="NONE", Qualifier="gone"
    )
    assert refused == ("ResourceNotFoundException", "Function does not exist")


async def test_streaming_is_refused_by_name(desk: Desk) -> None:
    await desk.active()
    refused = await desk.refusal(
        "CreateFunctionUrlConfig", FunctionName="fn", AuthType="NONE", InvokeMode="RESPONSE_STREAM"
    )
    assert refused[0] == "NotImplementedException"
    assert "RESPONSE_STREAM" in refused[1]
    assert (await desk.ask("ListFunctionUrlConfigs", FunctionName="fn")) == {"FunctionUrlConfigs": []}


async def test_pages(desk: Desk) -> None:
    await desk.active()
    made = [id_of(await create(desk))]
    for name in ("a", "b", "c"):
        await alias(desk, name)
        made.append(id_of(await create(desk, Qualifier=name)))
    seen: list[str] = []
    marker: Any = None
    while True:
        members: dict[str, Any] = {} if marker is None else {"Marker": marker}
        page = await desk.ask("ListFunctionUrlConfigs", FunctionName="fn", MaxItems=3, **members)
        seen += [id_of(config) for config in page["FunctionUrlConfigs"]]
        marker = page.get("NextMarker")
        if marker is None:
            break
    assert seen == made
    refused = await desk.refusal("ListFunctionUrlConfigs", FunctionName="fn", Marker="?")
    assert refused[0] == "InvalidParameterValueException"


async def test_a_url_outlives_its_alias_and_not_its_function(desk: Desk) -> None:
    await desk.active()
    await alias(desk, "live")
    made = await create(desk, Qualifier="live")
    await desk.records.write([Remove(alias_key(KEY, "live"))])
    kept = await desk.ask("UpdateFunctionUrlConfig", FunctionName="fn", Qualifier="live", AuthType="AWS_IAM")
    assert kept["FunctionUrl"] == made["FunctionUrl"]
    await desk.ask("DeleteFunction", FunctionName="fn")
    await desk.active()
    assert (await desk.ask("ListFunctionUrlConfigs", FunctionName="fn")) == {"FunctionUrlConfigs": []}


async def test_a_deleted_url_never_comes_back(desk: Desk) -> None:
    await desk.active()
    first = await create(desk)
    await desk.ask("DeleteFunctionUrlConfig", FunctionName="fn")
    refused = await desk.refusal("DeleteFunctionUrlConfig", FunctionName="fn")
    assert refused[1] == "The resource you requested does not exist."
    assert id_of(await create(desk)) != id_of(first)


@given(st.integers(min_value=0, max_value=10**12 - 1), st.text())
def test_an_id_carries_its_account(account: int, seed: str) -> None:
    url_id = new_url_id(f"{account:012d}", seed)
    assert account_of(url_id) == f"{account:012d}"
    assert len(url_id) == 32


@given(st.text(max_size=40))
def test_nothing_else_is_an_id(text: str) -> None:
    found = account_of(text)
    assert found is None or len(found) == 12


@pytest.mark.parametrize(
    ("endpoint", "shown"),
    [
        ("http://127.0.0.1:9797", "http://i.lambda-url.eu-west-1.example.org:9797/"),
        ("https://stoker.example.org", "https://i.lambda-url.eu-west-1.example.org/"),
        ("http://[::1]:80", "http://i.lambda-url.eu-west-1.example.org:80/"),
        ("http://a:b:c", "http://i.lambda-url.eu-west-1.example.org/"),
    ],
)
def test_the_address_has_the_scheme_and_port_of_the_endpoint(endpoint: str, shown: str) -> None:
    assert shown_url(endpoint, "i", "eu-west-1", "example.org") == shown
