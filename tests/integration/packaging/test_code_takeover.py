"""The code folder of earlier versions: sealed, then removed; nothing is lost, killed or failing at any moment."""

import base64
import hashlib
import os
from pathlib import Path

import pytest

from stoker.packaging.code_takeover import take_over
from stoker.services.object_store import ObjectStoreUnavailable
from stoker.store.memory_object_store import Fault, MemoryObjectStore
from tests.code_stores import opened
from tests.security.archives.zips import archive

SMALL = archive(("main.py", b"x = 1"))
BIG = archive(("main.py", b"x = 2"), ("big", os.urandom(300_000)))


def name_of(content: bytes) -> str:
    return base64.b64encode(hashlib.sha256(content).digest()).decode()


def laid_down(data: Path) -> Path:
    """A folder as earlier versions left it."""
    code = data / "code"
    for content in (SMALL, BIG):
        home = code / hashlib.sha256(content).hexdigest()
        (home / "task").mkdir(parents=True)
        (home / "task" / "main.py").write_bytes(b"x")
        (home / "original.zip").write_bytes(content)
        (home / "facts.json").write_text(f'{{"size_bytes":{len(content)},"unpacked_bytes":5}}')
        (home / "boot").write_text("boot")
    for derived in (".staging", ".bytecode", ".layered"):
        (code / derived / "x").mkdir(parents=True)
    return code


async def test_everything_is_taken_over_and_the_folder_is_gone(tmp_path: Path) -> None:
    code = laid_down(tmp_path)
    store = await opened(tmp_path)
    assert await take_over(code, store.vault, store.packers) == []
    assert not code.exists()
    for content in (SMALL, BIG):
        original = await store.original(name_of(content))
        assert original is not None
        assert original.read_bytes() == content
        artifact = await store.artifact(name_of(content))
        assert artifact is not None
        assert (artifact.size_bytes, artifact.unpacked_bytes) == (len(content), 5)
    assert await take_over(code, store.vault, store.packers) == []
    await store.end()


@pytest.mark.parametrize("calls", range(6))
async def test_a_failure_at_any_step_loses_nothing(tmp_path: Path, calls: int) -> None:
    code = laid_down(tmp_path)
    objects = MemoryObjectStore()
    objects.inject(Fault(kind="late" if calls % 2 else "fail", operation="put", times=1 + calls // 2))
    store = await opened(tmp_path, store=objects)
    for _ in range(8):
        try:
            await take_over(code, store.vault, store.packers)
            break
        except ObjectStoreUnavailable:
            assert code.exists()
            await store.vault.start()
    assert not code.exists()
    assert sorted(await store.stored()) == sorted(map(name_of, (SMALL, BIG)))
    await store.end()


async def test_what_a_kill_between_storing_and_removing_left_goes(tmp_path: Path) -> None:
    code = laid_down(tmp_path)
    store = await opened(tmp_path)
    await store.admit(SMALL)
    (code / hashlib.sha256(SMALL).hexdigest() / "facts.json").unlink()
    assert await take_over(code, store.vault, store.packers) == []
    assert not code.exists()
    await store.end()


async def test_a_damaged_archive_stays_where_it_is(tmp_path: Path) -> None:
    code = laid_down(tmp_path)
    digest = hashlib.sha256(BIG).hexdigest()
    (code / digest / "original.zip").write_bytes(BIG[:-1])
    store = await opened(tmp_path)
    assert await take_over(code, store.vault, store.packers) == [digest]
    assert os.listdir(code) == [digest]
    assert (code / digest / "original.zip").read_bytes() == BIG[:-1]
    assert await store.stored() == [name_of(SMALL)]
    await store.end()
