"""Finds the host's interpreters and makes the bootstraps ready for them. Runs each interpreter once.

Blocking: for start-up or a thread, not for the event loop.
"""

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import msgspec

from stoker.runtimes.bundle import bundle_nodejs
from stoker.runtimes.identifiers import Runtime

LANG_MOUNT = "/var/lang"
HOST_FOLDERS = (Path("/usr/local/bin"), Path("/usr/bin"))
"""Where a sandbox sees the host's own programs; nothing outside /usr is there."""

ZYGOTE_MODULE = "stoker_zygote.abi3.so"
"""Beside the Python bootstrap; the suffix keeps it from interpreters of another object layout."""

BOOTSTRAPS = Path(__file__).parent / "bootstraps"

_PROBE_TIMEOUT_S = 20.0
_VERSION = re.compile(r"(?:Python |v)(\d+)\.(\d+)\.\d+")


class Interpreter(msgspec.Struct, frozen=True):
    """A program that runs a language's version."""

    path_inside: str
    """Absolute path in the sandbox."""
    path_on_host: Path
    lang_folder: Path | None = None
    """To be mounted at /var/lang, when it is not one of the host's own programs."""
    version: str = ""
    """As the program reports it."""


def find(runtime: Runtime, lang_dir: Path | None) -> Interpreter | None:
    """The interpreter for a Python or Node runtime: one of the lang folder first, then the host's own."""
    for candidate in _candidates(runtime, lang_dir):
        if os.access(candidate.path_on_host, os.X_OK):
            version = _probe(candidate.path_on_host)
            if version and _matches(runtime, version):
                return msgspec.structs.replace(candidate, version=version)
    return None


def _candidates(runtime: Runtime, lang_dir: Path | None) -> list[Interpreter]:
    name = runtime.name if runtime.family == "python" else "node"
    found: list[Interpreter] = []
    if lang_dir is not None:
        folder = (lang_dir / runtime.name).absolute()
        # The second place is where ``npm install node@20`` puts its binary.
        places = (f"bin/{name}", f"node_modules/node/bin/{name}")
        found.extend(Interpreter(f"{LANG_MOUNT}/{place}", folder / place, folder) for place in places)
    names = (name, f"node{_node_major(runtime)}") if runtime.family == "nodejs" else (name,)
    for folder in HOST_FOLDERS:
        found.extend(Interpreter(str(folder / each), folder / each) for each in names)
    return found


def _node_major(runtime: Runtime) -> str:
    return runtime.version.split(".", 1)[0]


def _probe(path: Path) -> str | None:
    """The version a program reports, such as ``3.11.2``; None when it does not run or says something else."""
    try:
        result = subprocess.run(
            [str(path), "--version"],
            capture_output=True,
            timeout=_PROBE_TIMEOUT_S,
            env={"PATH": "/usr/bin:/bin"},
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = _VERSION.match((result.stdout or result.stderr).decode("utf-8", "replace"))
    return match.group(0).removeprefix("Python ").removeprefix("v") if match else None


def _matches(runtime: Runtime, version: str) -> bool:
    major, minor, _ = version.split(".", 2)
    if runtime.family == "python":
        return runtime.version == f"{major}.{minor}"
    return _node_major(runtime) == major


def prepare_bootstrap(
    family: str, interpreter: Interpreter, prepared_dir: Path | None, zygote_module: Path | None = None
) -> Path:
    """The folder to mount at /var/runtime, made ready for the interpreter: compiled, or in one file.

    Without ``prepared_dir`` the packaged folder is used as it is, and each start pays for that.
    ``zygote_module`` goes along with Python's.
    """
    source = BOOTSTRAPS / family
    if prepared_dir is None:
        return source
    # Compiled Python belongs to one version; the bundle for Node.js is the same for all.
    version = interpreter.version if family == "python" else "all"
    module = zygote_module if family == "python" else None
    target = prepared_dir / f"{family}-{version}-{_fingerprint(source, module)}"
    if target.is_dir():
        return target
    building = prepared_dir / f".building-{os.getpid()}-{target.name}"
    shutil.rmtree(building, ignore_errors=True)
    if family == "python":
        shutil.copytree(source, building, ignore=shutil.ignore_patterns("__pycache__"))
        _compile(interpreter.path_on_host, building)
        if module is not None:
            shutil.copyfile(module, building / ZYGOTE_MODULE)
    else:
        building.mkdir(parents=True)
        (building / "bootstrap.cjs").write_text(bundle_nodejs(source), "utf-8")
    _make_readable(building)
    try:
        building.rename(target)
    except OSError:  # another process was faster; its result is as good
        shutil.rmtree(building, ignore_errors=True)
    return target


def _fingerprint(folder: Path, module: Path | None) -> str:
    digest = hashlib.sha256(module.read_bytes() if module is not None else b"")
    for path in sorted(each for each in folder.rglob("*") if each.suffix in (".py", ".cjs")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _compile(python: Path, folder: Path) -> None:
    """Write ``.pyc`` files that are used unchecked: the folder is read-only from then on."""
    subprocess.run(
        [
            str(python), "-I", "-S", "-m", "compileall", "-q", "-f",
            "--invalidation-mode", "unchecked-hash",
            "-s", str(folder), "-p", "/var/runtime", str(folder),
        ],
        check=True,
        capture_output=True,
        timeout=_PROBE_TIMEOUT_S,
    )  # fmt: skip


def _make_readable(folder: Path) -> None:
    """Sandboxes run under other uids than the one that wrote this."""
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
