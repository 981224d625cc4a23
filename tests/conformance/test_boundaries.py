"""Limits at their last good and their first bad value, pages to their end, and qualifiers in every form, by boto3."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.conformance.recorded import ECHO, OTHER, answer, arn, created, creation, settled
from tests.running import ACCOUNT, REGION, RunningStoker

NAME = "bounds"
PAGED = "bounds-paged"


@pytest.fixture(scope="module")
def service(stoker: RunningStoker) -> Any:
    created(stoker, NAME)
    return stoker.client("lambda", parameter_validation=False)


def code_of(call: Any, **arguments: Any) -> str:
    """The error of a call; empty without one."""
    return answer(call, **arguments).get("Error", {}).get("Code", "")


INVALID, VALIDATION = "InvalidParameterValueException", "ValidationException"
FULL = 4096 - len('{"KEY":""}')
SETTINGS: dict[str, tuple[dict[str, Any], str]] = {
    "description 256": ({"Description": "d" * 256}, ""),
    "description 257": ({"Description": "d" * 257}, VALIDATION),
    "timeout 0": ({"Timeout": 0}, VALIDATION),
    "timeout 1": ({"Timeout": 1}, ""),
    "timeout 900": ({"Timeout": 900}, ""),
    "timeout 901": ({"Timeout": 901}, VALIDATION),
    "memory 127": ({"MemorySize": 127}, VALIDATION),
    "memory 10240": ({"MemorySize": 10_240}, ""),
    "memory 10241": ({"MemorySize": 10_241}, VALIDATION),
    "memory 128": ({"MemorySize": 128}, ""),
    "tmp 511": ({"EphemeralStorage": {"Size": 511}}, VALIDATION),
    "tmp 10241": ({"EphemeralStorage": {"Size": 10_241}}, VALIDATION),
    "tmp 512": ({"EphemeralStorage": {"Size": 512}}, ""),
    "handler 128": ({"Handler": "h" * 128}, ""),
    "handler 129": ({"Handler": "h" * 129}, VALIDATION),
    "environment 4 KB": ({"Environment": {"Variables": {"KEY": "v" * FULL}}}, ""),
    "environment 4 KB and one": ({"Environment": {"Variables": {"KEY": "v" * (FULL + 1)}}}, INVALID),
    "six layers": (
        {"Layers": [f"arn:aws:lambda:{REGION}:{ACCOUNT}:layer:l{n}:1" for n in range(6)]},
        INVALID,
    ),
}


@pytest.mark.parametrize(("changes", "code"), SETTINGS.values(), ids=SETTINGS)
def test_a_setting_at_its_bound(
    stoker: RunningStoker, service: Any, changes: dict[str, Any], code: str
) -> None:
    before = service.get_function_configuration(FunctionName=NAME)
    assert code_of(service.update_function_configuration, FunctionName=NAME, **changes) == code
    after = settled(stoker, NAME)
    if code:
        assert after["RevisionId"] == before["RevisionId"]
    else:
        assert {name: after[name] for name in changes} == changes


@pytest.mark.parametrize(
    ("length", "code"), [(64, ""), (65, VALIDATION), (140, VALIDATION), (141, VALIDATION)]
)
def test_the_length_of_a_name(stoker: RunningStoker, service: Any, length: int, code: str) -> None:
    name = "n" * length
    assert code_of(service.create_function, **creation(name)) == code
    if not code:
        settled(stoker, name)
        service.delete_function(FunctionName=name)


def test_tags_fifty_and_one_more(service: Any) -> None:
    tags = {f"k{n}": "v" for n in range(50)}
    service.tag_resource(Resource=arn(NAME), Tags=tags)
    assert code_of(service.tag_resource, Resource=arn(NAME), Tags={"one": "more"})
    assert service.list_tags(Resource=arn(NAME))["Tags"] == tags
    assert not code_of(service.tag_resource, Resource=arn(NAME), Tags={"k0": "other"})
    service.untag_resource(Resource=arn(NAME), TagKeys=list(tags))
    assert code_of(service.tag_resource, Resource=arn(NAME), Tags={"k" * 129: "v"})
    assert code_of(service.tag_resource, Resource=arn(NAME), Tags={"k": "v" * 257})
    assert not code_of(service.tag_resource, Resource=arn(NAME), Tags={"k" * 128: "v" * 256})


@pytest.fixture(scope="module")
def paged(stoker: RunningStoker, service: Any) -> Iterator[Any]:
    """A function with versions 1 and 2 and seven aliases."""
    created(stoker, PAGED)
    service.publish_version(FunctionName=PAGED)
    service.update_function_code(FunctionName=PAGED, ZipFile=OTHER)
    settled(stoker, PAGED)
    service.publish_version(FunctionName=PAGED)
    for n in range(7):
        service.create_alias(FunctionName=PAGED, Name=f"a{n}", FunctionVersion="1")
    yield service
    service.delete_function(FunctionName=PAGED)


def pages(call: Any, member: str, size: int, **arguments: Any) -> list[list[Any]]:
    """All pages of a list; a page that promises more must not be short."""
    found: list[list[Any]] = []
    marker: dict[str, str] = {}
    while True:
        shown = call(MaxItems=size, **marker, **arguments)
        found.append(shown[member])
        if "NextMarker" not in shown:
            return found
        assert len(shown[member]) == size
        marker = {"Marker": shown["NextMarker"]}
        assert len(found) < 100


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50])
def test_pages_hold_everything_once(paged: Any, size: int) -> None:
    aliases = pages(paged.list_aliases, "Aliases", size, FunctionName=PAGED)
    assert [each["Name"] for page in aliases for each in page] == [f"a{n}" for n in range(7)]
    versions = pages(paged.list_versions_by_function, "Versions", size, FunctionName=PAGED)
    assert [each["Version"] for page in versions for each in page] == ["$LATEST", "1", "2"]
    listed = [f["FunctionArn"] for page in pages(paged.list_functions, "Functions", size) for f in page]
    assert len(listed) == len(set(listed))
    assert arn(PAGED) in listed
    everything = pages(paged.list_functions, "Functions", size, FunctionVersion="ALL")
    shown = [f["FunctionArn"] for page in everything for f in page]
    assert len(shown) == len(set(shown))
    assert {f"{arn(PAGED)}:{version}" for version in ("$LATEST", "1", "2")} <= set(shown)


@pytest.mark.parametrize(
    ("size", "code"), [(0, VALIDATION), (-1, VALIDATION), (10_001, VALIDATION), (10_000, "")]
)
def test_the_size_of_a_page(paged: Any, size: int, code: str) -> None:
    assert code_of(paged.list_aliases, FunctionName=PAGED, MaxItems=size) == code
    assert code_of(paged.list_functions, MaxItems=size) == code


FORMS = (PAGED, f"{ACCOUNT}:{PAGED}", f"{ACCOUNT}:function:{PAGED}", arn(PAGED), f"function:{PAGED}")


@pytest.mark.parametrize("name", FORMS)
def test_a_name_in_every_form(paged: Any, name: str) -> None:
    whole = paged.get_function_configuration(FunctionName=PAGED, Qualifier="a0")
    assert whole["FunctionArn"] == f"{arn(PAGED)}:a0"
    for arguments in ({"FunctionName": name, "Qualifier": "a0"}, {"FunctionName": f"{name}:a0"}):
        shown = paged.get_function_configuration(**arguments)
        del shown["ResponseMetadata"]
        assert shown == {n: v for n, v in whole.items() if n != "ResponseMetadata"}
        assert paged.get_function(**arguments)["Configuration"] == shown
        assert paged.invoke(**arguments, InvocationType="DryRun")["StatusCode"] == 204
    same = {"FunctionName": f"{name}:a0", "Qualifier": "a0"}
    assert not code_of(paged.get_function_configuration, **same)
    assert code_of(paged.get_function_configuration, FunctionName=f"{name}:a0", Qualifier="1") == INVALID
    assert code_of(paged.get_function_configuration, FunctionName=f"{name}:9") == "ResourceNotFoundException"


@pytest.mark.parametrize(
    ("operation", "changes"),
    [
        ("update_function_configuration", {"Description": "no"}),
        ("update_function_code", {"ZipFile": ECHO}),
        ("publish_version", {}),
        ("update_alias", {"Name": "a1", "Description": "no"}),
        ("add_permission", {"StatementId": "s", "Action": "lambda:InvokeFunction", "Principal": "*"}),
    ],
)
def test_a_stale_revision_changes_nothing(paged: Any, operation: str, changes: dict[str, Any]) -> None:
    before = paged.get_function_configuration(FunctionName=PAGED)
    stale = "00000000-0000-4000-8000-000000000000"
    refused = answer(getattr(paged, operation), FunctionName=PAGED, RevisionId=stale, **changes)
    assert (refused["Error"]["Code"], refused["HTTP"]) == ("PreconditionFailedException", 412)
    after = paged.get_function_configuration(FunctionName=PAGED)
    assert after["RevisionId"] == before["RevisionId"]


WEIGHTS: dict[str, tuple[dict[str, float], str]] = {
    "zero": ({"2": 0.0}, ""),
    "one": ({"2": 1.0}, ""),
    "over": ({"2": 1.01}, VALIDATION),
    "below": ({"2": -0.1}, VALIDATION),
    "two": ({"1": 0.1, "2": 0.1}, INVALID),
    "itself": ({"1": 0.5}, INVALID),
    "latest": ({"$LATEST": 0.5}, VALIDATION),
    "absent": ({"9": 0.5}, "ResourceNotFoundException"),
}


@pytest.mark.parametrize(("weights", "code"), WEIGHTS.values(), ids=WEIGHTS)
def test_weights_of_an_alias(paged: Any, weights: dict[str, float], code: str) -> None:
    routing = {"AdditionalVersionWeights": weights}
    assert code_of(paged.update_alias, FunctionName=PAGED, Name="a2", RoutingConfig=routing) == code


@pytest.mark.parametrize(
    ("days", "code"),
    [(1, ""), (3653, ""), (2, "InvalidParameterException"), (0, "InvalidParameterException")],
)
def test_retention(stoker: RunningStoker, service: Any, days: int, code: str) -> None:
    logs = stoker.client("logs")
    group = "/bounds"
    code_of(logs.create_log_group, logGroupName=group)
    assert code_of(logs.put_retention_policy, logGroupName=group, retentionInDays=days) == code


def test_empty_answers_and_dates_on_the_wire(paged: Any) -> None:
    paged.put_function_event_invoke_config(FunctionName=PAGED, MaximumRetryAttempts=0)
    shown = paged.get_function_event_invoke_config(FunctionName=PAGED)
    assert shown["LastModified"].tzinfo is not None
    gone = paged.delete_function_event_invoke_config(FunctionName=PAGED)["ResponseMetadata"]
    assert gone["HTTPStatusCode"] == 204
    assert "content-type" not in gone["HTTPHeaders"]
    assert gone["HTTPHeaders"].get("content-length", "0") == "0"
    assert gone["HTTPHeaders"]["x-amzn-requestid"] == gone["RequestId"]
