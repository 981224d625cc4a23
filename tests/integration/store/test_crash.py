"""kill -9 in the midst of creations and deletions: what was acknowledged holds, and nothing is left lying about."""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

from stoker.services.lambda_types import DeleteFunctionRequest, GetFunctionRequest, ListFunctionsRequest
from tests.code_stores import unpacking
from tests.integration.store.creator_process import CONTEXT, opened

KILLS = 3


def test_kill_9_during_creations(tmp_path: Path) -> None:
    for _ in range(KILLS):
        lines = _run_and_kill(tmp_path)
        created, deleting, deleted = [
            {line.removeprefix(word) for line in lines if line.startswith(word)}
            for word in ("created ", "deleting ", "deleted ")
        ]
        found = asyncio.run(_inspect(tmp_path))
        assert created - deleting <= found
        assert not deleted & found
        asyncio.run(_empty(tmp_path, found))


def _run_and_kill(data: Path) -> list[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    creator = subprocess.Popen(
        [sys.executable, "-m", "tests.integration.store.creator_process", str(data)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=Path(__file__).parents[3],
    )
    assert creator.stdout is not None
    lines = [creator.stdout.readline() for _ in range(12)]
    time.sleep(0.2)
    creator.kill()
    lines += list(creator.stdout)
    creator.wait()
    whole = [line.strip() for line in lines if line.endswith("\n")]
    assert len(whole) > 10
    return whole


async def _inspect(data: Path) -> set[str]:
    """The functions after a restart; all active, each with its code, and no other code."""
    plane, code, packers, database = await opened(data)
    await plane._settling.drained()
    await plane._holds.swept()
    operations = plane.operations()
    names: set[str] = set()
    used: set[str] = set()
    marker = None
    while True:
        page = await operations["ListFunctions"](CONTEXT, ListFunctionsRequest(marker=marker))
        for listed in page.functions:
            request = GetFunctionRequest(function_name=listed.function_name)
            shown = (await operations["GetFunction"](CONTEXT, request)).configuration
            assert shown.state == "Active"
            assert len(list(((await code.ready(shown.code_sha256)) / "folder").iterdir())) == 5
            assert await code.original(shown.code_sha256) is not None
            names.add(shown.function_name)
            used.add(shown.code_sha256)
        marker = page.next_marker
        if marker is None:
            break
    assert set(await code.stored()) == used
    await _closed(plane, code, packers, database)
    assert os.listdir(unpacking(data)) == os.listdir(data / "sealing") == []
    return names


async def _empty(data: Path, names: set[str]) -> None:
    plane, code, packers, database = await opened(data)
    for name in names:
        await plane.operations()["DeleteFunction"](CONTEXT, DeleteFunctionRequest(function_name=name))
    await asyncio.sleep(0.1)
    await _closed(plane, code, packers, database)


async def _closed(plane: object, code: object, packers: object, database: object) -> None:
    for part in (plane, code, packers, database):
        await part.close()  # type: ignore[attr-defined]
