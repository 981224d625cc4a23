"""The firecracker and jailer that an administrator named: whether their digests are those given."""

import hashlib
import subprocess
from pathlib import Path

from stoker.app.configuration import ConfigurationError
from stoker.core.configuration import Settings

VERSION_S = 5.0


def check_programs(settings: Settings) -> None:
    """Both or neither; each with a digest, and with that one. Called as root, before the jail starts.

    Raises:
        ConfigurationError: what is wrong.
    """
    if bool(settings.firecracker) != bool(settings.jailer):
        raise ConfigurationError("configuration: firecracker and jailer go together")
    if settings.isolation == "firecracker" and not settings.firecracker:
        raise ConfigurationError(
            "configuration: isolation firecracker needs the settings firecracker and jailer"
        )
    for name, path, digest in (
        ("firecracker", settings.firecracker, settings.firecracker_sha256),
        ("jailer", settings.jailer, settings.jailer_sha256),
    ):
        if not path:
            continue
        if not digest:
            raise ConfigurationError(f"configuration: {name}_sha256 must say which {name} this is")
        if found := differs(Path(path), digest):
            raise ConfigurationError(f"configuration: {name}: {found}")


def differs(path: Path, digest: str) -> str:
    """Why the file is not the one with this SHA-256; empty when it is."""
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as problem:
        return f"{path}: {problem.strerror}"
    return "" if found == digest.lower() else f"{path} has the SHA-256 {found}"


def version_of(path: Path) -> str:
    """What the program says it is, or empty."""
    try:
        said = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=VERSION_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    words = said.stdout.split()
    return words[1].lstrip("v") if len(words) > 1 else ""
