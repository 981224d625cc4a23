"""The Layers member of functions: what is refused in which words, what is shown, and whose code stays."""

import asyncio
from typing import Any

import msgspec
import pytest

from stoker.services.code import CodeArtifact, CodeKey
from tests.unit.control.desk import ACCOUNT, CONTEXT, REGION, Desk, zipped

INVALID = "InvalidParameterValueException"
LAYER_ARN = f"arn:aws:lambda:{REGION}:{ACCOUNT}:layer"


async def publish(desk: Desk, name: str = "lay", content: str = "layered = 1") -> str:
    content_members = {"ZipFile": zipped(content)}
    shown = await desk.ask("PublishLayerVersion", LayerName=name, Content=content_members)
    return shown["LayerVersionArn"]


async def refused(desk: Desk, layers: list[str], **context: Any) -> tuple[str, str]:
    """What CreateFunction and UpdateFunctionConfiguration both say."""
    asking = msgspec.structs.replace(CONTEXT, **context)
    created = await desk.refusal(
        "CreateFunction",
        asking,
        FunctionName="refused",
        Role=f"arn:aws:iam::{ACCOUNT}:role/r",
        Runtime="python3.12",
        Handler="handler.handler",
        Code={"ZipFile": zipped("refused = 1")},
        Layers=layers,
    )
    if not context:
        before = await desk.ask("GetFunctionConfiguration", FunctionName="fn")
        updated = await desk.refusal("UpdateFunctionConfiguration", FunctionName="fn", Layers=layers)
        assert updated == created
        assert await desk.ask("GetFunctionConfiguration", FunctionName="fn") == before
    return created


async def test_layers_are_shown_in_their_order_everywhere(desk: Desk) -> None:
    first, second = await publish(desk, "b"), await publish(desk, "a", "other = 2222")
    shown = [
        {"Arn": first, "CodeSize": len(zipped("layered = 1"))},
        {"Arn": second, "CodeSize": len(zipped("other = 2222"))},
    ]
    assert (await desk.active(Layers=[first, second]))["Layers"] == shown
    assert (await desk.ask("GetFunction", FunctionName="fn"))["Configuration"]["Layers"] == shown
    assert (await desk.ask("ListFunctions"))["Functions"][0]["Layers"] == shown
    stored = await desk.metadata.version(desk.published[-1], "$LATEST")
    assert stored is not None
    changed = await desk.ask("UpdateFunctionConfiguration", FunctionName="fn", Layers=[second, first])
    assert changed["Layers"] == shown[::-1]
    await desk.settled()
    moved = await desk.metadata.version(desk.published[-1], "$LATEST")
    assert moved is not None
    assert moved.deployment_id != stored.deployment_id
    assert "Layers" not in await desk.ask("UpdateFunctionConfiguration", FunctionName="fn", Layers=[])
    await desk.settled()
    assert desk.code.in_use == 0


async def test_what_is_no_use_is_refused(desk: Desk) -> None:
    await desk.active()
    first, again = await publish(desk), await publish(desk)
    six = [await publish(desk, f"lay{number}") for number in range(6)]
    two = (
        "Two different versions of the same layer are not allowed to be referenced in the same function. "
        "{} and {} are versions of the same layer."
    )
    missing = "Layer version {} does not exist."
    assert await refused(desk, six) == (INVALID, "Cannot reference more than 5 layers.")
    assert await refused(desk, [first, first]) == (INVALID, two.format(first, first))
    assert await refused(desk, [first, again, first]) == (INVALID, two.format(first, again))
    for absent in (f"{LAYER_ARN}:none:1", f"{LAYER_ARN}:lay:9", "arn:aws:lambda:::awslayer:Any"):
        assert await refused(desk, [first, absent]) == (INVALID, missing.format(absent))
    elsewhere = f"arn:aws:lambda:us-west-2:{ACCOUNT}:layer:lay:1"
    assert await refused(desk, [elsewhere]) == (
        INVALID,
        f"Layers are not in the same region as the function. Layers are expected to be in region {REGION}.",
    )
    strange = f"arn:aws:lambda:{REGION}:999999999999:layer:lay:1"
    assert await refused(desk, [strange]) == (
        "AccessDeniedException",
        f"User: {CONTEXT.principal_arn} is not authorized to perform: lambda:GetLayerVersion on resource: "
        f"{strange} because no resource-based policy allows the lambda:GetLayerVersion action",
    )
    assert (await desk.refusal("GetFunction", FunctionName="refused"))[0] == "ResourceNotFoundException"


async def test_code_and_layers_have_one_limit_together(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = await publish(desk)
    await desk.active()
    admit = desk.code.admit

    async def large(archive: Any, key: CodeKey | None = None) -> CodeArtifact:
        code = msgspec.structs.replace(await admit(archive, key), unpacked_bytes=262_144_000 - 10)
        desk.code._artifacts[code.code_sha256] = code
        return code

    monkeypatch.setattr(desk.code, "admit", large)
    words = (
        "Function code combined with layers exceeds the maximum allowed size of 262144000 bytes. "
        "The actual size is 262144001 bytes."
    )
    stored = await desk.code.stored()
    members = {"Runtime": "python3.12", "Handler": "handler.handler", "Layers": [layer]}
    created = await desk.refusal(
        "CreateFunction",
        FunctionName="big",
        Role=f"arn:aws:iam::{ACCOUNT}:role/r",
        Code={"ZipFile": zipped("big = 1")},
        **members,
    )
    assert created == (INVALID, words)
    assert await desk.code.stored() == stored
    await desk.ask("UpdateFunctionCode", FunctionName="fn", ZipFile=zipped("big = 2"))
    await desk.settled()
    updated = await desk.refusal("UpdateFunctionConfiguration", FunctionName="fn", Layers=[layer])
    assert updated == (INVALID, words)
    monkeypatch.undo()
    await desk.ask("UpdateFunctionCode", FunctionName="fn", ZipFile=zipped("small = 2"))
    await desk.settled()
    await desk.ask("UpdateFunctionConfiguration", FunctionName="fn", Layers=[layer])
    await desk.settled()
    monkeypatch.setattr(desk.code, "admit", large)
    recoded = await desk.refusal("UpdateFunctionCode", FunctionName="fn", ZipFile=zipped("big = 3"))
    assert recoded == (INVALID, words)


async def test_a_deleted_layer_stays_with_the_functions_that_use_it(desk: Desk) -> None:
    layer = await publish(desk)
    await desk.active(Layers=[layer])
    await desk.ask("DeleteLayerVersion", LayerName="lay", VersionNumber=1)
    await asyncio.sleep(0.05)
    assert len(await desk.code.stored()) == 2
    shown = await desk.ask("UpdateFunctionConfiguration", FunctionName="fn", Description="changed")
    assert shown["Layers"][0]["Arn"] == layer
    await desk.settled()
    assert await refused(desk, [layer]) == (INVALID, f"Layer version {layer} does not exist.")
    await desk.ask("UpdateFunctionConfiguration", FunctionName="fn", Layers=[])
    await desk.settled()
    await asyncio.sleep(0.05)
    assert len(await desk.code.stored()) == 1


async def test_a_deleted_function_lets_go_of_deleted_layers(desk: Desk) -> None:
    await desk.active(Layers=[await publish(desk)])
    await desk.ask("DeleteLayerVersion", LayerName="lay", VersionNumber=1)
    await desk.ask("DeleteFunction", FunctionName="fn")
    await asyncio.sleep(0.05)
    assert await desk.code.stored() == []


async def test_a_layer_deleted_while_a_function_is_created_is_refused(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = await publish(desk)
    admit = desk.code.admit

    async def slowly(archive: Any, key: CodeKey | None = None) -> CodeArtifact:
        await desk.ask("DeleteLayerVersion", LayerName="lay", VersionNumber=1)
        await asyncio.sleep(0.05)
        return await admit(archive, key)

    monkeypatch.setattr(desk.code, "admit", slowly)
    with pytest.raises(Exception, match=f"Layer version {layer} does not exist"):
        await desk.create(Layers=[layer])
    await asyncio.sleep(0.05)
    assert await desk.code.stored() == []
