"""Code that nobody names any more stays as long as cold starts under way may mount it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from stoker.services.functions import FunctionKey, FunctionVersion
from tests.unit.control.desk import Desk, zipped

FIRST, SECOND = zipped("x = 1"), zipped("y = 2")
GRACE_S = 0.2


@pytest.fixture
async def graceful(tmp_path: Path) -> AsyncIterator[Desk]:
    made = Desk(tmp_path, code_grace_s=GRACE_S)
    await made.active("gone", Code={"ZipFile": FIRST})
    await made.active("other", Code={"ZipFile": SECOND})
    yield made
    await made.plane.close()


async def names_first_and_fails(desk: Desk) -> None:
    """Admits FIRST once more and leaves without using it."""
    await desk.ask("UpdateFunctionCode", FunctionName="other", ZipFile=FIRST, DryRun=True)


async def test_a_request_that_fails_does_not_shorten_the_grace(graceful: Desk) -> None:
    await graceful.ask("DeleteFunction", FunctionName="gone")
    await names_first_and_fails(graceful)
    assert len(await graceful.code.stored()) == 2
    await asyncio.sleep(2 * GRACE_S)
    assert len(await graceful.code.stored()) == 1


async def test_nor_does_one_that_fails_while_the_function_is_deleted(
    graceful: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deletion is in the store, and its author has not been told yet."""
    written, told = asyncio.Event(), asyncio.Event()
    delete = graceful.metadata.delete

    async def slowly(key: FunctionKey) -> list[FunctionVersion]:
        deleted = await delete(key)
        written.set()
        await told.wait()
        return deleted

    monkeypatch.setattr(graceful.metadata, "delete", slowly)
    deletion = asyncio.create_task(graceful.ask("DeleteFunction", FunctionName="gone"))
    await written.wait()
    await names_first_and_fails(graceful)
    assert len(await graceful.code.stored()) == 2
    told.set()
    await deletion
    assert len(await graceful.code.stored()) == 2
    await asyncio.sleep(2 * GRACE_S)
    assert len(await graceful.code.stored()) == 1


async def test_replaced_code_has_its_grace_too(graceful: Desk) -> None:
    await graceful.ask("UpdateFunctionCode", FunctionName="gone", ZipFile=SECOND)
    await graceful.settled()
    await names_first_and_fails(graceful)
    assert len(await graceful.code.stored()) == 2
    await asyncio.sleep(2 * GRACE_S)
    assert len(await graceful.code.stored()) == 1
