"""One tree, given to one confined compiler after another until each source was tried. Knows no language."""

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

from stoker.core.errors import StokerError

LAUNCH_COMMAND = (sys.executable, "-I", "-m", "stoker.packaging.compiler_launch")

JOB_TIMEOUT_S = 120.0
DEATHS_MAX = 3
"""Sources that end their compiler are stepped over; after this many the tree is left as it is."""

TASK_MOUNT: Final = "/var/task"
_CANCEL_POLL_S = 0.05


class CompilingFailed(StokerError):
    """The host could not compile; the tree works without."""


class Recipe(Protocol):
    """What is compiled for one interpreter, and where it goes."""

    @property
    def interpreter(self) -> Path: ...

    @property
    def language(self) -> str:
        """``python`` or ``nodejs``, as ``compiler_launch`` knows them."""
        ...

    @property
    def output_max_bytes(self) -> int:
        """What is compiled of one tree at most."""
        ...

    def sources(self, tree: int) -> list[str]:
        """Files below the directory ``tree`` (a descriptor) that are still to be compiled."""
        ...

    def place(self, tree: int, out: int, sources: list[str]) -> int:
        """Put ``<number>`` of the directory ``out`` where the interpreter finds it; returns how many."""
        ...


class Job:
    """One tree and interpreter; runs in a compiling thread, can be cancelled from another.

    ``tree`` is an open directory and stays the caller's: what is mounted has no path here.
    """

    def __init__(self, tree: int, recipe: Recipe, launch: Sequence[str]) -> None:
        self._tree = tree
        self._recipe = recipe
        self._launch = launch
        self._ends_s = time.monotonic() + JOB_TIMEOUT_S

    def run(self, staging: Path, cancelled: threading.Event) -> int:
        """Returns how many sources were compiled.

        Raises:
            OSError, CompilingFailed: the host failed.
        """
        sources = self._recipe.sources(self._tree)
        if not sources:
            return 0
        out = staging / os.urandom(8).hex()
        out.mkdir(mode=0o700)
        try:
            return self._compile(out, sources, cancelled)
        finally:
            shutil.rmtree(out)

    def _compile(self, out: Path, sources: list[str], cancelled: threading.Event) -> int:
        first = deaths = 0
        while first < len(sources) and not cancelled.is_set():
            if self._run_compiler(out, first, sources, cancelled):
                return self._place(out, sources)
            last = max((int(name.partition(".")[0]) for name in os.listdir(out)), default=-1)
            if last < first:
                raise CompilingFailed(f"{self._recipe.interpreter} compiles nothing")
            first, deaths = last + 1, deaths + 1
            if deaths == DEATHS_MAX or time.monotonic() >= self._ends_s:
                break
        return 0 if cancelled.is_set() else self._place(out, sources)

    def _place(self, out: Path, sources: list[str]) -> int:
        finished = os.open(out, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return self._recipe.place(self._tree, finished, sources)
        finally:
            os.close(finished)

    def _run_compiler(self, out: Path, first: int, sources: list[str], cancelled: threading.Event) -> bool:
        """Whether it went through the whole list, rather than dying on one of it."""
        command = [
            *self._launch, str(self._recipe.interpreter), f"/proc/self/fd/{self._tree}", str(out),
            str(first), str(self._recipe.output_max_bytes), TASK_MOUNT, self._recipe.language,
        ]  # fmt: skip
        listed = b"".join(os.fsencode(source) + b"\0" for source in sources)
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={"PATH": os.defpath, "LC_ALL": "C.UTF-8"},
            cwd="/",
            pass_fds=(self._tree,),
        )
        try:
            return _feed_and_wait(process, listed, self._ends_s, cancelled)
        finally:
            process.kill()
            process.wait()


def _feed_and_wait(
    process: subprocess.Popen[bytes], listed: bytes, ends_s: float, cancelled: threading.Event
) -> bool:
    """Whether the process ended well; when its time is over or it is cancelled, it is left to be killed."""
    pending: bytes | None = listed
    while time.monotonic() < ends_s and not cancelled.is_set():
        try:
            process.communicate(pending, timeout=_CANCEL_POLL_S)
        except subprocess.TimeoutExpired:
            pending = None
            continue
        return process.returncode == 0
    return False
