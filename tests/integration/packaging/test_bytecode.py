"""Byte-code made by real interpreters under their confinement: what functions see, hostile sources, crashes."""

import asyncio
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from stoker.packaging import landlock
from stoker.packaging.bytecode import LAUNCH_COMMAND, ByteCode
from tests import code_stores
from tests.code_stores import TreeStore, compiling, unpacking
from tests.security.archives.zips import archive

needs_landlock = pytest.mark.skipif(landlock.version() == 0, reason="this kernel has no Landlock")

HERE = Path(os.path.realpath(getattr(sys, "_base_executable", sys.executable)))
TAG = sys.implementation.cache_tag
SMALL = archive(("main.py", b"import pkg.inner\nx = 1\n"), ("pkg/inner.py", b"y = 2\n"))


async def tree_of(store: TreeStore, content: bytes, runtime: str = "python") -> Path:
    """The tree of an archive, compiled as far as it will be."""
    tree = await store.ready((await store.admit(content)).code_sha256, runtime)
    await bytecode_of(store).wait_compiled()
    return tree


def bytecode_of(store: TreeStore) -> ByteCode:
    assert store.bytecode is not None
    return store.bytecode


async def opened(
    folder: Path, interpreter: Path | None = HERE, launch: Sequence[str] = LAUNCH_COMMAND
) -> TreeStore:
    return await code_stores.opened(folder, interpreter=interpreter, launch=launch, compiles=True)


async def closed(store: TreeStore) -> None:
    await store.end()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[TreeStore]:
    made = await opened(tmp_path)
    yield made
    await closed(made)
    assert os.listdir(compiling(tmp_path)) == []


def compiled(tree: Path) -> set[str]:
    return {str(file.relative_to(tree)) for file in tree.rglob("*.pyc")}


def run(tree: Path, code: str, interpreter: Path = HERE) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [interpreter, "-B", "-S", "-v", "-c", f"import sys; sys.path.insert(0, {str(tree)!r})\n{code}"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={},
    )


@needs_landlock
async def test_imports_use_the_bytecode_and_nothing_else_changed(store: TreeStore) -> None:
    content = archive(("main.py", b"import pkg.inner\n"), ("pkg/inner.py", b"y = 2\n"), ("data.txt", b"d"))
    tree = await tree_of(store, content)
    assert compiled(tree) == {f"__pycache__/main.{TAG}.pyc", f"pkg/__pycache__/inner.{TAG}.pyc"}
    result = run(tree, "import main; print(main.pkg.inner.y)")
    assert result.stdout == "2\n"
    assert f"code object from '{tree}/__pycache__/main.{TAG}.pyc'" in result.stderr.replace('"', "'")
    assert f"code object from {tree}/main.py" not in result.stderr
    [name] = await store.stored()
    original = await store.original(name)
    assert original is not None
    assert original.read_bytes() == content
    assert bytecode_of(store).statistics().files == 2


@needs_landlock
async def test_tracebacks_name_the_mounted_path_and_the_line(store: TreeStore) -> None:
    tree = await tree_of(store, archive(("main.py", b"def f():\n    # here\n    raise ValueError('x')\n")))
    code = "import marshal; c = marshal.loads(open(sys.argv[1], 'rb').read()[16:]); print(c.co_filename)"
    pyc = tree / "__pycache__" / f"main.{TAG}.pyc"
    shown = subprocess.run(
        [HERE, "-c", "import sys;" + code, pyc], capture_output=True, text=True, check=True
    ).stdout
    assert shown == "/var/task/main.py\n"
    result = run(tree, "import main; main.f()")
    assert f'File "{tree}/main.py", line 3, in f' in result.stderr
    assert "raise ValueError('x')" in result.stderr


def _other_interpreters() -> list[Path]:
    found: set[Path] = set()
    for minor in range(8, 16):
        program = shutil.which(f"python3.{minor}")
        if program is None:
            continue
        probe = subprocess.run(
            [program, "-c", "import sys; print(getattr(sys, '_base_executable', sys.executable))"],
            capture_output=True,
            text=True,
            check=False,
        )
        if probe.returncode == 0:
            found.add(Path(os.path.realpath(probe.stdout.strip())))
    return sorted(found - {HERE})


@needs_landlock
async def test_another_version_compiles_with_its_own_interpreter_beside_the_first(tmp_path: Path) -> None:
    others = _other_interpreters()
    if not others:
        pytest.skip("this host has no second Python")
    for other in others:
        store = await opened(tmp_path, other)
        tree = await tree_of(store, SMALL)
        result = run(tree, "import main; print(sys.implementation.cache_tag)", other)
        tag = result.stdout.strip()
        assert f"__pycache__/main.{tag}.pyc" in compiled(tree), result.stderr
        assert f"main.{tag}.pyc'" in result.stderr
        await closed(store)
    store = await opened(tmp_path)
    tree = await tree_of(store, SMALL)
    assert f"__pycache__/main.{TAG}.pyc" in compiled(tree)
    await closed(store)


HOSTILE = {
    "syntax": b"def (:\n",
    "not text": b"\xff\xfe\x00\x00garbage",
    "nul": b"x = '\0'\n",
    "unknown coding": b"# -*- coding: nonsense -*-\nx = 1\n",
    "brackets": b"x = " + b"(" * 100_000 + b")" * 100_000,
    "unary": b"x = " + b"-" * 500_000 + b"1",
    "attributes": b"x = a" + b".b" * 500_000,
    "sum": b"x = " + b"+".join([b"a"] * 300_000),
    "nested calls": b"x = " + b"f(" * 90_000 + b")" * 90_000,
    "blocks": b"".join(b" " * n + b"if 1:\n" for n in range(99)) + b" " * 99 + b"pass\n",
    "elifs": b"if 1: pass\n" + b"elif 1: pass\n" * 100_000,
    "amplified": b"\n".join(b"x%d = 'a%d' * 4000" % (n, n % 10) for n in range(60_000)),
    "big power": b"x = 10 ** 10 ** 8\n",
}


@needs_landlock
@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_sources_cost_their_own_bytecode_only(store: TreeStore, name: str) -> None:
    content = archive(("a.py", b"x = 1\n"), ("hostile.py", HOSTILE[name]), ("z.py", b"x = 2\n"))
    tree = await tree_of(store, content)
    assert {f"__pycache__/a.{TAG}.pyc", f"__pycache__/z.{TAG}.pyc"} <= compiled(tree)
    assert (tree / "hostile.py").read_bytes() == HOSTILE[name]
    assert all(file.stat().st_size <= 16 * 1024**2 for file in tree.rglob("*.pyc"))


async def test_an_interpreter_that_is_missing_or_lies_leaves_the_tree_as_it_was(tmp_path: Path) -> None:
    liar = tmp_path / "liar"
    liar.write_text("#!/bin/sh\necho ../../evil 00000000\n")
    liar.chmod(0o755)
    for number, interpreter in enumerate((tmp_path / "none", liar, Path("/bin/false"))):
        store = await opened(tmp_path / str(number), interpreter)
        tree = await tree_of(store, SMALL)
        assert compiled(tree) == set()
        assert bytecode_of(store).statistics().failed == 1
        await closed(store)


async def test_a_host_without_landlock_compiles_nothing(tmp_path: Path) -> None:
    without = [
        sys.executable,
        "-c",
        "import sys; from stoker.packaging import landlock, compiler_launch as launch\n"
        "landlock.version = lambda: 0\n"
        "launch.main()",
    ]
    store = await opened(tmp_path, HERE, without)
    assert compiled(await tree_of(store, SMALL)) == set()
    assert bytecode_of(store).statistics().failed == 1
    await closed(store)


async def test_runtimes_without_python_compile_nothing(tmp_path: Path) -> None:
    store = await opened(tmp_path, None)
    assert compiled(await tree_of(store, SMALL, "nodejs20.x")) == set()
    assert bytecode_of(store).statistics().failed == 0
    await closed(store)


def _children() -> list[int]:
    listed = Path(f"/proc/{os.getpid()}/task")
    found: list[int] = []
    for thread in listed.iterdir():
        for child in (thread / "children").read_text().split():
            command = Path(f"/proc/{child}/cmdline").read_bytes()
            if b"compiler_launch" in command or b"Compiles Python sources" in command:
                found.append(int(child))
    return found


async def _compiler() -> int:
    for _ in range(500):
        await asyncio.sleep(0.002)
        if found := _children():
            return found[0]
    raise AssertionError("no compiler started")


MANY = archive(*((f"m{n}.py", b"def f(a):\n    return [a for a in a]\n" * 200) for n in range(150)))


@needs_landlock
async def test_a_killed_compiler_leaves_whole_bytecode_or_none(store: TreeStore) -> None:
    name = (await store.admit(MANY)).code_sha256
    tree = await store.ready(name, "python")
    first = await _compiler()
    while not any(file.name == "3" for file in (store.folder / "compiling").rglob("3")):
        await asyncio.sleep(0.001)
    os.kill(first, signal.SIGKILL)
    await bytecode_of(store).wait_compiled()
    assert len(compiled(tree)) >= 149
    result = run(
        tree, "import importlib\nfor n in range(150): importlib.import_module(f'm{n}')\nprint('all')"
    )
    assert result.stdout == "all\n"


@needs_landlock
async def test_a_compiler_that_always_dies_is_given_up(tmp_path: Path) -> None:
    dying = tmp_path / "dying.py"
    dying.write_text(
        "import os, sys\n"
        "open(os.path.join(sys.argv[3], sys.argv[4] + '.part'), 'x')\n"
        f"open({str(tmp_path / 'runs')!r}, 'a').write('x')\n"
        "os.kill(os.getpid(), 9)\n"
    )
    store = await opened(tmp_path / "code", HERE, [sys.executable, str(dying)])
    assert compiled(await tree_of(store, MANY)) == set()
    assert (tmp_path / "runs").read_text() == "xxx"
    await closed(store)


@needs_landlock
async def test_forgetting_ends_the_compiler_and_removes_everything(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    name = (await store.admit(MANY)).code_sha256
    (await store.use(name, (), "python", "000000000000")).leave()
    await _compiler()
    await store.forget(name)
    await store.close()
    assert await store.stored() == os.listdir(unpacking(tmp_path)) == []
    assert os.listdir(compiling(tmp_path)) == os.listdir(store.folder / "trees") == []
    assert _children() == []
    await closed(store)


@needs_landlock
async def test_code_that_comes_back_is_compiled_again(store: TreeStore) -> None:
    tree = await tree_of(store, SMALL)
    [name] = await store.stored()
    await store.forget(name)
    again = await tree_of(store, SMALL)
    assert again != tree
    assert len(compiled(again)) == 2


async def test_leftovers_of_a_killed_service_are_removed(tmp_path: Path) -> None:
    (compiling(tmp_path) / "left").mkdir(parents=True)
    (compiling(tmp_path) / "left" / "0").write_bytes(b"x")
    store = await opened(tmp_path)
    assert os.listdir(compiling(tmp_path)) == []
    assert await store.stored() == []
    await closed(store)


@needs_landlock
async def test_neither_admitting_nor_a_cold_start_waits_for_it(tmp_path: Path) -> None:
    """What is compiled elsewhere may use the machine, not the caller: milliseconds against a compiler's start."""
    with_it = await opened(tmp_path / "with")
    without = await code_stores.opened(tmp_path / "without")
    await without.packers.start()
    await with_it.packers.start()
    costs: dict[str, list[float]] = {"with": [], "without": []}
    for number in range(30):
        for label, store in (("with", with_it), ("without", without)):
            content = archive(("main.py", b"x = %d\n" % number))
            started_s = time.perf_counter()
            name = (await store.admit(content)).code_sha256
            await store.ready(name, "python")
            costs[label].append((time.perf_counter() - started_s) * 1000)
            await bytecode_of(with_it).wait_compiled()
    medians = {label: statistics.median(values) for label, values in costs.items()}
    assert medians["with"] < medians["without"] + 5, medians
    await closed(with_it)
    await closed(without)


async def test_new_code_is_compiled_once_it_is_quiet_one_after_another(store: TreeStore) -> None:
    archives = [archive((f"m{number}.py", b"x = 1\n")) for number in range(3)]
    names = [(await store.admit(content)).code_sha256 for content in archives]
    for name in names:
        await store.prepare(name, (), "python", "000000000000")
    assert bytecode_of(store).under_way() == 0
    trees = [await store.ready(name) for name in names]
    async with asyncio.timeout(30):
        while not all(compiled(tree) for tree in trees):
            assert bytecode_of(store).under_way() <= 1
            await asyncio.sleep(0.01)


async def test_a_cold_start_does_not_wait_for_the_quiet(store: TreeStore) -> None:
    name = (await store.admit(SMALL)).code_sha256
    await store.prepare(name, (), "python", "000000000000")
    assert bytecode_of(store).under_way() == 0
    tree = await tree_of(store, SMALL)
    assert compiled(tree)
    await store.prepare(name, (), "python", "000000000000")
    assert bytecode_of(store).statistics().trees == 1
