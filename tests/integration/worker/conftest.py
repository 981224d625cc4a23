"""A jail of the test's own, for the worker over real sandboxes."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stoker.runtimes.catalog import RuntimeCatalog

NATIVE = Path(os.environ.get("STOKER_NATIVE_DIR") or Path(__file__).parents[3] / "native" / "bin")
STARTS_WITHIN_S = 20.0
ID_BASE = 0x6F000000
"""User ids far from those of a real service; each test process has its own."""


def _test_process() -> int:
    return int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw") or 0) % 8


@pytest.fixture(scope="session")
def jail_socket() -> Iterator[Path]:
    """The socket of a running stoker-jail; what it made is gone afterwards."""
    if os.geteuid() != 0:
        pytest.skip("needs root: the jail makes namespaces and control groups")
    for program in ("stoker-jail", "stoker-init"):
        if not (NATIVE / program).exists():
            pytest.skip(f"needs {NATIVE / program}: make -C native")
    folder = Path(tempfile.mkdtemp(prefix="stoker-worker-test-"))
    path = folder / "jail.sock"
    command = [
        str(NATIVE / "stoker-jail"),
        *("--state-dir", str(folder / "state"), "--init", str(NATIVE / "stoker-init")),
        *("--peer-uid", "0", "--socket", str(path), "--no-egress", "--tmp-capacity-mb", "2048"),
        *("--id-base", str(ID_BASE + _test_process() * 0x100000)),
    ]
    (folder / "state").mkdir()
    with (folder / "log").open("wb") as log:
        jail = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        deadline_s = time.monotonic() + STARTS_WITHIN_S
        while not path.exists():
            if jail.poll() is not None or time.monotonic() > deadline_s:
                pytest.fail(f"the jail did not start: {(folder / 'log').read_text()}")
            time.sleep(0.02)
        yield path
    finally:
        jail.send_signal(signal.SIGTERM)
        try:
            jail.wait(20)
        except subprocess.TimeoutExpired:
            jail.kill()
            jail.wait()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def forking(tmp_path_factory: pytest.TempPathFactory) -> RuntimeCatalog:
    """Runtimes that can be zygotes where their family can."""
    folder = tmp_path_factory.mktemp("prepared")
    open_to_sandboxes(folder)
    return RuntimeCatalog(prepared_dir=folder, zygote_module=NATIVE / "stoker-zygote.so")


def open_to_sandboxes(folder: Path) -> None:
    """Every folder above the code must be open to the sandbox's own user."""
    for each in (folder, *folder.parents[:2]):
        each.chmod(0o755)
