"""A folder of source becomes a zip: finds runtime and handler, installs dependencies beside the code."""

import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from stoker.cli import source
from stoker.cli.dependencies import BuildError, install_node, install_python

PYTHON_ENTRIES = ("lambda_function.py", "handler.py", "app.py", "main.py", "index.py")
NODE_ENTRIES = ("index.mjs", "index.js", "index.cjs", "handler.mjs", "handler.js", "app.mjs", "app.js")
PYTHON_HANDLERS = ("lambda_handler", "handler", "main")


class BuildPlan(msgspec.Struct, frozen=True):
    """What the folder turned out to hold."""

    runtime: str
    handler: str


def detect(path: Path, *, runtime: str | None, handler: str | None, available: Sequence[str]) -> BuildPlan:
    """Runtime and handler as given, or as the folder's files say; among runtimes that are ``available``.

    Raises:
        BuildError: what is missing and the flag that gives it.
    """
    if path.is_file():
        if not runtime or not handler:
            raise BuildError(f"{path}: a zip file does not say what runs it; give --runtime and --handler")
        return BuildPlan(runtime, handler)
    found = None if runtime and handler else _detect_folder(path, runtime, available)
    if found is None and not (runtime and handler):
        looked = ", ".join(("bootstrap", *PYTHON_ENTRIES, *NODE_ENTRIES))
        raise BuildError(f"{path} has none of {looked}; give --runtime and --handler")
    return BuildPlan(runtime or (found.runtime if found else ""), handler or (found.handler if found else ""))


def build(path: Path, plan: BuildPlan, scratch: Path, *, quiet: bool) -> Path:
    """Copy the folder, install what requirements.txt or package.json ask for, zip it.

    Raises:
        BuildError: with the package manager's own words.
        SourceError: too large, or a link that leads out of the folder.
    """
    patterns = source.ignore_patterns(path)
    if plan.runtime.startswith("nodejs") and (path / "package-lock.json").exists():
        patterns.append("node_modules")  # npm ci would remove it first
    names = source.selected(path, patterns)
    source.check_size(path, names)
    tree = scratch / "tree"
    source.copy(path, names, tree)
    if (tree / "requirements.txt").exists() and plan.runtime.startswith("python"):
        install_python(tree, plan.runtime, quiet=quiet)
    if (tree / "package.json").exists() and plan.runtime.startswith("nodejs"):
        install_node(tree, quiet=quiet)
    source.check_size(tree, source.selected(tree, ()))
    archive = scratch / "function.zip"
    source.write_archive(tree, archive)
    return archive


def _detect_folder(path: Path, runtime: str | None, available: Sequence[str]) -> BuildPlan | None:
    if (path / "bootstrap").exists():
        return BuildPlan("provided.al2023", "bootstrap")
    for entry in PYTHON_ENTRIES:
        if (path / entry).exists():
            function = python_handler((path / entry).read_text(errors="replace"))
            handler = f"{entry.removesuffix('.py')}.{function}"
            return BuildPlan(runtime or python_runtime(available), handler)
    for entry in NODE_ENTRIES:
        if (path / entry).exists():
            return BuildPlan(runtime or node_runtime(available), f"{entry.rpartition('.')[0]}.handler")
    return None


def python_handler(text: str) -> str:
    """The function of a Python file that is most likely its handler."""
    names = re.findall(r"^(?:def|async def)\s+(\w+)", text, re.MULTILINE)
    names += re.findall(r"^(\w+)\s*=", text, re.MULTILINE)
    return next((name for name in PYTHON_HANDLERS if name in names), PYTHON_HANDLERS[0])


def python_runtime(available: Sequence[str]) -> str:
    """This interpreter's version where the service has it, else the newest that it has."""
    own = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return own if own in available else _newest(available, "python", own)


def node_runtime(available: Sequence[str]) -> str:
    """The newest Node.js that the service has, else the one on PATH."""
    if newest := _newest(available, "nodejs", ""):
        return newest
    node = shutil.which("node")
    if node is None:
        raise BuildError("no Node.js on PATH to tell the runtime by; install nodejs, or give --runtime")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    return f"nodejs{version.lstrip('v').partition('.')[0]}.x"


def _newest(available: Sequence[str], family: str, otherwise: str) -> str:
    found = [name for name in available if name.startswith(family)]
    return max(found, key=_version, default=otherwise)


def _version(runtime: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", runtime))
