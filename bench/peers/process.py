"""What every peer has: a folder it is installed into, a process it runs as, an address that answers."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.figures import Missing

INSTALL_TIMEOUT_S = 300
START_TIMEOUT_S = 60


class Peer:
    """Base of all peers: ``install``, ``start``, ``url`` and ``headers``, ``stop``."""

    name = ""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        self.headers: dict[str, str] = {"Content-Type": "application/json"}
        self._process: subprocess.Popen[bytes] | None = None

    def install(self) -> None:
        """Get the software; cheap when it is there already.

        Raises:
            Missing: it cannot be had on this host.
        """
        raise NotImplementedError

    def start(self) -> None:
        """Start it with the echo and wait until it listens.

        Raises:
            Missing: it does not start.
        """
        raise NotImplementedError

    def stop(self) -> None:
        """End it with everything it started."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):  # it may have ended by itself
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def run(self, command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> None:
        """Start a process in the folder and wait for its port."""
        log = self.folder / "peer.log"
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                list(map(str, command)),
                cwd=self.folder,
                env={**clean_environment(), **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline_s:
            if self._process.poll() is not None:
                break
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.1)
        raise Missing(f"it did not start: {log.read_text(errors='replace')[-300:].strip()!r}")

    def pip(self, *packages: str) -> Path:
        """The folder of programs of a virtual environment that holds these packages."""
        programs = self.folder / "venv" / "bin"
        self._once(
            packages,
            [
                [sys.executable, "-m", "venv", self.folder / "venv"],
                [programs / "pip", "install", "-q", *packages],
            ],
        )
        return programs

    def npm(self, *packages: str) -> Path:
        """The folder of programs of a node_modules that holds these packages."""
        npm = shutil.which("npm")
        if npm is None:
            raise Missing("npm is not installed")
        (self.folder / "package.json").write_text("{}")
        self._once(packages, [[npm, "install", "--no-audit", "--no-fund", "--silent", *packages]])
        return self.folder / "node_modules" / ".bin"

    def _once(self, packages: Sequence[str], commands: Sequence[Sequence[str | Path]]) -> None:
        stamp = self.folder / "installed"
        if stamp.exists() and stamp.read_text() == " ".join(packages):
            return
        for command in commands:
            done = subprocess.run(
                list(map(str, command)),
                cwd=self.folder,
                capture_output=True,
                text=True,
                check=False,
                timeout=INSTALL_TIMEOUT_S,
            )
            if done.returncode:
                raise Missing(f"it does not install: {(done.stderr or done.stdout)[-300:].strip()!r}")
        stamp.write_text(" ".join(packages))


def clean_environment() -> dict[str, str]:
    """Without this project's settings, credentials and Python paths."""
    barred = ("AWS_", "STOKER_", "PYTHON", "VIRTUAL_ENV")
    return {name: value for name, value in os.environ.items() if not name.startswith(barred)}


def answers_with(url: str, headers: Mapping[str, str], body: bytes) -> None:
    """One request must come back as the same JSON.

    Raises:
        Missing: it answers otherwise, so it would not be the same work.
    """
    request = urllib.request.Request(url, body, dict(headers), method="POST")
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            same = json.loads(answer.read()) == json.loads(body)
    except (OSError, urllib.error.URLError, ValueError) as problem:
        raise Missing(f"it does not answer: {problem}") from problem
    if not same:
        raise Missing("it does not answer with its event")


def free_port() -> int:
    """A port of the loopback that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
