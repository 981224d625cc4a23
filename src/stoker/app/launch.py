"""From ``stoker up`` to the running pair of processes: hands over to the supervisor, which gives up root."""

import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

import msgspec

from stoker.app.configuration import PREFIX, ConfigurationError
from stoker.app.microvm_programs import check_programs
from stoker.app.native import native_directory
from stoker.core.configuration import Settings

SECRET_SETTINGS = frozenset({"secret_access_key", "database"})
"""Given by file or variable only: a command line is readable by every user of the host."""


def run_directory(settings: Settings) -> Path:
    """Where the sockets of a running service are."""
    return Path(settings.data) / "run"


def start_supervised(settings: Settings) -> NoReturn:
    """Replace this process by the supervisor, which starts the jail and the service.

    Raises:
        ConfigurationError: the service account cannot be had, or a program is not the one that was named.
        NativeMissing: the programs are not built.
    """
    native = native_directory()
    uid, gid = service_identity(settings)
    check_programs(settings)
    command = [
        str(native / "stoker-supervisor"),
        *("--uid", str(uid), "--gid", str(gid)),
        *("--data", settings.data, "--run-dir", str(run_directory(settings))),
        *("--jail", str(native / "stoker-jail")),
        *_jail_arguments(settings, native),
        "--",
        *(sys.executable, "-m", "stoker.app"),
    ]
    sys.stdout.flush()
    os.execve(command[0], command, service_environment(settings, os.environ))  # noqa: S606


def service_identity(settings: Settings) -> tuple[int, int]:
    """(uid, gid) of the service: the caller itself, or for root the account that ``user`` names."""
    if os.geteuid() != 0:
        return os.geteuid(), os.getegid()
    try:
        account = pwd.getpwnam(settings.user)
    except KeyError:
        account = _create_account(settings.user)
    if account.pw_uid == 0:
        raise ConfigurationError("configuration: user must not be root; the service never runs as root")
    return account.pw_uid, account.pw_gid


def service_environment(settings: Settings, inherited: Mapping[str, str]) -> dict[str, str]:
    """The service's environment: what was inherited, and every setting as its STOKER_ variable."""
    environment = {name: value for name, value in inherited.items() if not name.startswith("PYTHON")}
    for name, value in msgspec.structs.asdict(settings).items():
        environment[PREFIX + name.upper()] = str(value)
    environment["PYTHONUNBUFFERED"] = "1"
    environment["HOME"] = settings.data
    return environment


def _jail_arguments(settings: Settings, native: Path) -> list[str]:
    arguments = [
        *("--init", str(native / "stoker-init")),
        *("--tmp-capacity-mb", str(settings.tmp_capacity_mb)),
    ]
    if not settings.egress:
        arguments.append("--no-egress")
    if settings.firecracker or settings.jailer:
        arguments += ["--firecracker", settings.firecracker, "--jailer", settings.jailer]
    return [part for argument in arguments for part in ("--jail-arg", argument)]


def _create_account(name: str) -> pwd.struct_passwd:
    useradd = shutil.which("useradd", path="/usr/sbin:/sbin:/usr/bin")
    if useradd is None:
        raise ConfigurationError(f"the account {name!r} does not exist and useradd is not here to make it")
    made = subprocess.run(
        [useradd, "--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin", name],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode != 0 and not _exists(name):
        raise ConfigurationError(f"could not make the account {name!r}: {made.stderr.strip()}")
    return pwd.getpwnam(name)


def _exists(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True
