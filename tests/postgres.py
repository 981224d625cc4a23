"""A real PostgreSQL server in a temporary folder, for tests."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def _programs() -> Path | None:
    """Where Debian keeps the newest server's programs, or wherever PATH finds them."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


def _drop_root() -> dict[str, int]:
    """The server refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    account = pwd.getpwnam("nobody")
    return {"user": account.pw_uid, "group": account.pw_gid}


@contextmanager
def running_postgres() -> Iterator[str]:
    """The URL of an empty database ``stoker`` on a server of our own, reached by a Unix socket."""
    programs = _programs()
    if programs is None:
        pytest.skip("no PostgreSQL server on this host (Debian: postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="stoker-test-postgres-", dir="/var/tmp"))
    folder.chmod(0o755)
    identity = _drop_root()
    if identity:
        os.chown(folder, identity["user"], identity["group"])
    try:
        _run(programs / "initdb", "-D", str(folder / "data"), "-U", "stoker", "-A", "trust", "-E", "UTF8",
             "--locale=C.UTF-8", "--no-sync", identity=identity)  # fmt: skip
        # A locale of words, not bytes, is what most servers have; C.UTF-8 sorts by code point.
        options = f"-c listen_addresses= -c unix_socket_directories={folder} -c max_connections=50"
        control = (programs / "pg_ctl", "-D", str(folder / "data"))
        _run(*control, "-l", str(folder / "log"), "-w", "-o", options, "start", identity=identity)
        try:
            _run(programs / "createdb", "-h", str(folder), "-U", "stoker", "stoker", identity=identity)
            yield f"postgresql://stoker@/stoker?host={folder}"
        finally:
            _run(*control, "-m", "immediate", "-w", "stop", identity=identity)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(*command: object, identity: dict[str, int]) -> None:
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        cwd="/",
        check=False,
        timeout=60,
        **identity,  # pyright: ignore
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]}: {done.stdout}{done.stderr}")
