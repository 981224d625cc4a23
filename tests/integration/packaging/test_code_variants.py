"""What is made of code beside its image: sealed with it, used once it is there, refused when it was tampered with."""

import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from stoker.packaging.code_cache import MAGIC, PACK
from stoker.packaging.landlock import version as landlock
from stoker.sandbox.container_mounter import ContainerMounter
from stoker.services.code import CodeInUse
from stoker.services.volumes import MountedTree, MountRefused
from stoker.store.memory_object_store import MemoryObjectStore
from tests.code_stores import ACCOUNT, TreeStore, opened
from tests.integration.sandbox.running_jail import RunningJail
from tests.integration.sandbox.running_jail import missing as no_jail
from tests.integration.volumes import small
from tests.running import NODE
from tests.security.archives.zips import archive, link

PYTHON = (
    Path("/usr/bin/python3.11") if Path("/usr/bin/python3.11").exists() else Path(sys.executable).resolve()
)
TAG = f"cpython-{sys.version_info.major}{sys.version_info.minor}"
CONTENT = archive(("main.py", b"x = 1\n"), ("pkg/inner.py", b"y = 2\n"), ("data", b"known plaintext " * 10))


@pytest.fixture
async def mounter() -> AsyncIterator[ContainerMounter]:
    if why := no_jail() or small.missing() or ("" if landlock() else "no Landlock to confine compilers with"):
        pytest.skip(why)
    jail = RunningJail("--no-egress")
    jail.start()
    driver = await jail.driver()
    if driver.mounter.unavailable:
        pytest.skip(driver.mounter.unavailable)
    yield driver.mounter
    await driver.close()
    jail.stop()


class Place:
    """A store that is opened again and again over the same objects."""

    def __init__(self, folder: Path, mounter: ContainerMounter) -> None:
        self._folder = folder
        self._mounter = mounter
        self.objects = MemoryObjectStore()

    async def open(self, interpreter: Path = PYTHON) -> TreeStore:
        return await opened(self._folder, mounter=self._mounter, store=self.objects, interpreter=interpreter)

    def variants(self) -> list[str]:
        names = (key.partition(".")[2] for key in self.objects.objects)
        return sorted(name for name in names if name != "key" and not name.startswith("package-"))


@pytest.fixture
def place(tmp_path: Path, mounter: ContainerMounter) -> Place:
    return Place(tmp_path, mounter)


def shows(tree: object) -> set[str]:
    assert isinstance(tree, MountedTree)
    root = Path(f"/proc/self/fd/{tree.folder}/")
    return {str(file.relative_to(root)) for file in root.rglob("*") if file.is_file()}


async def used(store: TreeStore, *names: str, runtime: str = "python3.11") -> CodeInUse:
    return await store.use(names[0], names[1:], runtime, ACCOUNT)


async def no_packing(*_: object) -> None:
    raise AssertionError("packed again")


PLAIN = {"main.py", "pkg/inner.py", "data"}
COMPILED = PLAIN | {f"__pycache__/main.{TAG}.pyc", f"pkg/__pycache__/inner.{TAG}.pyc"}


async def test_code_works_before_its_byte_code_is_there_and_has_it_after(place: Place) -> None:
    store = await place.open()
    name = (await store.admit(CONTENT)).code_sha256
    first = await used(store, name)
    await store.compiled()
    second = await used(store, name)
    assert shows(first.task) == PLAIN
    assert shows(second.task) == COMPILED
    await store.end()
    again = await place.open()
    again.packers.pack = no_packing  # type: ignore[assignment,method-assign]
    assert shows((await used(again, name)).task) == COMPILED
    assert all(b"known" not in content for content in place.objects.objects.values())
    await store.end()
    await again.end()


async def test_preparing_compiles_once_it_is_quiet(place: Place) -> None:
    store = await place.open()
    name = (await store.admit(CONTENT)).code_sha256
    await store.prepare(name, (), "python3.11", ACCOUNT)
    await store.compiled()
    assert shows((await used(store, name)).task) == COMPILED
    await store.end()


async def test_a_variant_that_was_tampered_with_is_refused_and_made_again(place: Place) -> None:
    store = await place.open()
    name = (await store.admit(CONTENT)).code_sha256
    (await used(store, name)).leave()
    await store.compiled()
    await store.end()
    [key] = [key for key in place.objects.objects if ".python" in key]
    good = place.objects.objects[key]
    place.objects.objects[key] = good[:1000] + bytes([good[1000] ^ 1]) + good[1001:]
    again = await place.open()
    assert shows((await used(again, name)).task) == PLAIN
    await again.compiled()
    assert shows((await used(again, name)).task) == COMPILED
    await again.end()


async def test_it_is_deleted_with_its_code(place: Place) -> None:
    store = await place.open()
    name = (await store.admit(CONTENT)).code_sha256
    in_use = await used(store, name)
    await store.compiled()
    assert len(place.variants()) == 1
    await store.forget(name)
    assert place.objects.objects == {}
    assert shows(in_use.task) == PLAIN
    await store.admit(CONTENT)
    in_use = await used(store, name)
    await store.forget(name)  # while it is made
    await store.compiled()
    assert place.objects.objects == {}
    await store.end()


async def test_layers_are_one_stored_image_that_goes_with_any_of_them(place: Place) -> None:
    store = await place.open()
    one = (await store.admit(archive(("python/lib.py", b"x = 1\n"), ("a", b"1")))).code_sha256
    two = (await store.admit(archive(("python/more.py", b"y = 1\n"), ("a", b"2")))).code_sha256
    task = (await store.admit(CONTENT)).code_sha256
    before = await used(store, task, one, two)
    assert shows(before.opt) == {"python/lib.py", "python/more.py", "a"}
    await used(store, task, one, two, runtime="provided.al2023")
    await store.compiled()
    await store.end()
    again = await place.open()
    again.packers.pack = no_packing  # type: ignore[assignment,method-assign]
    after = await used(again, task, one, two)
    assert shows(after.opt) >= {f"python/__pycache__/{name}.{TAG}.pyc" for name in ("lib", "more")}
    shown = (await used(again, task, one, two, runtime="provided.al2023")).opt
    assert shows(shown) == {"python/lib.py", "python/more.py", "a"}
    assert len([name for name in place.variants() if name.startswith("layers-")]) == 2
    await again.forget(two)
    assert [name for name in place.variants() if name.startswith("layers-")] == []
    await again.end()


async def test_uploaded_files_in_the_way_of_byte_code_stay(place: Place) -> None:
    store = await place.open()
    content = archive(
        ("main.py", b"x = 1\n"), link("__pycache__", "data"), ("data/f", b"1"),
        ("pkg/a.py", b"y = 1\n"), (f"pkg/__pycache__/a.{TAG}.pyc/file", b"2"), ("ok/b.py", b"z = 1\n"),
    )  # fmt: skip
    name = (await store.admit(content)).code_sha256
    (await used(store, name)).leave()
    await store.compiled()
    tree = (await used(store, name)).task
    assert isinstance(tree, MountedTree)
    assert os.readlink("__pycache__", dir_fd=tree.folder) == "data"
    assert f"pkg/__pycache__/a.{TAG}.pyc/file" in shows(tree)
    assert f"ok/__pycache__/b.{TAG}.pyc" in shows(tree)
    await store.end()


async def test_code_of_a_host_of_trees_is_packed_once(place: Place, tmp_path: Path) -> None:
    trees = await opened(tmp_path, store=place.objects)
    name = (await trees.admit(CONTENT)).code_sha256
    await trees.end()
    store = await place.open()
    assert shows((await used(store, name, runtime="provided.al2023")).task) == PLAIN
    await store.compiled()
    await store.end()
    again = await place.open()
    again.packers.pack = no_packing  # type: ignore[assignment,method-assign]
    assert shows((await used(again, name, runtime="provided.al2023")).task) == PLAIN
    await again.end()


@pytest.mark.skipif(NODE is None, reason="no Node.js on this host")
async def test_nodes_pack_is_one_accounts_own(place: Place) -> None:
    assert NODE is not None
    store = await place.open(Path(NODE))
    name = (await store.admit(archive(("index.js", b"exports.handler = () => 1;\n")))).code_sha256
    assert (await used(store, name, runtime="nodejs20.x")).cache is None
    await store.compiled()
    cache = (await used(store, name, runtime="nodejs20.x")).cache
    assert isinstance(cache, Path)
    assert (cache / PACK).read_bytes().startswith(MAGIC)
    assert (await store.use(name, (), "nodejs20.x", "111111111111")).cache is None
    await store.end()
    [key] = [key for key in place.objects.objects if ".pack-nodejs20.x-000000000000-" in key]
    place.objects.objects[key] = place.objects.objects[key][:-1] + b"\0"
    again = await place.open(Path(NODE))
    assert (await used(again, name, runtime="nodejs20.x")).cache is None
    await again.compiled()
    assert (await used(again, name, runtime="nodejs20.x")).cache is not None
    await again.end()


async def test_what_cannot_be_mounted_is_unpacked(place: Place, mounter: ContainerMounter) -> None:
    store = await place.open()
    name = (await store.admit(CONTENT)).code_sha256

    async def refuse(_: int) -> MountedTree:
        raise MountRefused("no room for another mount")

    mounter.mount_file = refuse  # type: ignore[method-assign]
    task = (await used(store, name)).task
    assert isinstance(task, Path)
    assert (task / "main.py").read_bytes() == b"x = 1\n"
    await store.end()
