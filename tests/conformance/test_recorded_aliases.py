"""Aliases, every answer compared member by member with what AWS answered (recorded)."""

from typing import Any

import pytest

from tests.conformance.recorded import UUID, answer, arn, created, invalid, not_found, refusal, settled
from tests.running import RunningStoker

NAME = "recorded-aliases"
WEIGHTS = "routingConfig.additionalVersionWeights"


@pytest.fixture(scope="module")
def versions(stoker: RunningStoker) -> str:
    """A function with versions 1 and 2 and the alias ``custom``."""
    service = stoker.client("lambda")
    created(stoker, NAME, Environment={"Variables": {"testenv": "staging"}})
    service.publish_version(FunctionName=NAME)
    service.update_function_configuration(FunctionName=NAME, Environment={"Variables": {"testenv": "prod"}})
    settled(stoker, NAME)
    service.publish_version(FunctionName=NAME)
    made = create(stoker, "custom", routing={"2": 0.5})
    assert made == {**shown("custom", RoutingConfig={"AdditionalVersionWeights": {"2": 0.5}}), "HTTP": 201}
    return NAME


def create(
    stoker: RunningStoker,
    alias: str,
    version: str = "1",
    routing: dict[str, float] | None = None,
    function: str = NAME,
    **more: Any,
) -> dict[str, Any]:
    if routing is not None:
        more["RoutingConfig"] = {"AdditionalVersionWeights": routing}
    return answer(
        stoker.client("lambda", parameter_validation=False).create_alias,
        FunctionName=function,
        Name=alias,
        FunctionVersion=version,
        **more,
    )


def shown(alias: str, **changes: Any) -> dict[str, Any]:
    return {
        "AliasArn": f"{arn(NAME)}:{alias}",
        "Name": alias,
        "FunctionVersion": "1",
        "Description": "",
        "RevisionId": UUID,
        **changes,
    }


def out_of_bounds(weights: str) -> dict[str, Any]:
    words = (
        f"1 validation error detected: Value '{weights}' at '{WEIGHTS}' failed to satisfy constraint: "
        "Map value must satisfy constraint: [Member must have value less than or equal to 1.0, "
        "Member must have value greater than or equal to 0.0, Member must not be null]"
    )
    return refusal("ValidationException", words)


def test_an_alias_may_point_at_latest(stoker: RunningStoker, versions: str) -> None:
    made = create(stoker, "custom-latest", "$LATEST")
    assert made == {**shown("custom-latest", FunctionVersion="$LATEST"), "HTTP": 201}


def test_an_empty_routing_is_none(stoker: RunningStoker, versions: str) -> None:
    assert create(stoker, "custom-empty", routing={}) == {**shown("custom-empty"), "HTTP": 201}


def test_names(stoker: RunningStoker, versions: str) -> None:
    service = stoker.client("lambda")
    made = create(stoker, "2024-01-02", Description="custom-alias")
    expected = shown("2024-01-02", Description="custom-alias")
    assert made == {**expected, "HTTP": 201}
    got = answer(service.get_alias, FunctionName=NAME, Name="2024-01-02")
    assert got == {**expected, "RevisionId": made["RevisionId"], "HTTP": 200}
    words = (
        "1 validation error detected: Value '2024' at 'name' failed to satisfy constraint: "
        "Member must satisfy regular expression pattern: (?!^[0-9]+$)([a-zA-Z0-9-_]+)"
    )
    assert create(stoker, "2024") == refusal("ValidationException", words)


def test_what_is_not_there(stoker: RunningStoker, versions: str) -> None:
    service = stoker.client("lambda")
    words = f"Cannot find alias arn: {arn(NAME)}:non-existent"
    missing = refusal("ResourceNotFoundException", words, 404, Type="User", Message=words)
    assert answer(service.get_alias, FunctionName=NAME, Name="non-existent") == missing
    assert answer(service.update_alias, FunctionName=NAME, Name="non-existent") == missing
    assert answer(service.delete_alias, FunctionName=NAME, Name="non-existent") == {"HTTP": 204}
    assert answer(service.delete_alias, FunctionName="no-such", Name="x") == not_found("no-such")
    assert answer(service.list_aliases, FunctionName="no-such") == not_found("no-such")
    assert create(stoker, "x", routing={"10": 0.5}) == not_found(f"{NAME}:10")
    assert create(stoker, "x", "10", routing={"2": 0.5}) == not_found(f"{NAME}:10")
    unknown = create(stoker, "x", routing={"2": 0.5}, function=f"{NAME}-unknown")
    assert unknown == not_found(f"{NAME}-unknown:1")


def test_routings_that_are_refused(stoker: RunningStoker, versions: str) -> None:
    assert create(stoker, "x", routing={"1": 0.1, "2": 0.1}) == invalid(
        "Number of items in AdditionalVersionWeights cannot be greater than 1"
    )
    assert create(stoker, "x", routing={"2": 2}) == out_of_bounds("{2=2.0}")
    assert create(stoker, "x", routing={"2": -1}) == out_of_bounds("{2=-1.0}")
    assert create(stoker, "x", routing={"1": 0.5}) == invalid(
        "Invalid function version 1. Function version 1 is already included in routing configuration."
    )
    words = "$LATEST is not supported for an alias pointing to more than 1 version"
    assert create(stoker, "x", "$LATEST", routing={"1": 0.5}) == refusal(
        "InvalidParameterValueException", words, message=words
    )
    words = (
        f"1 validation error detected: Value '{{$LATEST=0.5}}' at '{WEIGHTS}' failed to satisfy constraint: "
        "Map keys must satisfy constraint: [Member must have length less than or equal to 1024, Member must "
        "have length greater than or equal to 1, Member must satisfy regular expression pattern: [0-9]+]"
    )
    assert create(stoker, "x", routing={"$LATEST": 0.5}) == refusal("ValidationException", words)
    words = f"Alias already exists: {arn(NAME)}:custom"
    assert create(stoker, "custom") == refusal(
        "ResourceConflictException", words, 409, Type="User", message=words
    )
