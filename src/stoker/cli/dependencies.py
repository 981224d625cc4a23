"""Installs what requirements.txt or package.json ask for into a folder, with pip and npm themselves."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from stoker.cli.output import say
from stoker.core.errors import StokerError

WORDS_SHOWN = 4


class BuildError(StokerError):
    """The folder cannot be made into a function."""


def install_python(tree: Path, runtime: str, *, quiet: bool) -> None:
    """pip install into ``tree``, for the runtime's version of Python.

    Raises:
        BuildError: with pip's own words.
    """
    command = python_command(runtime, _with_pip(runtime))
    _run([*command, "--target", str(tree), "-r", str(tree / "requirements.txt")], tree, quiet=quiet)


def python_command(runtime: str, interpreter: str | None) -> list[str]:
    """pip of the runtime's own interpreter; without one, ours, which then may only take built wheels."""
    command = [interpreter or sys.executable, "-m", "pip", "install"]
    if interpreter is None:
        version = runtime.removeprefix("python")
        command += ["--python-version", version, "--implementation", "cp", "--only-binary=:all:"]
    return [*command, "-q", "--disable-pip-version-check", "--no-compile", "--no-input"]


def install_node(tree: Path, *, quiet: bool) -> None:
    """npm ci where there is a lock file, else npm install; nothing where there are no dependencies.

    Raises:
        BuildError: with npm's own words.
    """
    package = tree / "package.json"
    try:
        dependencies = json.loads(package.read_text()).get("dependencies")
    except (ValueError, AttributeError) as problem:
        raise BuildError(f"package.json is not a JSON object: {problem}") from problem
    if not dependencies:
        return
    verb = "ci" if (tree / "package-lock.json").exists() else "install"
    _run(["npm", verb, "--omit=dev", "--no-audit", "--no-fund", "--loglevel=error"], tree, quiet=quiet)


def _with_pip(runtime: str) -> str | None:
    """The interpreter of this version, if it is on this host and has pip."""
    if runtime == f"python{sys.version_info.major}.{sys.version_info.minor}":
        return sys.executable
    found = shutil.which(runtime)
    if found is None:
        return None
    asked = subprocess.run([found, "-m", "pip", "--version"], capture_output=True, check=False)
    return found if asked.returncode == 0 else None


def _run(command: list[str], folder: Path, *, quiet: bool) -> None:
    shown = " ".join([Path(command[0]).name, *command[1:WORDS_SHOWN]])
    if not quiet:
        say(f"installing packages: {shown} …", dim=True)
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError as problem:
        raise BuildError(f"{command[0]} is not on this host; install it, or deploy a zip file") from problem
    if done.returncode != 0:
        raise BuildError(f"{shown} failed:\n{done.stderr.strip() or done.stdout.strip()}")
