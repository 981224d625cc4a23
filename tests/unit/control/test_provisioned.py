"""Provisioned concurrency configs: what the manager is asked for, and what callers are shown."""

import pytest

from stoker.control.provisioning import shares
from stoker.services.aliases import Alias
from tests.unit.control.desk import Desk

NOT_PUBLISHED = "The function resource provided must be an alias or a published version."
NO_CONFIG = (
    "ProvisionedConcurrencyConfigNotFoundException",
    "No Provisioned Concurrency Config found for this function",
)


async def published(desk: Desk, versions: int = 1) -> None:
    await desk.active()
    for number in range(versions):
        if number:
            await desk.ask("UpdateFunctionConfiguration", FunctionName="fn", Description=str(number))
            await desk.settled()
        await desk.ask("PublishVersion", FunctionName="fn")
        await desk.settled()


async def put(desk: Desk, qualifier: str, count: int) -> dict[str, object]:
    shown = await desk.ask(
        "PutProvisionedConcurrencyConfig",
        FunctionName="fn",
        Qualifier=qualifier,
        ProvisionedConcurrentExecutions=count,
    )
    await desk.plane._provisioning.apply(desk.key())
    return shown


async def get(desk: Desk, qualifier: str) -> dict[str, object]:
    return await desk.ask("GetProvisionedConcurrencyConfig", FunctionName="fn", Qualifier=qualifier)


async def test_a_version_gets_ready_when_its_sandboxes_are(desk: Desk) -> None:
    await published(desk)
    shown = await put(desk, "1", 3)
    assert shown["Status"] == "IN_PROGRESS"
    assert shown["AvailableProvisionedConcurrentExecutions"] == 0
    assert desk.provisioner.wanted == {"1": 3}
    desk.provisioner.available["1"] = 2
    assert (await get(desk, "1"))["Status"] == "IN_PROGRESS"
    desk.provisioner.available["1"] = 3
    ready = await get(desk, "1")
    assert ready["Status"] == "READY"
    assert ready["AllocatedProvisionedConcurrentExecutions"] == 3
    desk.provisioner.available["1"] = 1
    desk.provisioner.failure = "it raises"
    failed = await get(desk, "1")
    assert (failed["Status"], failed["StatusReason"]) == ("FAILED", "it raises")


async def test_an_alias_that_moves_takes_its_sandboxes_along(desk: Desk) -> None:
    await published(desk, 2)
    await desk.ask("CreateAlias", FunctionName="fn", Name="live", FunctionVersion="1")
    await put(desk, "live", 4)
    assert desk.provisioner.wanted == {"1": 4}
    await desk.ask("UpdateAlias", FunctionName="fn", Name="live", FunctionVersion="2")
    await desk.plane._provisioning.apply(desk.key())
    assert desk.provisioner.wanted == {"2": 4}
    weights = {"AdditionalVersionWeights": {"1": 0.25}}
    await desk.ask("UpdateAlias", FunctionName="fn", Name="live", RoutingConfig=weights)
    await desk.plane._provisioning.apply(desk.key())
    assert desk.provisioner.wanted == {"2": 3, "1": 1}
    await desk.ask("DeleteAlias", FunctionName="fn", Name="live")
    await desk.plane._provisioning.apply(desk.key())
    assert desk.provisioner.wanted == {}
    await desk.ask("CreateAlias", FunctionName="fn", Name="live", FunctionVersion="1")
    assert (
        await desk.refusal("GetProvisionedConcurrencyConfig", FunctionName="fn", Qualifier="live")
        == NO_CONFIG
    )


def test_shares_add_up() -> None:
    assert shares(Alias(version="1"), 5) == {"1": 5}
    assert shares(Alias(version="1", additional={"2": 0.5}), 5) == {"1": 3, "2": 2}
    assert shares(Alias(version="1", additional={"2": 0.01}), 5) == {"1": 4, "2": 1}
    assert shares(Alias(version="1", additional={"2": 0.5}), 1) == {"1": 0, "2": 1}


async def test_deleting_ends_it(desk: Desk) -> None:
    await published(desk)
    await put(desk, "1", 2)
    await desk.ask("DeleteProvisionedConcurrencyConfig", FunctionName="fn", Qualifier="1")
    await desk.plane._provisioning.apply(desk.key())
    assert desk.provisioner.wanted == {}
    assert (
        await desk.refusal("GetProvisionedConcurrencyConfig", FunctionName="fn", Qualifier="1") == NO_CONFIG
    )
    await desk.ask("DeleteProvisionedConcurrencyConfig", FunctionName="fn", Qualifier="1")
    await put(desk, "1", 2)
    await desk.ask("DeleteFunction", FunctionName="fn")
    await desk.plane._provisioning.apply(desk.key())
    assert desk.provisioner.wanted == {}


@pytest.mark.parametrize(
    "operation", ["GetProvisionedConcurrencyConfig", "DeleteProvisionedConcurrencyConfig"]
)
async def test_only_what_is_published_has_any(desk: Desk, operation: str) -> None:
    await desk.active()
    assert await desk.refusal(operation, FunctionName="fn", Qualifier="$LATEST") == (
        "InvalidParameterValueException",
        NOT_PUBLISHED,
    )


async def test_a_version_is_provisioned_once(desk: Desk) -> None:
    await published(desk)
    await desk.ask("CreateAlias", FunctionName="fn", Name="live", FunctionVersion="1")
    await put(desk, "1", 1)
    code, words = await desk.refusal(
        "PutProvisionedConcurrencyConfig",
        FunctionName="fn",
        Qualifier="live",
        ProvisionedConcurrentExecutions=1,
    )
    assert (code, words) == (
        "ResourceConflictException",
        "Alias can't be used for Provisioned Concurrency configuration on an already Provisioned version",
    )
    await desk.ask("DeleteProvisionedConcurrencyConfig", FunctionName="fn", Qualifier="1")
    await put(desk, "live", 1)
    code, words = await desk.refusal(
        "PutProvisionedConcurrencyConfig", FunctionName="fn", Qualifier="1", ProvisionedConcurrentExecutions=1
    )
    assert (code, words) == (
        "ResourceConflictException",
        "Version is pointed by a Provisioned Concurrency alias",
    )


async def test_reserved_and_provisioned_concurrency_bound_each_other(desk: Desk) -> None:
    await published(desk, 2)
    await desk.ask("PutFunctionConcurrency", FunctionName="fn", ReservedConcurrentExecutions=2)
    await put(desk, "1", 2)
    for qualifier, count in (("1", 3), ("2", 1)):
        code, words = await desk.refusal(
            "PutProvisionedConcurrencyConfig",
            FunctionName="fn",
            Qualifier=qualifier,
            ProvisionedConcurrentExecutions=count,
        )
        assert code == "InvalidParameterValueException"
        assert words == (
            "Requested Provisioned Concurrency should not be greater than the reservedConcurrentExecution for "
            "function"
        )
    code, words = await desk.refusal(
        "PutFunctionConcurrency", FunctionName="fn", ReservedConcurrentExecutions=1
    )
    assert words == (
        " ReservedConcurrentExecutions  1 should not be lower than function's total provisioned concurrency [2]."
    )


async def test_the_account_keeps_its_unreserved_concurrency(desk: Desk) -> None:
    await published(desk)
    for count, words in (
        (1001, "is greater than account's unreserved concurrency [1000]."),
        (901, "decreases account's UnreservedConcurrentExecution below its minimum value of [100]."),
    ):
        code, found = await desk.refusal(
            "PutProvisionedConcurrencyConfig",
            FunctionName="fn",
            Qualifier="1",
            ProvisionedConcurrentExecutions=count,
        )
        assert (code, found) == (
            "InvalidParameterValueException",
            f"Specified ConcurrentExecutions for function {words}",
        )


async def test_configs_are_listed_by_page(desk: Desk) -> None:
    await published(desk, 3)
    assert await desk.ask("ListProvisionedConcurrencyConfigs", FunctionName="fn") == {
        "ProvisionedConcurrencyConfigs": []
    }
    for number in "123":
        await put(desk, number, 1)
    first = await desk.ask("ListProvisionedConcurrencyConfigs", FunctionName="fn", MaxItems=2)
    second = await desk.ask(
        "ListProvisionedConcurrencyConfigs", FunctionName="fn", MaxItems=2, Marker=first["NextMarker"]
    )
    found = [*first["ProvisionedConcurrencyConfigs"], *second["ProvisionedConcurrencyConfigs"]]
    assert [item["FunctionArn"].rpartition(":")[2] for item in found] == ["1", "2", "3"]
    assert "NextMarker" not in second
