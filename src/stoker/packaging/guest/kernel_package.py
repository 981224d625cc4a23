"""Gets the kernel of a guest: a distribution's package, a file, or a URL with its SHA-256. Blocking."""

import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from stoker.core.errors import StokerError
from stoker.packaging.guest.debian_package import PACKAGE_BYTES_MAX

META_PACKAGE: Final = "linux-image-cloud-amd64"
FETCH_S: Final = 300.0


class KernelUnavailable(StokerError):
    """No kernel could be had; the message says why, and what else can be done."""


def fetch(source: str, sha256: str) -> tuple[bytes, str]:
    """The bytes of ``source`` and what to call them. Empty: the distribution's kernel for clouds.

    Raises:
        KernelUnavailable: it cannot be had, or is not what its digest says.
    """
    if not source:
        return _from_distribution()
    if urlsplit(source).scheme in ("http", "https"):
        if not sha256:
            raise KernelUnavailable("a kernel from a URL needs its SHA-256 (--sha256)")
        content = _downloaded(source)
    else:
        content = _read(Path(source))
    found = hashlib.sha256(content).hexdigest()
    if sha256 and found != sha256.lower():
        raise KernelUnavailable(f"{source} has the SHA-256 {found}, not {sha256.lower()}")
    return content, source


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > PACKAGE_BYTES_MAX:
            raise KernelUnavailable(f"{path} is larger than any kernel")
        return path.read_bytes()
    except OSError as problem:
        raise KernelUnavailable(f"{path}: {problem.strerror}") from problem


def _downloaded(url: str) -> bytes:
    import urllib.error  # noqa: PLC0415  (slow, and rarely needed)
    import urllib.request  # noqa: PLC0415

    try:
        with urllib.request.urlopen(url, timeout=FETCH_S) as answer:  # noqa: S310  (http and https alone)
            content: bytes = answer.read(PACKAGE_BYTES_MAX + 1)
    except (urllib.error.URLError, OSError) as problem:
        raise KernelUnavailable(f"{url}: {problem}") from problem
    if len(content) > PACKAGE_BYTES_MAX:
        raise KernelUnavailable(f"{url} is larger than any kernel")
    return content


def _from_distribution() -> tuple[bytes, str]:
    """By apt, which checks the package's signature chain."""
    if shutil.which("apt-get") is None or shutil.which("apt-cache") is None:
        raise KernelUnavailable("there is no apt here: name a kernel's package or a vmlinux with --kernel")
    name = _newest(_said(["apt-cache", "depends", META_PACKAGE]))
    with tempfile.TemporaryDirectory(prefix="stoker-kernel-") as folder:
        # apt gives up root for the download where it can.
        Path(folder).chmod(0o755)
        _said(["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", name], folder)
        packages = list(Path(folder).glob("*.deb"))
        if len(packages) != 1:
            raise KernelUnavailable(f"apt-get download {name} left no package")
        return packages[0].read_bytes(), packages[0].name


def _newest(depends: str) -> str:
    for line in depends.splitlines():
        kind, _, name = line.strip().partition(": ")
        if kind == "Depends" and name.startswith("linux-image-"):
            return name
    raise KernelUnavailable(f"apt knows no {META_PACKAGE}: run apt-get update, or name one with --kernel")


def _said(command: list[str], folder: str | None = None) -> str:
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, check=False, timeout=FETCH_S
        )
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise KernelUnavailable(f"{command[0]}: {problem}") from problem
    if done.returncode:
        raise KernelUnavailable(f"{' '.join(command[:3])}: {done.stderr.strip()[:300]}")
    return done.stdout
