"""Functions from container images, from the API to the records, over the fake image store."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from stoker.services.functions import FunctionKey
from stoker.services.images import ImageRefused, image_code
from stoker.services.keys import KeyRefused
from tests.unit.control.desk import ACCOUNT, REGION, Desk, zipped

ROLE = f"arn:aws:iam::{ACCOUNT}:role/r"
URI = "registry.example/team/app:1"
OTHER = "registry.example/team/other:1"


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    desk = Desk(tmp_path)
    desk.images.put(URI)
    await desk.plane.start()
    yield desk
    await desk.plane.close()


def request(**members: Any) -> dict[str, Any]:
    whole = {"FunctionName": "f", "Role": ROLE, "PackageType": "Image", "Code": {"ImageUri": URI}}
    return {name: value for name, value in (whole | members).items() if value is not None}


async def created(desk: Desk, **members: Any) -> dict[str, Any]:
    answer = await desk.ask("CreateFunction", **request(**members))
    await desk.plane._settling.drained()
    return answer


async def test_a_function_from_an_image_as_aws_shows_it(desk: Desk) -> None:
    answer = await created(desk)
    digest = desk.images._named[URI].digest
    assert (answer["PackageType"], answer["CodeSize"], answer["State"]) == ("Image", 0, "Pending")
    assert (answer["StateReasonCode"], answer["StateReason"]) == (
        "Creating",
        "The function is being created.",
    )
    assert answer["CodeSha256"] == digest.removeprefix("sha256:")
    for absent in ("Handler", "Runtime", "RuntimeVersionConfig", "ImageConfigResponse", "Layers"):
        assert absent not in answer
    shown = await desk.ask("GetFunction", FunctionName="f")
    assert shown["Code"] == {
        "RepositoryType": "ECR",
        "ImageUri": URI,
        "ResolvedImageUri": f"registry.example/team/app@{digest}",
    }
    assert (shown["Configuration"]["State"], shown["Configuration"]["LastUpdateStatus"]) == (
        "Active",
        "Successful",
    )


REFUSALS: dict[str, tuple[dict[str, Any], str]] = {
    "handler": ({"Handler": "a.b"}, "Please don't provide Handler or Runtime or Layer when"),
    "runtime": ({"Runtime": "python3.12"}, "Please don't provide Handler or Runtime or Layer when"),
    "layers": (
        {"Layers": ["arn:aws:lambda:us-east-1:000000000000:layer:l:1"]},
        "Please don't provide Handler or Runtime or Layer when",
    ),
    "no uri": ({"Code": {"S3Bucket": "b", "S3Key": "k"}}, "Please provide ImageUri when creating"),
    "both": ({"Code": {"ImageUri": URI, "S3Bucket": "b", "S3Key": "k"}}, "Please don't provide ZipFile"),
    "zip with an image's uri": (
        {"PackageType": "Zip", "Runtime": "python3.12", "Handler": "a.b"},
        "Please provide a source for function code.",
    ),
    "no package type": ({"PackageType": None}, "Runtime and Handler are mandatory parameters"),
    "missing": (
        {"Code": {"ImageUri": "registry.example/no:1"}},
        "Source image registry.example/no:1 does not exist. Provide a valid source image.",
    ),
    "image config of a zip": (
        {
            "PackageType": "Zip",
            "Runtime": "python3.12",
            "Handler": "a.b",
            "Code": {"S3Bucket": "b", "S3Key": "k"},
            "ImageConfig": {"Command": ["x"]},
        },
        "Please don't provide ImageConfig when creating a function with packageType Zip.",
    ),
    "too much configuration": (
        {"ImageConfig": {"Command": ["x" * 17_000]}},
        "ImageConfig must be smaller than 16384 bytes",
    ),
    "NUL": ({"ImageConfig": {"EntryPoint": ["a\0b"]}}, "ImageConfig must not hold NUL characters."),
}


@pytest.mark.parametrize("case", REFUSALS.values(), ids=REFUSALS.keys())
async def test_what_aws_refuses(desk: Desk, case: tuple[dict[str, Any], str]) -> None:
    members, message = case
    refused = await desk.refusal("CreateFunction", **request(**members))
    assert refused[0] == "InvalidParameterValueException"
    assert refused[1].startswith(message), refused[1]
    assert (await desk.ask("ListFunctions"))["Functions"] == []


async def test_a_host_without_mounts_says_what_is_missing(tmp_path: Path) -> None:
    desk = Desk(tmp_path, images_unavailable=lambda: "the kernel is too old")
    desk.images.put(URI)
    refused = await desk.refusal("CreateFunction", **request())
    assert refused[1] == "Functions from container images cannot run here: the kernel is too old"


RESOLVED = {
    "denied": ("AccessDeniedException", "Lambda does not have permission to access the ECR image."),
    "media_type": ("InvalidParameterValueException", "The image manifest, config or layer media type"),
    "invalid": (
        "InvalidParameterValueException",
        f"Source image {URI} is not valid. Provide a valid source image.",
    ),
    "unreachable": ("ServiceException", f"The registry of {URI} cannot be reached"),
}


@pytest.mark.parametrize("kind", RESOLVED)
async def test_what_a_registry_refuses(desk: Desk, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(_uri: str, _architecture: str) -> None:
        raise ImageRefused(kind, "why")

    monkeypatch.setattr(desk.images, "resolve", refuse)
    refused = await desk.refusal("CreateFunction", **request())
    code, message = RESOLVED[kind]
    assert refused[0] == code
    assert refused[1].startswith(message)


ADMISSIONS = {
    "missing": (ImageRefused("missing", "gone"), "ImageDeleted"),
    "denied": (ImageRefused("denied", "no"), "ImageAccessDenied"),
    "hostile": (ImageRefused("invalid", "a layer leads outside"), "InvalidImage"),
    "too big": (ImageRefused("too_big", "11 GB"), "InvalidImage"),
    "unreachable": (ImageRefused("unreachable", "timed out"), "InternalError"),
    "key": (KeyRefused("AccessDeniedException", "no"), "KMSKeyAccessDenied"),
    "disabled key": (KeyRefused("DisabledException", "no"), "DisabledKMSKey"),
}


@pytest.mark.parametrize("case", ADMISSIONS.values(), ids=ADMISSIONS.keys())
async def test_an_image_that_cannot_be_fetched_fails_the_creation(
    desk: Desk, case: tuple[Exception, str]
) -> None:
    problem, code = case
    desk.images.fail_next(problem)
    await created(desk)
    shown = await desk.ask("GetFunctionConfiguration", FunctionName="f")
    assert (shown["State"], shown["StateReasonCode"]) == ("Failed", code)
    assert str(problem) in shown["StateReason"]
    assert (shown["LastUpdateStatus"], shown["LastUpdateStatusReasonCode"]) == ("Failed", code)


async def test_an_update_runs_the_earlier_image_until_the_new_one_is_here(desk: Desk) -> None:
    await created(desk)
    second = desk.images.put(OTHER)
    key = FunctionKey(ACCOUNT, REGION, "f")
    before = await desk.metadata.version(key, "$LATEST")
    desk.images.gate.clear()
    answer = await desk.ask("UpdateFunctionCode", FunctionName="f", ImageUri=OTHER)
    assert answer["CodeSha256"] == second.digest.removeprefix("sha256:")
    assert (answer["LastUpdateStatus"], answer["LastUpdateStatusReasonCode"]) == ("InProgress", "Creating")
    stored = await desk.metadata.version(key, "$LATEST")
    assert before
    assert stored
    assert stored.image
    assert stored.image.uri == URI
    assert stored.deployment_id == before.deployment_id
    for digest in (stored.image.digest, second.digest):
        assert await desk.metadata.code_is_used(image_code(ACCOUNT, digest))
    desk.images.gate.set()
    await desk.plane._settling.drained()
    after = await desk.metadata.version(key, "$LATEST")
    assert after
    assert after.image
    assert (after.image.uri, after.next_image) == (OTHER, None)
    assert after.deployment_id != before.deployment_id
    shown = await desk.ask("GetFunction", FunctionName="f")
    assert shown["Code"]["ImageUri"] == OTHER
    assert shown["Configuration"]["LastUpdateStatus"] == "Successful"


async def test_an_update_that_fails_leaves_the_earlier_image(desk: Desk) -> None:
    answer = await created(desk)
    desk.images.put(OTHER)
    desk.images.fail_next(ImageRefused("denied", "no"))
    await desk.ask("UpdateFunctionCode", FunctionName="f", ImageUri=OTHER)
    await desk.plane._settling.drained()
    shown = await desk.ask("GetFunction", FunctionName="f")
    assert shown["Code"]["ImageUri"] == URI
    assert shown["Configuration"]["CodeSha256"] == answer["CodeSha256"]
    assert shown["Configuration"]["State"] == "Active"
    assert shown["Configuration"]["LastUpdateStatus"] == "Failed"
    assert shown["Configuration"]["LastUpdateStatusReasonCode"] == "ImageAccessDenied"


async def test_an_image_stays_an_image(desk: Desk) -> None:
    await created(desk)
    refused = await desk.refusal("UpdateFunctionCode", FunctionName="f", ZipFile=zipped())
    assert refused[1] == "Please provide ImageUri when updating a function with packageType Image."
    refused = await desk.refusal("UpdateFunctionConfiguration", FunctionName="f", Handler="a.b")
    assert refused[1].startswith("Please don't provide Handler or Runtime or Layer")


async def test_overrides_are_shown_replaced_and_cleared(desk: Desk) -> None:
    config = {"EntryPoint": ["/e"], "Command": ["c"], "WorkingDirectory": "/w"}
    assert (await created(desk, ImageConfig=config))["ImageConfigResponse"] == {"ImageConfig": config}

    async def update(**members: Any) -> dict[str, Any]:
        answer = await desk.ask("UpdateFunctionConfiguration", FunctionName="f", **members)
        await desk.plane._settling.drained()
        return answer

    assert (await update(ImageConfig={"Command": ["d"]}))["ImageConfigResponse"] == {
        "ImageConfig": {"Command": ["d"]}
    }
    assert "ImageConfigResponse" in await update(Timeout=5)
    assert "ImageConfigResponse" not in await update(ImageConfig={})


async def test_dry_run_resolves_and_changes_nothing(desk: Desk) -> None:
    await created(desk)
    second = desk.images.put(OTHER)
    answer = await desk.ask("UpdateFunctionCode", FunctionName="f", ImageUri=OTHER, DryRun=True)
    assert answer["CodeSha256"] == second.digest.removeprefix("sha256:")
    assert (await desk.ask("GetFunction", FunctionName="f"))["Code"]["ImageUri"] == URI


async def test_versions_keep_their_image_and_the_last_one_gone_takes_it_along(desk: Desk) -> None:
    await created(desk, Publish=True)
    first = desk.images._named[URI].digest
    second = desk.images.put(OTHER)
    await desk.ask("UpdateFunctionCode", FunctionName="f", ImageUri=OTHER, Publish=True)
    await desk.plane._settling.drained()
    one = await desk.ask("GetFunction", FunctionName="f", Qualifier="1")
    two = await desk.ask("GetFunction", FunctionName="f", Qualifier="2")
    assert (one["Code"]["ImageUri"], two["Code"]["ImageUri"]) == (URI, OTHER)
    assert two["Configuration"]["State"] == "Active"
    assert {digest for _, digest in await desk.images.stored()} == {first, second.digest}
    await desk.ask("DeleteFunction", FunctionName="f", Qualifier="1")
    await _forgotten(desk)
    assert [digest for _, digest in await desk.images.stored()] == [second.digest]
    await desk.ask("DeleteFunction", FunctionName="f")
    await _forgotten(desk)
    assert await desk.images.stored() == []


async def test_a_restart_ends_what_was_under_way_and_sweeps(desk: Desk, tmp_path: Path) -> None:
    await desk.ask("CreateFunction", **request())  # not settled yet
    await desk.images.admit(desk.images.put(OTHER), ACCOUNT)  # named by nothing
    (tmp_path / "again").mkdir()
    again = Desk(tmp_path / "again", metadata=desk.metadata, images=desk.images)
    await again.plane.start()
    await again.plane._settling.drained()
    await again.plane._holds.swept()
    shown = await desk.ask("GetFunctionConfiguration", FunctionName="f")
    assert shown["State"] == "Active"
    assert [digest for _, digest in await desk.images.stored()] == [desk.images._named[URI].digest]
    await again.plane.close()


async def _forgotten(desk: Desk) -> None:
    await asyncio.sleep(0.01)
    await desk.plane._holds.swept()
