"""Layers: numbers, orders, filters, pages, deletion and whose code is kept. On fakes."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.unit.control.desk import ACCOUNT, CONTEXT, REGION, Desk, zipped

LAYER_ARN = f"arn:aws:lambda:{REGION}:{ACCOUNT}:layer"
STRANGER = msgspec.structs.replace(
    CONTEXT, account="999999999999", principal_arn="arn:aws:iam::999999999999:root"
)


async def publish(desk: Desk, name: str = "lay", content: str = "x = 1", **members: Any) -> dict[str, Any]:
    given = {"LayerName": name, "Content": {"ZipFile": zipped(content)}, **members}
    return await desk.ask("PublishLayerVersion", **given)


async def test_a_published_version_shows_all_of_itself(desk: Desk) -> None:
    shown = await publish(
        desk,
        Description="words",
        LicenseInfo="MIT",
        CompatibleRuntimes=["python3.12"],
        CompatibleArchitectures=["x86_64"],
    )
    content = shown.pop("Content")
    assert shown == {
        "LayerArn": f"{LAYER_ARN}:lay",
        "LayerVersionArn": f"{LAYER_ARN}:lay:1",
        "Description": "words",
        "LicenseInfo": "MIT",
        "CreatedDate": "2026-01-31T12:00:00.250+0000",
        "Version": 1,
        "CompatibleRuntimes": ["python3.12"],
        "CompatibleArchitectures": ["x86_64"],
    }
    assert content["CodeSize"] == len(zipped())
    assert content["CodeSha256"] == (await desk.code.stored())[0]
    path, _, query = content["Location"].removeprefix(CONTEXT.endpoint).partition("?")
    file = await desk.plane.code_download(path, dict(pair.split("=") for pair in query.split("&")))
    assert file is not None
    assert file.read_bytes() == zipped()
    for again in (
        await desk.ask("GetLayerVersion", LayerName="lay", VersionNumber=1),
        await desk.ask("GetLayerVersion", LayerName=f"{LAYER_ARN}:lay", VersionNumber=1),
        await desk.ask("GetLayerVersionByArn", Arn=f"{LAYER_ARN}:lay:1"),
    ):
        assert again == {**shown, "Content": content}


async def test_numbers_are_never_given_again(desk: Desk) -> None:
    assert [(await publish(desk))["Version"] for _ in range(3)] == [1, 2, 3]
    for number in (1, 2, 3):
        await desk.ask("DeleteLayerVersion", LayerName="lay", VersionNumber=number)
    assert await desk.ask("ListLayers") == {"Layers": []}
    assert (await publish(desk))["Version"] == 4


async def test_publications_at_the_same_time_get_a_number_each(desk: Desk) -> None:
    published = await asyncio.gather(*(publish(desk, content=f"x = {number}") for number in range(20)))
    assert sorted(shown["Version"] for shown in published) == list(range(1, 21))


async def test_versions_are_listed_newest_first_in_pages(desk: Desk) -> None:
    for number in range(12):
        await publish(desk, Description=str(number + 1))
    seen: list[int] = []
    marker: dict[str, str] = {}
    while True:
        page = await desk.ask("ListLayerVersions", LayerName="lay", MaxItems=5, **marker)
        seen += [item["Version"] for item in page["LayerVersions"]]
        assert all(item["Description"] == str(item["Version"]) for item in page["LayerVersions"])
        if "NextMarker" not in page:
            break
        marker = {"Marker": page["NextMarker"]}
    assert seen == list(range(12, 0, -1))
    assert await desk.ask("ListLayerVersions", LayerName="none") == {"LayerVersions": []}


async def test_layers_show_their_latest_matching_version(desk: Desk) -> None:
    await publish(desk, "one", CompatibleRuntimes=["python3.12"], CompatibleArchitectures=["arm64"])
    await publish(desk, "one", CompatibleRuntimes=["nodejs20.x"])
    await publish(desk, "two", CompatibleRuntimes=["python3.12", "nodejs20.x"])

    async def listed(**asked: Any) -> list[tuple[str, int]]:
        layers = (await desk.ask("ListLayers", **asked))["Layers"]
        assert all(layer["LayerArn"] == f"{LAYER_ARN}:{layer['LayerName']}" for layer in layers)
        return [(layer["LayerName"], layer["LatestMatchingVersion"]["Version"]) for layer in layers]

    assert await listed() == [("one", 2), ("two", 1)]
    assert await listed(CompatibleRuntime="python3.12") == [("one", 1), ("two", 1)]
    assert await listed(CompatibleArchitecture="arm64") == [("one", 1)]
    assert await listed(CompatibleArchitecture="arm64", CompatibleRuntime="nodejs20.x") == []
    assert await listed(CompatibleRuntime="java21") == []
    await desk.ask("DeleteLayerVersion", LayerName="one", VersionNumber=2)
    assert await listed() == [("one", 1), ("two", 1)]


async def test_layers_are_listed_in_pages(desk: Desk) -> None:
    names = sorted(f"layer-{number}" for number in range(12))
    for name in names:
        await publish(desk, name, CompatibleRuntimes=["python3.12"] if name != "layer-3" else [])
    expected = {None: names, "python3.12": [name for name in names if name != "layer-3"]}
    for runtime, wanted in expected.items():
        asked = {} if runtime is None else {"CompatibleRuntime": runtime}
        first = await desk.ask("ListLayers", MaxItems=7, **asked)
        rest = await desk.ask("ListLayers", MaxItems=7, Marker=first["NextMarker"], **asked)
        assert "NextMarker" not in rest
        assert [layer["LayerName"] for layer in (*first["Layers"], *rest["Layers"])] == wanted


@pytest.mark.parametrize("marker", ["!", "YQ==", "LTE=", "OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5"])
async def test_a_marker_of_nobody_is_refused(desk: Desk, marker: str) -> None:
    code, _ = await desk.refusal("ListLayerVersions", LayerName="lay", Marker=marker)
    assert code == "InvalidParameterValueException"


async def test_what_is_not_there_and_what_cannot_be(desk: Desk) -> None:
    await publish(desk)
    missing = ("ResourceNotFoundException", "The resource you requested does not exist.")
    assert await desk.refusal("GetLayerVersion", LayerName="lay", VersionNumber=2) == missing
    assert await desk.refusal("GetLayerVersion", LayerName="none", VersionNumber=1) == missing
    assert await desk.refusal("GetLayerVersionByArn", Arn=f"{LAYER_ARN}:none:1") == missing
    assert await desk.refusal("GetLayerVersionByArn", Arn="arn:aws:lambda:::awslayer:Any") == missing
    elsewhere = f"arn:aws:lambda:us-west-2:{ACCOUNT}:layer:lay"
    assert await desk.refusal("GetLayerVersionByArn", Arn=f"{elsewhere}:1") == missing
    below = ("InvalidParameterValueException", "Layer Version Cannot be less than 1.")
    assert await desk.refusal("GetLayerVersion", LayerName="lay", VersionNumber=0) == below
    assert await desk.refusal("DeleteLayerVersion", LayerName="lay", VersionNumber=-1) == below
    for number in (2, 99):
        assert await desk.ask("DeleteLayerVersion", LayerName="lay", VersionNumber=number) == {}
    assert await desk.ask("DeleteLayerVersion", LayerName="none", VersionNumber=1) == {}


async def test_words_for_runtimes_and_architectures_that_do_not_exist(desk: Desk) -> None:
    content = {"ZipFile": zipped()}
    code, words = await desk.refusal(
        "PublishLayerVersion",
        LayerName="lay",
        Content=content,
        CompatibleRuntimes=["cobol", "python3.12"],
        CompatibleArchitectures=["vax"],
    )
    assert code == "ValidationException"
    assert words.startswith(
        "2 validation errors detected: Value '[cobol, python3.12]' at 'compatibleRuntimes'"
    )
    assert words.endswith(
        "; Value '[vax]' at 'compatibleArchitectures' failed to satisfy constraint: Member must satisfy "
        "constraint: [Member must satisfy enum value set: [x86_64, arm64], Member must not be null]"
    )
    code, words = await desk.refusal("ListLayers", CompatibleRuntime="cobol")
    assert code == "ValidationException"
    assert words.startswith("1 validation error detected: Value 'cobol' at 'compatibleRuntime' failed")
    assert await desk.code.stored() == []


async def test_content_is_admitted_as_a_functions_code_is(desk: Desk) -> None:
    cases = {
        "Could not unzip uploaded file. Please check your file, then try to upload again.": {
            "ZipFile": b"no"
        },
        "Uploaded file must be a non-empty zip": {"ZipFile": b""},
        "Please provide a source for function code.": {},
        "Please do not provide other FunctionCode parameters when providing a ZipFile.": {
            "ZipFile": zipped(),
            "S3Bucket": "b",
            "S3Key": "k",
        },
        "Error occurred while GetObject. S3 Error Code: NoSuchBucket. "
        "S3 Error Message: The specified bucket does not exist": {"S3Bucket": "b", "S3Key": "k"},
    }
    for words, content in cases.items():
        refused = await desk.refusal("PublishLayerVersion", LayerName="lay", Content=content)
        assert refused == ("InvalidParameterValueException", words)
    desk.objects.objects["bucket", "key"] = zipped("from_a_bucket = 1")
    shown = await publish(desk, Content={"S3Bucket": "bucket", "S3Key": "key"})
    assert shown["Content"]["CodeSize"] == len(zipped("from_a_bucket = 1"))


async def test_code_goes_with_the_last_version_that_names_it(desk: Desk) -> None:
    await publish(desk)
    await publish(desk, "other")
    await desk.ask("DeleteLayerVersion", LayerName="lay", VersionNumber=1)
    await asyncio.sleep(0.05)
    assert len(await desk.code.stored()) == 1
    await desk.ask("DeleteLayerVersion", LayerName="other", VersionNumber=1)
    await asyncio.sleep(0.05)
    assert await desk.code.stored() == []


async def test_layers_count_as_stored_code(desk: Desk) -> None:
    await publish(desk)
    await publish(desk)
    await publish(desk, "other", "longer = 12345")
    usage = (await desk.ask("GetAccountSettings"))["AccountUsage"]
    assert usage["TotalCodeSize"] == 2 * len(zipped()) + len(zipped("longer = 12345"))
    await desk.ask("DeleteLayerVersion", LayerName="lay", VersionNumber=1)
    usage = (await desk.ask("GetAccountSettings"))["AccountUsage"]
    assert usage["TotalCodeSize"] == len(zipped()) + len(zipped("longer = 12345"))


async def test_storage_is_limited_for_layers_too(tmp_path: Path) -> None:
    tight = Desk(tmp_path, code_storage_max_bytes=10)
    refused = await tight.refusal("PublishLayerVersion", LayerName="lay", Content={"ZipFile": zipped()})
    assert refused == ("CodeStorageExceededException", "Code storage limit exceeded.")
    assert await tight.code.stored() == []
    assert await tight.ask("ListLayers") == {"Layers": []}


async def test_other_accounts_are_kept_out(desk: Desk) -> None:
    await publish(desk)
    for operation, action, resource, members in (
        ("GetLayerVersion", "GetLayerVersion", "lay:1", {"VersionNumber": 1}),
        ("ListLayerVersions", "ListLayerVersions", "lay", {}),
        ("DeleteLayerVersion", "DeleteLayerVersion", "lay:1", {"VersionNumber": 1}),
        ("PublishLayerVersion", "PublishLayerVersion", "lay", {"Content": {"ZipFile": zipped()}}),
    ):
        refused = await desk.refusal(operation, STRANGER, LayerName=f"{LAYER_ARN}:lay", **members)
        assert refused == (
            "AccessDeniedException",
            f"User: {STRANGER.principal_arn} is not authorized to perform: lambda:{action} on resource: "
            f"{LAYER_ARN}:{resource} because no resource-based policy allows the lambda:{action} action",
        )
    assert (await desk.ask("ListLayers", STRANGER)) == {"Layers": []}
    assert len((await desk.ask("ListLayers"))["Layers"]) == 1
