"""The local code store with real packers: crashes, concurrency, remaking, and what it costs."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from stoker.core.errors import ServiceError
from stoker.packaging.code_store import LocalCodeStore, staging_folder
from stoker.packaging.packers import PackerPool, PackingFailed
from stoker.services.code import CodeArtifact
from tests.security.archives.zips import archive

SMALL = archive(("main.py", b"x = 1"), ("pkg/inner.py", b"y = 2"))


@pytest.fixture
async def packers(tmp_path: Path) -> AsyncIterator[PackerPool]:
    pool = PackerPool(staging_folder(tmp_path))
    yield pool
    await pool.close()


async def opened(folder: Path, packers: PackerPool, boot_id: str = "this boot") -> LocalCodeStore:
    store = LocalCodeStore(folder, packers, boot_id=boot_id)
    await store.start()
    return store


async def test_code_survives_a_restart_without_being_unpacked_again(
    tmp_path: Path, packers: PackerPool
) -> None:
    admitted = await (await opened(tmp_path, packers)).admit(SMALL)
    inode = (await (await opened(tmp_path, packers)).ready(admitted.code_sha256)).stat().st_ino
    again = await opened(tmp_path, packers)
    assert (await again.ready(admitted.code_sha256)).stat().st_ino == inode
    assert await again.admit(SMALL) == admitted


async def test_a_tree_of_another_boot_is_made_again_once_for_all_callers(
    tmp_path: Path, packers: PackerPool
) -> None:
    admitted = await (await opened(tmp_path, packers)).admit(SMALL)
    store = await opened(tmp_path, packers, "next boot")
    old = await store.original(admitted.code_sha256)
    assert old is not None
    old = old.parent / "task"
    (old / "main.py").write_bytes(b"\0\0\0\0\0")
    unpacked = 0
    unpack = packers.unpack

    async def counted(archive: int, directory: int, limit_bytes: int) -> object:
        nonlocal unpacked
        unpacked += 1
        return await unpack(archive, directory, limit_bytes)

    packers.unpack = counted  # type: ignore[method-assign]
    trees = await asyncio.gather(*(store.ready(admitted.code_sha256) for _ in range(20)))
    assert len(set(trees)) == 1
    assert unpacked == 1
    assert (trees[0] / "main.py").read_text() == "x = 1"
    assert os.listdir(staging_folder(tmp_path)) == []


async def test_a_damaged_original_is_not_run(tmp_path: Path, packers: PackerPool) -> None:
    admitted = await (await opened(tmp_path, packers)).admit(SMALL)
    store = await opened(tmp_path, packers, "next boot")
    original = await store.original(admitted.code_sha256)
    assert original is not None
    original.write_bytes(archive(("main.py", b"evil")))
    with pytest.raises(PackingFailed, match="damaged"):
        await store.ready(admitted.code_sha256)


async def test_leftovers_of_a_killed_process_are_removed(tmp_path: Path, packers: PackerPool) -> None:
    for name in ("unpacking", "forgotten"):
        (staging_folder(tmp_path) / name / "task").mkdir(parents=True)
        (staging_folder(tmp_path) / name / "task" / "f").write_bytes(b"x")
    await opened(tmp_path, packers)
    assert os.listdir(staging_folder(tmp_path)) == []


async def test_the_same_archive_from_many_callers_is_stored_once(tmp_path: Path, packers: PackerPool) -> None:
    store = await opened(tmp_path, packers)
    artifacts = await asyncio.gather(*(store.admit(SMALL) for _ in range(12)))
    assert len(set(map(str, artifacts))) == 1
    assert len(await store.stored()) == 1


async def test_forgetting_while_admitting_leaves_code_or_nothing_never_half(
    tmp_path: Path, packers: PackerPool
) -> None:
    store = await opened(tmp_path, packers)
    admitted = await store.admit(SMALL)

    async def forget() -> None:
        for _ in range(20):
            await store.forget(admitted.code_sha256)
            await asyncio.sleep(0.002)

    forgetting = asyncio.create_task(forget())
    for _ in range(10):
        again: CodeArtifact = await store.admit(SMALL)
        assert await store.original(again.code_sha256) is not None
    await forgetting
    await store.admit(SMALL)
    await store.close()
    assert ((await store.ready(admitted.code_sha256)) / "pkg" / "inner.py").read_text() == "y = 2"
    assert os.listdir(staging_folder(tmp_path)) == []


async def test_a_mounted_tree_outlives_being_forgotten(tmp_path: Path, packers: PackerPool) -> None:
    store = await opened(tmp_path, packers)
    admitted = await store.admit(SMALL)
    descriptor = os.open(await store.ready(admitted.code_sha256), os.O_PATH)
    await store.forget(admitted.code_sha256)
    await store.close()
    os.fstat(descriptor)
    os.close(descriptor)
    assert await store.stored() == os.listdir(staging_folder(tmp_path)) == []


async def test_a_packer_that_is_killed_is_replaced(tmp_path: Path) -> None:
    pool = PackerPool(staging_folder(tmp_path), packers=1)
    store = await opened(tmp_path, pool)
    big = archive(*((f"f{number}", os.urandom(1000)) for number in range(3000)))
    admitting = asyncio.create_task(store.admit(big))
    for _ in range(500):
        await asyncio.sleep(0.005)
        if list(staging_folder(tmp_path).glob("*/task/*")):
            break
    for process in _packer_processes():
        os.kill(process, signal.SIGKILL)
    with pytest.raises(PackingFailed):
        await admitting
    assert await store.stored() == os.listdir(staging_folder(tmp_path)) == []
    await store.admit(SMALL)
    await pool.close()
    assert _packer_processes() == []


async def test_a_small_archive_costs_little(tmp_path: Path, packers: PackerPool) -> None:
    """The goal is 200 creations a second; a packer started for each archive would take 50 ms alone."""
    store = await opened(tmp_path, packers)
    await packers.start()
    contents = [archive(("f", os.urandom(50))) for _ in range(30)]
    started_s = time.monotonic()
    await asyncio.gather(*(store.admit(content) for content in contents))
    assert (time.monotonic() - started_s) / len(contents) < 0.025


async def test_the_limit_is_configurable(tmp_path: Path, packers: PackerPool) -> None:
    store = LocalCodeStore(tmp_path, packers, boot_id="b", limit_bytes=9)
    await store.start()
    with pytest.raises(ServiceError, match="Unzipped size"):
        await store.admit(SMALL)


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
