"""Which runtimes this host can run, and how: argv, base environment and folders to mount.

Knows languages, not functions: a function's own variables are added by ``environment.function_environment``.
"""

import os
import stat
import threading
from collections.abc import Mapping
from pathlib import Path

import msgspec

from stoker.core.errors import StokerError
from stoker.runtimes.identifiers import RUNTIMES, Runtime
from stoker.runtimes.interpreters import (
    BOOTSTRAPS,
    LANG_MOUNT,
    ZYGOTE_MODULE,
    Interpreter,
    find,
    prepare_bootstrap,
)
from stoker.services.volumes import MountSource, below

TASK_MOUNT = "/var/task"
OPT_MOUNT = "/opt"
RUNTIME_MOUNT = "/var/runtime"

_WRAPPER_SCRIPT = """\
wrapper=$1
shift
if [ ! -f "$wrapper" ]; then echo "$wrapper: does not exist"; exit 127; fi
if [ ! -x "$wrapper" ]; then echo "$wrapper: is not an executable"; exit 126; fi
exec "$wrapper" "$@"
"""
"""What AWS's bootstrap scripts do with AWS_LAMBDA_EXEC_WRAPPER; a missing one was recorded as exit 127."""


class RuntimeUnavailable(StokerError):
    """This host cannot run a runtime; the message says what to install."""

    def __init__(self, runtime: str, message: str) -> None:
        super().__init__(message)
        self.runtime = runtime


class InvalidEntrypoint(StokerError):
    """The deployment package has no program to start (AWS: ``Runtime.InvalidEntrypoint``).

    The text is what AWS puts after ``RequestId: … Error:``.
    """

    error_type = "Runtime.InvalidEntrypoint"


class RuntimePlan(msgspec.Struct, frozen=True):
    """How to start one runtime in a sandbox."""

    runtime: str
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    """The runtime's part; complete it with ``function_environment``."""
    mounts: Mapping[str, Path]
    """Folders of the host by their place in the sandbox: /var/runtime, /var/lang. Read-only."""
    working_directory: str = TASK_MOUNT
    handler: str = ""
    """What ``_HANDLER`` says where the function itself names none."""
    entry_points: int = 0
    """Of an image: how many of ``argv`` are its ENTRYPOINT; the others are its CMD."""
    forks: bool = False
    """Whether it can be a zygote: with ``environment.zygote_environment`` it forks into sandboxes."""


class AvailableRuntime(msgspec.Struct, frozen=True):
    """One line of ``stoker doctor``."""

    name: str
    version: str
    """Exact version of the interpreter; empty for ``provided``."""
    program: str
    """Where it was found on the host; empty for ``provided``."""


class RuntimeCatalog:
    """What this host can run. Interpreters are looked for once; make a new catalogue to look again.

    ``lang_dir`` may hold further interpreters, one folder per identifier (``nodejs22.x/bin/node``,
    ``python3.13/bin/python3.13``). ``prepared_dir`` is a folder of Stoker's own for compiled bootstraps.
    ``zygote_module`` is the native module by which Python forks into sandboxes; it needs ``prepared_dir``.
    """

    def __init__(
        self,
        lang_dir: Path | None = None,
        prepared_dir: Path | None = None,
        zygote_module: Path | None = None,
    ) -> None:
        self._lang_dir = lang_dir
        self._prepared_dir = prepared_dir
        self._zygote_module = zygote_module
        self._found: dict[str, tuple[Interpreter, Path] | None] = {}
        self._looking = threading.Lock()

    def available(self) -> list[AvailableRuntime]:
        """Every runtime that works here. The first call starts each interpreter once (blocking, ~100 ms)."""
        result: list[AvailableRuntime] = []
        for runtime in RUNTIMES.values():
            if runtime.family == "provided":
                result.append(AvailableRuntime(runtime.name, "", ""))
            elif (found := self._interpreter(runtime)) is not None:
                result.append(AvailableRuntime(runtime.name, found[0].version, str(found[0].path_on_host)))
        return result

    def plan(
        self,
        runtime: str,
        *,
        memory_mb: int | None = None,
        exec_wrapper: str | None = None,
        task: MountSource | None = None,
        opt: MountSource | None = None,
    ) -> RuntimePlan:
        """How to start ``runtime``; cheap once the interpreter is known.

        ``memory_mb``, where given, sizes Node's heap as AWS does. ``exec_wrapper`` is the function's
        AWS_LAMBDA_EXEC_WRAPPER. ``task`` and ``opt`` are the folders that will be at /var/task and /opt; with
        them a ``provided`` runtime's missing ``bootstrap`` is found here.

        Raises:
            RuntimeUnavailable: unknown identifier, or this host lacks what it needs.
            InvalidEntrypoint: ``provided`` only.
        """
        known = RUNTIMES.get(runtime)
        if known is None:
            raise RuntimeUnavailable(runtime, f"{runtime} is not a runtime of AWS Lambda")
        if known.family == "provided":
            # AWS ignores exec wrappers here.
            argv = (_entrypoint(task, opt),)
            return RuntimePlan(runtime, argv, _base_environment(known), {})
        found = self._interpreter(known)
        if found is None:
            raise RuntimeUnavailable(runtime, self._how_to_get(known))
        interpreter, bootstrap = found
        mounts = {RUNTIME_MOUNT: bootstrap}
        if interpreter.lang_folder is not None:
            mounts[LANG_MOUNT] = interpreter.lang_folder
        argv = _argv(known, interpreter, memory_mb)
        forks = (bootstrap / ZYGOTE_MODULE).exists()
        if exec_wrapper:
            argv = ("/bin/sh", "-c", _WRAPPER_SCRIPT, "bootstrap", exec_wrapper, *argv)
        return RuntimePlan(runtime, argv, _base_environment(known), mounts, forks=forks)

    def _interpreter(self, runtime: Runtime) -> tuple[Interpreter, Path] | None:
        if runtime.name not in self._found:
            # Looking blocks, so callers do it in threads; two must not prepare the same folder.
            with self._looking:
                if runtime.name not in self._found:
                    self._found[runtime.name] = self._look_for(runtime)
        return self._found[runtime.name]

    def _look_for(self, runtime: Runtime) -> tuple[Interpreter, Path] | None:
        if not _has_bootstrap(runtime):
            return None
        interpreter = find(runtime, self._lang_dir)
        if interpreter is None:
            return None
        return interpreter, prepare_bootstrap(
            runtime.family, interpreter, self._prepared_dir, self._zygote_module
        )

    def _how_to_get(self, runtime: Runtime) -> str:
        lang = f"{self._lang_dir or 'LANG_DIR'}/{runtime.name}"
        more = "`stoker doctor` lists the runtimes that work on this host."
        if not _has_bootstrap(runtime):
            return f"Stoker has no built-in {runtime.name} runtime yet; deploy with provided.al2023. {more}"
        if runtime.family == "python":
            return (
                f"{runtime.name} needs Python {runtime.version}, which this host lacks: install it as "
                f"/usr/bin/{runtime.name} (apt install {runtime.name}) or /usr/local/bin/{runtime.name}, "
                f"or put a relocatable build into {lang}, so that {lang}/bin/{runtime.name} exists. {more}"
            )
        major = runtime.version.split(".", 1)[0]
        return (
            f"{runtime.name} needs Node.js {major}, which this host lacks: install it as /usr/bin/node "
            f"(apt install nodejs, where it is version {major}), or run "
            f"`npm install --prefix {lang} node@{major}`. {more}"
        )


def _has_bootstrap(runtime: Runtime) -> bool:
    """Whether the bootstrap of the runtime's family exists and works with its version."""
    if runtime.family == "python":
        return runtime.version.startswith("3.") and int(runtime.version[2:]) >= 8
    if runtime.family == "nodejs":
        major = runtime.version.split(".", 1)[0]
        return major.isdecimal() and int(major) >= 16
    return False


def _argv(runtime: Runtime, interpreter: Interpreter, memory_mb: int | None) -> tuple[str, ...]:
    if runtime.family == "python":
        # -S: the host's site-packages are not the function's; bootstrap.py sets up what Lambda has instead.
        return (interpreter.path_inside, "-S", f"{RUNTIME_MOUNT}/bootstrap.py")
    # The function's memory is a cgroup limit that Node does not see: without this it dies before it collects.
    heap = () if memory_mb is None else (f"--max-old-space-size={memory_mb * 9 // 10}",)
    return (interpreter.path_inside, *heap, f"{RUNTIME_MOUNT}/bootstrap.cjs")


def _base_environment(runtime: Runtime) -> dict[str, str]:
    environment = {
        "AWS_XRAY_CONTEXT_MISSING": "LOG_ERROR",
        "AWS_XRAY_DAEMON_ADDRESS": "127.0.0.1:2000",
        "_AWS_XRAY_DAEMON_ADDRESS": "127.0.0.1",
        "_AWS_XRAY_DAEMON_PORT": "2000",
        "LAMBDA_RUNTIME_DIR": RUNTIME_MOUNT,
        "LAMBDA_TASK_ROOT": TASK_MOUNT,
        "LANG": "en_US.UTF-8",
        "LD_LIBRARY_PATH": (
            "/var/lang/lib:/lib64:/usr/lib64:/var/runtime:/var/runtime/lib:/var/task:/var/task/lib:/opt/lib"
        ),
        "PATH": "/var/lang/bin:/usr/local/bin:/usr/bin/:/bin:/opt/bin",
        "PWD": TASK_MOUNT,
        "TZ": ":UTC",
    }
    if runtime.family != "provided":
        environment["AWS_EXECUTION_ENV"] = f"AWS_Lambda_{runtime.name}"
    if runtime.family == "nodejs":
        major = runtime.version.split(".", 1)[0]
        environment["NODE_PATH"] = (
            f"/opt/nodejs/node{major}/node_modules:/opt/nodejs/node_modules:"
            "/var/runtime/node_modules:/var/runtime:/var/task"
        )
    return environment


def _entrypoint(task: MountSource | None, opt: MountSource | None) -> str:
    """The ``bootstrap`` that a ``provided`` runtime starts: the function's, else a layer's."""
    if task is None:
        return f"{TASK_MOUNT}/bootstrap"
    for folder, mount in ((task, TASK_MOUNT), (opt, OPT_MOUNT)):
        if folder is None:
            continue
        try:
            path, directory = below(folder, "bootstrap")
            status = os.stat(path, dir_fd=directory, follow_symlinks=False)
        except OSError:
            continue
        if stat.S_ISREG(status.st_mode) and not status.st_mode & 0o111:
            raise InvalidEntrypoint(f"fork/exec {mount}/bootstrap: permission denied")
        # A symbolic link is followed inside the sandbox, never here.
        if stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode):
            return f"{mount}/bootstrap"
    raise InvalidEntrypoint("Couldn't find valid bootstrap(s): [/var/task/bootstrap /opt/bootstrap]")


__all__ = [
    "BOOTSTRAPS",
    "AvailableRuntime",
    "InvalidEntrypoint",
    "RuntimeCatalog",
    "RuntimePlan",
    "RuntimeUnavailable",
]
