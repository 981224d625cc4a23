"""The Python bootstrap as source: old enough in syntax, complete when prepared."""

import ast
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from stoker.runtimes import RuntimeCatalog
from stoker.runtimes.bundle import bundle_nodejs
from stoker.runtimes.interpreters import BOOTSTRAPS

SOURCES = sorted((BOOTSTRAPS / "python").rglob("*.py"))
THIS_PYTHON = f"python3.{sys.version_info.minor}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_parses_as_python_3_8(path):
    ast.parse(path.read_text(), feature_version=(3, 8))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_imports_only_the_standard_library(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        else:
            continue
        for name in names:
            assert name.split(".")[0] in {*sys.stdlib_module_names, "stoker_runtime", "stoker_zygote"}


def test_prepared_folder_is_compiled_once_and_readable_by_anyone(tmp_path):
    first = RuntimeCatalog(prepared_dir=tmp_path).plan(THIS_PYTHON).mounts["/var/runtime"]
    compiled = sorted(first.rglob("*.pyc"))
    assert {path.name.split(".")[0] for path in compiled} >= {"bootstrap", "client", "marshal", "failures"}
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in first.rglob("*"))
    stamps = [path.stat().st_mtime_ns for path in compiled]
    again = RuntimeCatalog(prepared_dir=tmp_path).plan(THIS_PYTHON).mounts["/var/runtime"]
    assert again == first
    assert [path.stat().st_mtime_ns for path in compiled] == stamps
    assert sorted(Path(tmp_path).iterdir()) == [first]


def test_many_threads_prepare_one_folder(tmp_path):
    catalog = RuntimeCatalog(prepared_dir=tmp_path / "new")
    with ThreadPoolExecutor(4) as pool:
        plans = list(pool.map(lambda _: catalog.plan(THIS_PYTHON), range(8)))
    folders = {plan.mounts["/var/runtime"] for plan in plans}
    assert len(folders) == 1
    assert sorted((tmp_path / "new").iterdir()) == sorted(folders)


def test_bundle_holds_every_file_and_no_local_require():
    folder = BOOTSTRAPS / "nodejs"
    text = bundle_nodejs(folder)
    for path in (folder / "stoker").glob("*.cjs"):
        assert f"bundledFiles['{path.name}'] =" in text
        assert f"bundled('{path.name}')" in text
    assert "require('./" not in text
