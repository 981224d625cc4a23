"""Root file systems for test images: the host's own Python copied, or Debian's by mmdebstrap, made once a day."""

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

CACHE = Path("/var/tmp/stoker-test-roots")
"""Shared by the processes of a test run and by later runs; safe to delete at any time."""
PYTHON = Path("/usr/bin/python3.11")
DEBIAN_BUILD_TIMEOUT_S = 600


def host_python_root() -> Path:
    """A tar of a root folder with the host's Python 3.11, its standard library, a shell and their libraries."""
    if not PYTHON.exists():
        pytest.skip(f"no {PYTHON} on this host (Debian: python3)")
    with making("host-python", ["1", str(PYTHON.stat().st_mtime_ns)]) as target:
        if target.exists():
            return target
        _write_tar(target, sorted(set(_python_files())))
    return target


def debian_root(packages: Sequence[str] = (), *, suite: str = "bookworm", hooks: Sequence[str] = ()) -> Path:
    """A tar of a minimal Debian with these packages; each hook is a shell command, ``$1`` the root folder."""
    if os.geteuid() != 0:
        pytest.skip("building a Debian root needs root")
    if shutil.which("mmdebstrap") is None:
        pytest.skip("no mmdebstrap on this host (Debian: mmdebstrap)")
    with making("debian", [suite, *packages, "--", *hooks]) as target:
        if not target.exists():
            _bootstrap(target, suite, packages, hooks)
    return target


def _bootstrap(target: Path, suite: str, packages: Sequence[str], hooks: Sequence[str]) -> None:
    partial = target.with_suffix(".partial.tar")
    command = ["mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", f"--include={','.join(packages)}"]
    command += ["--aptopt=Acquire::Languages none", "--dpkgopt=path-exclude=/usr/share/doc/*"]
    command += ["--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/locale/*"]
    command += [f"--customize-hook={hook}" for hook in hooks]
    command += [suite, str(partial), *_host_sources()]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=DEBIAN_BUILD_TIMEOUT_S,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        partial.unlink(missing_ok=True)
        pytest.skip(f"mmdebstrap could not build a root here: {done.stderr.strip()[-400:]}")
    partial.rename(target)


def _host_sources() -> list[str]:
    """The host's own package sources, wherever they point."""
    folder = Path("/etc/apt")
    files = [folder / "sources.list", *sorted((folder / "sources.list.d").glob("*"))]
    return [str(file) for file in files if file.is_file() and re.search(r"bookworm", file.read_text())]


@contextmanager
def making(kind: str, parts: Sequence[str]) -> Iterator[Path]:
    """Where the tar of these parts is kept, held so that nobody else makes it at the same time."""
    CACHE.mkdir(mode=0o755, exist_ok=True)
    key = hashlib.sha256(json.dumps(list(parts)).encode()).hexdigest()[:16]
    with (CACHE / f"{kind}-{key}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield CACHE / f"{kind}-{key}.tar"


def _python_files() -> Iterator[Path]:
    programs = [PYTHON, Path("/bin/sh")]
    library = Path("/usr/lib/python3.11")
    extensions = list((library / "lib-dynload").glob("*.so"))
    yield from programs
    for path in library.rglob("*"):
        if path.is_file() and not {"test", "idlelib", "tkinter", "__pycache__"} & set(path.parts):
            yield path
    yield from libraries([*programs, *extensions])


def libraries(programs: Sequence[Path]) -> Iterator[Path]:
    """The shared libraries and the loader of these programs."""
    listed = subprocess.run(["ldd", *map(str, programs)], capture_output=True, text=True, check=False)
    for found in re.findall(r"(/\S+\.so\S*)(?= \()", listed.stdout):
        yield Path(found)


def _write_tar(target: Path, files: Sequence[Path]) -> None:
    partial = target.with_suffix(".partial.tar")
    with tarfile.open(partial, "w", format=tarfile.PAX_FORMAT) as tar:
        for folder in ("tmp", "dev", "proc", "etc", "var", "var/task", "opt"):
            member = tarfile.TarInfo(folder)
            member.type, member.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            tar.addfile(member)
        for link, to in (("lib", "usr/lib"), ("lib64", "usr/lib64"), ("bin", "usr/bin")):
            member = tarfile.TarInfo(link)
            member.type, member.linkname = tarfile.SYMTYPE, to
            tar.addfile(member)
        added: set[str] = set()
        for file in files:
            # What the host has under /lib is under /usr/lib there and here, whatever links lead to it.
            name = re.sub(r"^(lib64|lib|bin)/", r"usr/\1/", str(file).lstrip("/"))
            if name not in added:
                added.add(name)
                tar.add(os.path.realpath(file), name, recursive=False, filter=plain_member)
    partial.rename(target)


def plain_member(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """A member without what differs from one making to the next."""
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    return member
