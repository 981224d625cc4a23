"""Requests that carry archives, read in slices: as the ordinary way reads them, or left to it."""

import asyncio
import base64
import contextlib
import json
import os
from typing import Any

import pytest

from stoker.api import large_zips
from stoker.api.large_zips import FIELDS, read_in_slices
from stoker.api.model import LAMBDA, compile_service
from stoker.api.parse import parse_request
from stoker.core.errors import ServiceError

OPERATIONS = compile_service(LAMBDA).operations
FUNCTION = {"FunctionName": "f", "Role": "arn:aws:iam::000000000000:role/r", "Runtime": "python3.11"}
URI: dict[str, dict[str, bytes]] = {
    "CreateFunction": {},
    "UpdateFunctionCode": {"FunctionName": b"f"},
    "PublishLayerVersion": {"LayerName": b"l"},
}


def parsed(operation: str, body: bytes | memoryview) -> Any:
    return parse_request(OPERATIONS[operation], URI[operation], b"", [], body)


async def sliced(operation: str, body: bytes) -> Any:
    return await read_in_slices(
        memoryview(body), FIELDS[operation], lambda skeleton: parsed(operation, skeleton)
    )


def text(size_bytes: int) -> str:
    return base64.b64encode(os.urandom(size_bytes)).decode()


def create(zip_file: str, **more: Any) -> bytes:
    return json.dumps({**FUNCTION, "Code": {"ZipFile": zip_file}, **more}).encode()


@pytest.mark.parametrize("size_bytes", [0, 1, 2, 3, 196_607, 196_608, 196_609, 1_000_000])
async def test_they_are_read_as_in_one_piece(size_bytes: int) -> None:
    body = create(text(size_bytes), Handler="a.b")
    assert await sliced("CreateFunction", body) == parsed("CreateFunction", body)
    body = json.dumps({"ZipFile": text(size_bytes), "Publish": True}).encode()
    assert await sliced("UpdateFunctionCode", body) == parsed("UpdateFunctionCode", body)
    body = json.dumps({"Content": {"ZipFile": text(size_bytes)}}).encode()
    assert await sliced("PublishLayerVersion", body) == parsed("PublishLayerVersion", body)


UNUSUAL = {
    "no archive": json.dumps({**FUNCTION, "Code": {"S3Bucket": "bbb", "S3Key": "k"}}).encode(),
    "elsewhere": json.dumps({**FUNCTION, "ZipFile": text(300_000), "Code": {"S3Key": "k"}}).encode(),
    "named twice": create("AAAA").replace(b'"ZipFile": "AAAA"', b'"ZipFile": "AAAA", "ZipFile": "QUFB"'),
    "in a description": create("AAAA", Description='x "ZipFile": "QUFB" y'),
    "escaped": create("AA+/").replace(b"/", b"\\/"),
    "far behind": json.dumps({"Description": "d" * 70_000, **FUNCTION, "Code": {"ZipFile": "AAAA"}}).encode(),
}


@pytest.mark.parametrize("name", UNUSUAL)
async def test_what_is_unusual_is_left_or_read_the_same(name: str) -> None:
    body = UNUSUAL[name]
    expected: list[Any] = [None]
    with contextlib.suppress(ServiceError):
        expected.append(parsed("CreateFunction", body))
    assert await sliced("CreateFunction", body) in expected


@pytest.mark.parametrize(
    "wrong",
    [
        "AAA",
        "AA==" + "A" * 300_000,
        "A" * 262_142 + "==" + "A" * 8,
        "A" * 300_000 + "\\n",
        "A" * 300_001,
        "é" * 4,
    ],
)
async def test_what_is_no_base64_is_left_to_the_ordinary_way(wrong: str) -> None:
    body = create("TEXT").replace(b"TEXT", wrong.encode())
    assert await sliced("CreateFunction", body) is None
    with pytest.raises(ServiceError, match="SerializationException"):
        parsed("CreateFunction", body)


async def test_what_is_wrong_beside_the_archive_is_said() -> None:
    with pytest.raises(ServiceError, match="ValidationException"):
        await sliced("CreateFunction", create(text(300_000), MemorySize=-1))
    with pytest.raises(ServiceError, match="SerializationException"):
        await sliced("CreateFunction", create(text(300_000))[:-1])


async def test_others_have_their_turns_between(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_zips, "SLICE_BYTES", 4096)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    waiting = asyncio.create_task(others())
    await sliced("CreateFunction", create(text(300_000)))
    waiting.cancel()
    assert turns >= 400_000 // 4096
