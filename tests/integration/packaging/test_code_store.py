"""The local code store with real packers: crashes, concurrency, remaking, and what it costs."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from stoker.core.errors import ServiceError
from stoker.packaging.packers import PackingFailed
from stoker.services.code import CodeArtifact, CodeUnavailable
from stoker.services.object_store import ObjectStoreUnavailable
from stoker.store.memory_object_store import Fault, MemoryObjectStore
from tests.code_stores import ACCOUNT, TreeStore, opened, unpacking
from tests.security.archives.zips import archive

SMALL = archive(("main.py", b"x = 1"), ("pkg/inner.py", b"y = 2"))


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[TreeStore]:
    made = await opened(tmp_path)
    yield made
    await made.end()


async def test_code_survives_a_restart_and_is_unpacked_once_for_all_callers(
    store: TreeStore, tmp_path: Path
) -> None:
    admitted = await store.admit(SMALL)
    again = await opened(tmp_path)
    unpacked = 0
    unpack = again.packers.unpack

    async def counted(archive: int, directory: int, limit_bytes: int) -> object:
        nonlocal unpacked
        unpacked += 1
        return await unpack(archive, directory, limit_bytes)

    again.packers.unpack = counted  # type: ignore[method-assign]
    trees = await asyncio.gather(*(again.ready(admitted.code_sha256) for _ in range(20)))
    assert len(set(trees)) == unpacked == 1
    assert (trees[0] / "main.py").read_text() == "x = 1"
    assert os.listdir(unpacking(tmp_path)) == []
    assert await again.admit(SMALL) == admitted
    await again.end()


async def test_what_is_plain_is_in_the_cache_alone_and_is_gone_after_the_end(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    admitted = await store.admit(archive(("main.py", b"known plaintext " * 100), ("b", os.urandom(200_000))))
    tree = await store.ready(admitted.code_sha256)
    original = await store.original(admitted.code_sha256)
    assert original is not None
    plain = [file for file in tmp_path.rglob("*") if file.is_file() and b"known" in file.read_bytes()]
    assert plain == [tree / "main.py"]
    zips = [file for file in tmp_path.rglob("*") if file.is_file() and b"main.py" in file.read_bytes()]
    assert zips == [original]
    assert original.parent == store.folder
    assert store.folder.stat().st_mode & 0o777 == 0o700
    await store.end()
    assert [file for file in store.folder.rglob("*") if file.is_file()] == []


async def test_what_a_killed_process_left_plain_is_removed(tmp_path: Path) -> None:
    (tmp_path / "cache" / "trees" / "x").mkdir(parents=True)
    (tmp_path / "cache" / "trees" / "x" / "f").write_bytes(b"x")
    (tmp_path / "cache" / "download-1.zip").write_bytes(b"x")
    (tmp_path / "cache" / "link").symlink_to("/etc")
    store = await opened(tmp_path)
    assert [file for file in store.folder.rglob("*") if not file.is_dir()] == []
    await store.end()


async def test_damaged_code_is_not_run_and_can_be_uploaded_again(tmp_path: Path) -> None:
    objects = MemoryObjectStore()
    store = await opened(tmp_path, store=objects)
    name = (await store.admit(SMALL)).code_sha256
    [key] = objects.objects
    objects.objects[key] = objects.objects[key][:-9] + b"x" + objects.objects[key][-8:]
    again = await opened(tmp_path, store=objects)
    with pytest.raises(CodeUnavailable, match="damaged"):
        await again.ready(name)
    objects.objects[key] = objects.objects[key][:100]
    again = await opened(tmp_path, store=objects)
    with pytest.raises(CodeUnavailable, match="damaged"):
        await again.ready(name)
    await again.admit(SMALL)
    assert ((await again.ready(name)) / "main.py").read_text() == "x = 1"
    for each in (again, store):
        await each.packers.close()


async def test_a_store_that_fails_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    objects = MemoryObjectStore()
    store = await opened(tmp_path, store=objects)
    objects.inject(Fault(kind="fail", operation="put"))
    with pytest.raises(ObjectStoreUnavailable):
        await store.admit(SMALL)
    assert await store.stored() == []
    assert [file for file in store.folder.rglob("*") if file.is_file()] == []
    name = (await store.admit(SMALL)).code_sha256
    again = await opened(tmp_path, store=objects)
    objects.inject(Fault(kind="fail", operation="get"))
    with pytest.raises(CodeUnavailable):
        await again.ready(name)
    assert ((await again.ready(name)) / "main.py").read_text() == "x = 1"
    for each in (again, store):
        await each.packers.close()


async def test_the_cache_is_bounded_and_never_takes_what_is_used(tmp_path: Path) -> None:
    store = await opened(tmp_path, cache_bytes=200_000)
    contents = [archive(("f", os.urandom(60_000))) for _ in range(6)]
    names = [(await store.admit(content)).code_sha256 for content in contents]
    used = await store.ready(names[0])
    for name in names:
        (await store.use(name, (), None, ACCOUNT)).leave()
    assert len(os.listdir(store.folder / "trees")) <= 4
    assert (used / "f").exists()
    await store.end()


async def test_the_same_archive_from_many_callers_is_stored_once(tmp_path: Path, store: TreeStore) -> None:
    artifacts = await asyncio.gather(*(store.admit(SMALL) for _ in range(12)))
    assert len(set(map(str, artifacts))) == 1
    assert len(await store.stored()) == 1


async def test_forgetting_while_admitting_leaves_code_or_nothing_never_half(
    tmp_path: Path, store: TreeStore
) -> None:
    admitted = await store.admit(SMALL)

    async def forget() -> None:
        for _ in range(20):
            await store.forget(admitted.code_sha256)
            await asyncio.sleep(0.002)

    forgetting = asyncio.create_task(forget())
    for _ in range(10):
        again: CodeArtifact = await store.admit(SMALL)
        assert await store.stored() == [again.code_sha256]
    await forgetting
    await store.admit(SMALL)
    assert ((await store.ready(admitted.code_sha256)) / "pkg" / "inner.py").read_text() == "y = 2"
    assert os.listdir(unpacking(tmp_path)) == []


async def test_a_packer_that_is_killed_is_replaced(tmp_path: Path) -> None:
    store = await opened(tmp_path, packers=1)
    big = archive(*((f"f{number}", os.urandom(1000)) for number in range(3000)))
    admitting = asyncio.create_task(store.admit(big))
    for _ in range(500):
        await asyncio.sleep(0.005)
        if list(unpacking(tmp_path).glob("*/task/*")):
            break
    for process in _packer_processes():
        os.kill(process, signal.SIGKILL)
    with pytest.raises(PackingFailed):
        await admitting
    assert await store.stored() == os.listdir(unpacking(tmp_path)) == []
    await store.admit(SMALL)
    await store.end()
    assert _packer_processes() == []


async def test_a_small_archive_costs_little(store: TreeStore) -> None:
    """The goal is 200 creations a second; a packer started for each archive would take 50 ms alone."""
    await store.packers.start()
    contents = [archive(("f", os.urandom(50))) for _ in range(30)]
    started_s = time.monotonic()
    await asyncio.gather(*(store.admit(content) for content in contents))
    assert (time.monotonic() - started_s) / len(contents) < 0.025


async def test_the_limit_is_configurable(tmp_path: Path) -> None:
    store = await opened(tmp_path, limit_bytes=9)
    with pytest.raises(ServiceError, match="Unzipped size"):
        await store.admit(SMALL)
    await store.end()


def _packer_processes() -> list[int]:
    """Packers started by this process."""
    mine = []
    for entry in Path("/proc").iterdir():
        try:
            command = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1]) if command else 0
        except OSError:
            continue
        if b"stoker.packaging.packer\0" in command and parent == os.getpid():
            mine.append(int(entry.name))
    return mine
