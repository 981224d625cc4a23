"""A folder of source becomes a zip: finds runtime and handler, installs dependencies beside the code."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import msgspec

from stoker.cli.output import errors
from stoker.core.errors import StokerError

SKIPPED = frozenset({".git", ".venv", "__pycache__", ".DS_Store", "node_modules/.cache"})
PYTHON_ENTRIES = ("lambda_function.py", "handler.py", "app.py", "main.py", "index.py")
NODE_ENTRIES = ("index.mjs", "index.js", "index.cjs", "handler.mjs", "handler.js", "app.mjs", "app.js")
PYTHON_HANDLERS = ("lambda_handler", "handler", "main")
EPOCH = (1980, 1, 1, 0, 0, 0)
"""Every member's time, so that equal folders give equal archives and equal CodeSha256."""


class BuildError(StokerError):
    """The folder cannot be made into a function."""


class BuildPlan(msgspec.Struct, frozen=True):
    """What the folder turned out to hold."""

    runtime: str
    handler: str


def detect(path: Path, *, runtime: str | None, handler: str | None) -> BuildPlan:
    """Runtime and handler as given, or as the folder's files say.

    Raises:
        BuildError: what is missing and the flag that gives it.
    """
    if path.is_file():
        if not runtime or not handler:
            raise BuildError("a zip file needs --runtime and --handler")
        return BuildPlan(runtime, handler)
    found = _detect_folder(path)
    if found is None and not (runtime and handler):
        looked = ", ".join(("bootstrap", *PYTHON_ENTRIES, *NODE_ENTRIES))
        raise BuildError(f"{path}: none of {looked}; give --runtime and --handler")
    return BuildPlan(runtime or (found.runtime if found else ""), handler or (found.handler if found else ""))


def build(path: Path, plan: BuildPlan, scratch: Path, *, quiet: bool) -> Path:
    """Copy the folder, install what requirements.txt or package.json ask for, zip it.

    Raises:
        BuildError: with the package manager's own words.
    """
    tree = scratch / "tree"
    shutil.copytree(path, tree, symlinks=True, ignore=shutil.ignore_patterns(*SKIPPED))
    if (tree / "requirements.txt").exists() and plan.runtime.startswith("python"):
        _install_python(tree, plan.runtime, quiet)
    if (tree / "package.json").exists() and plan.runtime.startswith("nodejs"):
        _install_node(tree, quiet)
    archive = scratch / "function.zip"
    _zip(tree, archive)
    return archive


def _detect_folder(path: Path) -> BuildPlan | None:
    if (path / "bootstrap").exists():
        return BuildPlan("provided.al2023", "bootstrap")
    for entry in PYTHON_ENTRIES:
        if (path / entry).exists():
            return BuildPlan(
                _python_runtime(), f"{entry.removesuffix('.py')}.{_python_handler(path / entry)}"
            )
    for entry in NODE_ENTRIES:
        if (path / entry).exists():
            return BuildPlan(_node_runtime(), f"{entry.rpartition('.')[0]}.handler")
    return None


def _python_handler(source: Path) -> str:
    names = re.findall(r"^(?:def|async def)\s+(\w+)", source.read_text(errors="replace"), re.MULTILINE)
    return next((name for name in PYTHON_HANDLERS if name in names), PYTHON_HANDLERS[0])


def _python_runtime() -> str:
    return f"python{sys.version_info.major}.{sys.version_info.minor}"


def _node_runtime() -> str:
    node = shutil.which("node")
    if node is None:
        raise BuildError("no node on this host's PATH to tell the runtime; give --runtime")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    return f"nodejs{version.lstrip('v').partition('.')[0]}.x"


def _install_python(tree: Path, runtime: str, quiet: bool) -> None:
    interpreter = sys.executable if runtime == _python_runtime() else shutil.which(runtime)
    if interpreter is None:
        raise BuildError(f"requirements.txt needs {runtime} on this host to install packages for it")
    command = [interpreter, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-compile"]
    _run([*command, "--target", str(tree), "-r", str(tree / "requirements.txt")], tree, quiet)


def _install_node(tree: Path, quiet: bool) -> None:
    if not json.loads((tree / "package.json").read_text()).get("dependencies"):
        return
    verb = "ci" if (tree / "package-lock.json").exists() else "install"
    _run(["npm", verb, "--omit=dev", "--no-audit", "--no-fund", "--loglevel=error"], tree, quiet)


def _run(command: list[str], folder: Path, quiet: bool) -> None:
    if not quiet:
        errors.print(f"installing: {' '.join(command[:4])} …", style="dim", markup=False)
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError as problem:
        raise BuildError(f"{command[0]} is not on this host") from problem
    if done.returncode != 0:
        raise BuildError(f"{' '.join(command[:4])} failed:\n{done.stderr.strip() or done.stdout.strip()}")


def _zip(tree: Path, archive: Path) -> None:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as output:
        for folder, folders, files in os.walk(tree):
            folders.sort()
            links = [name for name in folders if (Path(folder) / name).is_symlink()]
            for name in sorted([*files, *links]):
                _add(output, Path(folder) / name, tree)


def _add(output: zipfile.ZipFile, file: Path, tree: Path) -> None:
    member = zipfile.ZipInfo(str(file.relative_to(tree)), EPOCH)
    member.compress_type = zipfile.ZIP_DEFLATED
    if file.is_symlink():
        member.external_attr = 0o120777 << 16
        output.writestr(member, str(file.readlink()))
        return
    executable = file.stat().st_mode & 0o111
    member.external_attr = (0o100755 if executable else 0o100644) << 16
    output.writestr(member, file.read_bytes())
