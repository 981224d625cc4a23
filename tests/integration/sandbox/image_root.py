"""A small root of a sandbox's own, made from the host's programs, and a driver whose sandboxes all have it."""

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import cast

import msgspec

from stoker.sandbox.container import ContainerDriver
from stoker.sandbox.container_sandbox import ContainerSandbox
from stoker.sandbox.driver import DriverInfo, MountPoint, SandboxSpec

PROGRAMS = (
    *(
        "sh",
        "ls",
        "cat",
        "grep",
        "sleep",
        "env",
        "id",
        "head",
        "wc",
        "true",
        "echo",
        "touch",
        "stat",
        "readlink",
    ),
)
FOLDERS = (
    "dev",
    "proc",
    "tmp",
    "sys",
    "run",
    "root",
    "home",
    "opt",
    "etc",
    "var/task",
    "var/runtime",
    "usr/local",
)
ONLY_HERE = "only in the image\n"


def make_image_root(folder: Path) -> Path:
    """A tree with Python, a shell and a few tools, as a flattened image of them would be."""
    for name in FOLDERS:
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "usr" / "bin").mkdir()
    for name in ("bin", "sbin", "lib", "lib64"):
        (folder / name).symlink_to(f"usr/{name.replace('sbin', 'bin')}")
        (folder / "usr" / name.replace("sbin", "bin")).mkdir(exist_ok=True)
    python = Path(shutil.which("python3", path="/usr/bin:/usr/local/bin") or "/usr/bin/python3").resolve()
    library = Path(f"{python.parents[1]}/lib/{python.name}")
    _copy_programs(folder, [python, *(Path(f"/bin/{name}") for name in PROGRAMS)])
    shutil.copytree(library, _at(folder, library), symlinks=True, ignore=_needless, dirs_exist_ok=True)
    _copy_libraries(folder, _at(folder, library / "lib-dynload").glob("_ctypes*.so"))
    (_at(folder, python.parent) / "python3").symlink_to(python.name)
    for name in ("hosts", "hostname", "resolv.conf", "marker"):
        (folder / "etc" / name).write_text(ONLY_HERE)
    folder.chmod(0o755)
    return folder


def _at(folder: Path, path: Path) -> Path:
    return folder / path.relative_to("/")


def _needless(_folder: str, names: list[str]) -> set[str]:
    return {
        name for name in names if name in ("dist-packages", "site-packages", "test", "idlelib", "tkinter")
    }


def _copy_programs(folder: Path, programs: list[Path]) -> None:
    for program in programs:
        target = (
            folder / "usr" / "bin" / program.name if program.parent.name == "bin" else _at(folder, program)
        )
        if str(program).startswith("/usr/local"):
            target = _at(folder, program)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(program, target)
    _copy_libraries(folder, programs)


def _copy_libraries(folder: Path, programs: Iterable[Path]) -> None:
    for program in programs:
        listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
        for library in re.findall(r"(/\S+)", listed):
            target = _at(folder, Path(os.path.normpath(library)))
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                shutil.copy(library, target)


class ImageDriver:
    """Gives every sandbox the root; what a test mounts in it is copied there before."""

    def __init__(self, inner: ContainerDriver, root: Path) -> None:
        self._inner = inner
        self._root = root

    async def start(self) -> DriverInfo:
        return await self._inner.start()

    async def create(self, spec: SandboxSpec) -> ContainerSandbox:
        for point, source in spec.mounts.items():
            place = _at(self._root, Path(point.value))
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(place)
            subprocess.run(["cp", "-a", cast(Path, source), place], check=True)
        return await self._inner.create(msgspec.structs.replace(spec, mounts={MountPoint.ROOT: self._root}))

    async def close(self) -> None:
        await self._inner.close()
