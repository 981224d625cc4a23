"""Code as images that a real jail mounts: what a sandbox sees is what unpacking would leave, mounted in no time."""

import asyncio
import os
import random
import stat
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest

from stoker.core.errors import ServiceError
from stoker.sandbox.container_mounter import ContainerMounter
from stoker.services.code import CodeUnavailable
from stoker.services.volumes import MountedTree
from stoker.store.memory_object_store import MemoryObjectStore
from tests.code_stores import ACCOUNT, TreeStore, opened
from tests.integration.sandbox.running_jail import RunningJail
from tests.integration.sandbox.running_jail import missing as no_jail
from tests.integration.volumes import small
from tests.security.archives.test_archives import REFUSED
from tests.security.archives.zips import archive, link, member

CONTENT = archive(
    ("main.py", b"known plaintext " * 10),
    (member("run", 0o700), b"#!/bin/sh\n"),
    (member("sticky/", 0o1777, kind=stat.S_IFDIR), b""),
    ("deep/er/empty", b""),
    ("deep/er/big", os.urandom(300_000)),
    ("gr\u00fcn.txt", b"x"),
    link("up", "../../etc/passwd"),
    link("dir", "deep"),
)


class World(NamedTuple):
    jail: RunningJail
    mounter: ContainerMounter


@pytest.fixture
async def world() -> AsyncIterator[World]:
    if why := no_jail() or small.missing():
        pytest.skip(why)
    jail = RunningJail("--no-egress")
    jail.start()
    driver = await jail.driver()
    if driver.mounter.unavailable:
        pytest.skip(driver.mounter.unavailable)
    yield World(jail, driver.mounter)
    await driver.close()
    jail.stop()


def shown(root: Path) -> dict[str, tuple[str, object, int]]:
    """Everything below a folder: kind and mode, content, time."""
    found: dict[str, tuple[str, object, int]] = {}
    for path in root.rglob("*"):
        status = path.lstat()
        mode = stat.filemode(status.st_mode)
        content: object = None
        if path.is_symlink():
            content = os.readlink(path)
        elif path.is_file():
            content = path.read_bytes()
        made = 0 if stat.S_ISDIR(status.st_mode) else int(status.st_mtime)
        found[str(path.relative_to(root))] = mode, content, made if not path.is_symlink() else 0
    return found


async def mounted(store: TreeStore, name: str, layers: tuple[str, ...] = ()) -> tuple[Path, MountedTree]:
    in_use = await store.use(name, layers, "python3.11", ACCOUNT)
    tree = in_use.opt if layers else in_use.task
    assert isinstance(tree, MountedTree)
    return Path(f"/proc/self/fd/{tree.folder}/"), tree


async def test_an_image_shows_what_a_tree_shows(world: World, tmp_path: Path) -> None:
    store = await opened(tmp_path / "images", mounter=world.mounter)
    trees = await opened(tmp_path / "trees")
    name = (await store.admit(CONTENT)).code_sha256
    assert await trees.admit(CONTENT) == await store.artifact(name)
    root, _ = await mounted(store, name)
    tree = await trees.ready(name)
    assert shown(root) == shown(tree)
    assert stat.S_IMODE(root.stat().st_mode) == 0o755
    with pytest.raises(OSError, match="Read-only"):
        (root / "new").touch()
    await store.end()
    await trees.end()


async def test_layers_are_one_image_like_their_merged_tree(world: World, tmp_path: Path) -> None:
    one = archive(
        ("x.py", b"1"), ("__pycache__/x.cpython-311.pyc", b"old"), ("y/f", b"1"), ("z", b"1"), link("l", "y")
    )
    two = archive(
        ("__pycache__/x.cpython-312.pyc", b"new"), ("x.py", b"2"), ("y", b"2"), ("z/f", b"2"), ("l/f", b"2")
    )
    store = await opened(tmp_path / "images", mounter=world.mounter)
    trees = await opened(tmp_path / "trees")
    names = [(await each.admit(content)).code_sha256 for each in (store, trees) for content in (one, two)]
    for layers in ((names[0], names[1]), (names[1], names[0])):
        root, _ = await mounted(store, names[0], layers)
        merged = (await trees.use(names[0], layers, None, ACCOUNT)).opt
        assert isinstance(merged, Path)
        assert shown(root) == shown(merged)
    await store.end()
    await trees.end()


async def test_it_is_mounted_once_for_all_and_unmounted_when_the_last_has_left(
    world: World, tmp_path: Path
) -> None:
    store = await opened(tmp_path, mounter=world.mounter, cache_bytes=0)
    name = (await store.admit(CONTENT)).code_sha256
    uses = await asyncio.gather(*(store.use(name, (), None, ACCOUNT) for _ in range(10)))
    assert len({use.task for use in uses}) == 1
    tree = uses[0].task
    assert isinstance(tree, MountedTree)
    await store.forget(name)
    for use in uses[1:]:
        use.leave()
    assert (Path(f"/proc/self/fd/{tree.folder}") / "main.py").exists()
    uses[0].leave()
    await store.end()
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(tree.folder)


async def test_after_a_restart_it_is_decrypted_and_mounted_not_packed(world: World, tmp_path: Path) -> None:
    store = await opened(tmp_path, mounter=world.mounter)
    name = (await store.admit(CONTENT)).code_sha256
    await store.end()
    again = await opened(tmp_path, mounter=world.mounter)

    async def refuse(*_: object) -> None:
        raise AssertionError("packed again")

    again.packers.pack = refuse  # type: ignore[assignment,method-assign]
    root, _ = await mounted(again, name)
    assert (root / "main.py").read_bytes() == b"known plaintext " * 10
    named = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert [file for file in named if b"known" in file.read_bytes() or b"main.py" in file.read_bytes()] == []
    await again.end()


async def test_code_of_a_host_without_mounts_is_packed_at_its_first_use(world: World, tmp_path: Path) -> None:
    trees = await opened(tmp_path)
    name = (await trees.admit(CONTENT)).code_sha256
    await trees.end()
    store = await opened(tmp_path, mounter=world.mounter)
    root, _ = await mounted(store, name)
    assert (root / "deep" / "er" / "empty").read_bytes() == b""
    await store.end()
    back = await opened(tmp_path)
    assert ((await back.ready(name)) / "run").read_bytes() == b"#!/bin/sh\n"
    await back.end()


@pytest.mark.parametrize("name", sorted(REFUSED))
async def test_hostile_archives_are_refused_as_by_unpacking(world: World, tmp_path: Path, name: str) -> None:
    content, message = REFUSED[name]
    store = await opened(tmp_path, mounter=world.mounter, packers=1)
    with pytest.raises(ServiceError) as refused:
        await store.admit(content)
    assert (refused.value.code, refused.value.message) == ("InvalidParameterValueException", message)
    assert await store.stored() == []
    await store.end()


async def test_a_flipped_bit_is_caught_before_it_is_mounted(world: World, tmp_path: Path) -> None:
    objects = MemoryObjectStore()
    store = await opened(tmp_path, mounter=world.mounter, store=objects)
    name = (await store.admit(CONTENT)).code_sha256
    await store.end()
    [package] = [key for key in objects.objects if not key.endswith(".key")]
    good = objects.objects[package]
    for at in (len(good) // 2 + 1000, len(good) - 20):
        objects.objects[package] = good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]
        again = await opened(tmp_path, mounter=world.mounter, store=objects)
        with pytest.raises(CodeUnavailable, match="damaged"):
            await again.use(name, (), None, ACCOUNT)
        await again.end()


async def test_a_jail_that_dies_takes_its_mounts_and_the_next_ones_are_made_again(
    world: World, tmp_path: Path
) -> None:
    store = await opened(tmp_path, mounter=world.mounter)
    name = (await store.admit(CONTENT)).code_sha256
    before = await store.use(name, (), None, ACCOUNT)
    world.mounter.lost()
    before.leave()
    assert not isinstance((await store.use(name, (), None, ACCOUNT)).task, MountedTree)
    await store.end()


async def test_a_big_package_mounts_in_milliseconds(world: World, tmp_path: Path) -> None:
    chance = random.Random(1)
    big = archive(
        *((f"pkg{n % 50}/m{n}.py", b"x = 1\n" * 100) for n in range(2_000)),
        *((f"lib/{n}.so", chance.randbytes(1_000_000) + bytes(9_000_000)) for n in range(24)),
    )
    store = await opened(tmp_path, mounter=world.mounter)
    artifact = await store.admit(big)
    assert artifact.unpacked_bytes > 240_000_000
    started_s = time.perf_counter()
    root, _ = await mounted(store, artifact.code_sha256)
    took_ms = (time.perf_counter() - started_s) * 1000
    assert len(os.listdir(root / "lib")) == 24
    print(f"mounted 240 MB in {took_ms:.1f} ms")
    assert took_ms < 250
    await store.end()
