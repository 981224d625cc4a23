"""Byte-code for unpacked trees, made in the background by confined compilers, one at a time.

An optimisation that may fail at any point: a source without byte-code is compiled where it is imported.
"""

import asyncio
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from stoker.core.errors import StokerError
from stoker.packaging.bytecode_tree import (
    BYTECODE_MAX_BYTES,
    Dialect,
    Source,
    place,
    sources_without_bytecode,
)

LAUNCH_COMMAND = (sys.executable, "-I", "-m", "stoker.packaging.compiler_launch")

JOBS_WAITING_MAX = 256
"""Further trees are left for their next cold start."""

JOB_TIMEOUT_S = 120.0
DEATHS_MAX = 3
"""Sources that end their compiler are stepped over; after this many the tree is left as it is."""

TASK_MOUNT = "/var/task"
_PROBE_TIMEOUT_S = 10.0
_PROBE = "import sys, importlib.util as u; print(sys.implementation.cache_tag, u.MAGIC_NUMBER.hex())"
_PROBED = re.compile(r"([a-z0-9-]{1,40}) ([0-9a-f]{8})\n")


class CompilingFailed(StokerError):
    """The host could not compile; the tree works without."""


class ByteCodeStatistics(msgspec.Struct, frozen=True):
    """Counts since the start."""

    trees: int
    """Looked at to the end, with or without something to do."""
    files: int
    """Sources that got byte-code."""
    failed: int
    """Trees that the host could not compile."""
    dropped: int
    """Trees that found too many others waiting."""


class _Job:
    """One tree and runtime; runs in the compiling thread, can be cancelled from another."""

    def __init__(self, home: Path, interpreter: Path, dialect: Dialect, launch: Sequence[str]) -> None:
        self._tree = home / "task"
        self._interpreter = interpreter
        self._dialect = dialect
        self._launch = launch
        self._ends_s = time.monotonic() + JOB_TIMEOUT_S

    def run(self, staging: Path, cancelled: threading.Event) -> int:
        """Returns how many sources got byte-code.

        Raises:
            OSError, CompilingFailed: the host failed.
        """
        tree = os.open(self._tree, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            sources = sources_without_bytecode(tree, self._dialect)
            if not sources:
                return 0
            out = staging / os.urandom(8).hex()
            out.mkdir(mode=0o700)
            try:
                return self._compile(tree, out, sources, cancelled)
            finally:
                shutil.rmtree(out)
        finally:
            os.close(tree)

    def _compile(self, tree: int, out: Path, sources: list[Source], cancelled: threading.Event) -> int:
        first = deaths = 0
        while first < len(sources) and not cancelled.is_set():
            if self._run_compiler(out, first, sources, cancelled):
                return self._place(tree, out, sources)
            last = max((int(name.partition(".")[0]) for name in os.listdir(out)), default=-1)
            if last < first:
                raise CompilingFailed(f"{self._interpreter} compiles nothing")
            first, deaths = last + 1, deaths + 1
            if deaths == DEATHS_MAX or time.monotonic() >= self._ends_s:
                break
        return 0 if cancelled.is_set() else self._place(tree, out, sources)

    def _place(self, tree: int, out: Path, sources: list[Source]) -> int:
        finished = os.open(out, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return place(tree, finished, sources, self._dialect)
        finally:
            os.close(finished)

    def _run_compiler(self, out: Path, first: int, sources: list[Source], cancelled: threading.Event) -> bool:
        """Whether it went through the whole list, rather than dying on one of it."""
        command = [
            *self._launch, str(self._interpreter), str(self._tree), str(out),
            str(first), str(BYTECODE_MAX_BYTES), TASK_MOUNT,
        ]  # fmt: skip
        listed = b"".join(os.fsencode(source.path) + b"\0" for source in sources)
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={"PATH": os.defpath, "LC_ALL": "C.UTF-8"},
            cwd="/",
        )
        try:
            return _feed_and_wait(process, listed, self._ends_s, cancelled)
        finally:
            process.kill()
            process.wait()


_CANCEL_POLL_S = 0.05


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


class ByteCode:
    """Makes byte-code beside the sources of trees. Belongs to the event loop it is first used on.

    ``interpreters`` gives the program on the host that runs a runtime's Python, None for other runtimes; it
    is called in a thread, once per runtime. ``staging`` is on the file system of the trees and nobody else's:
    a packer that hostile input took over could otherwise plant byte-code there.
    """

    def __init__(
        self,
        staging: Path,
        interpreters: Callable[[str], Path | None],
        *,
        launch: Sequence[str] = LAUNCH_COMMAND,
    ) -> None:
        self._staging = staging
        self._interpreters = interpreters
        self._launch = launch
        self._thread = ThreadPoolExecutor(1, "bytecode")
        self._dialects: dict[str, tuple[Path, Dialect] | None] = {}
        self._jobs: dict[tuple[Path, str], asyncio.Future[None]] = {}
        self._cancelled: dict[tuple[Path, str], threading.Event] = {}
        self._done: set[tuple[Path, str]] = set()
        """Bounded by the code that is stored: ``forget`` removes."""
        self._trees = self._files = self._failed = self._dropped = 0

    async def start(self) -> None:
        """Make the staging folder and remove what a killed process left there."""
        self._staging.mkdir(parents=True, exist_ok=True, mode=0o700)
        for entry in await asyncio.to_thread(os.listdir, self._staging):
            await asyncio.to_thread(shutil.rmtree, self._staging / entry)

    def statistics(self) -> ByteCodeStatistics:
        return ByteCodeStatistics(self._trees, self._files, self._failed, self._dropped)

    def compile_nowait(self, home: Path, runtime: str) -> None:
        """Begin to compile ``home/task`` for ``runtime``, unless that was done, is under way or cannot be."""
        if self.is_known(home, runtime):
            return
        key = home, runtime
        if len(self._jobs) >= JOBS_WAITING_MAX:
            self._dropped += 1
            return
        cancelled = self._cancelled[key] = threading.Event()
        loop = asyncio.get_running_loop()
        job = self._jobs[key] = loop.run_in_executor(self._thread, self._run, home, runtime, cancelled)
        job.add_done_callback(lambda _: self._ended(key))

    def is_known(self, home: Path, runtime: str) -> bool:
        """Whether that was done or is under way: at most a few microseconds, for every cold start."""
        return (home, runtime) in self._done or (home, runtime) in self._jobs

    def under_way(self) -> int:
        return len(self._jobs)

    async def wait_compiled(self) -> None:
        """Wait until nothing is under way."""
        while self._jobs:
            await asyncio.wait(list(self._jobs.values()))

    def forget_nowait(self, home: Path) -> list[asyncio.Future[None]]:
        """End what is under way for ``home``: nothing writes there once these futures are done."""
        self._done = {key for key in self._done if key[0] != home}
        return [self._cancel(key) for key in list(self._jobs) if key[0] == home]

    async def close(self) -> None:
        """End everything under way."""
        for key in list(self._jobs):
            self._cancel(key)
        await self.wait_compiled()
        self._thread.shutdown()

    def _cancel(self, key: tuple[Path, str]) -> asyncio.Future[None]:
        self._cancelled[key].set()
        return self._jobs[key]

    def _ended(self, key: tuple[Path, str]) -> None:
        del self._jobs[key]
        if not self._cancelled.pop(key).is_set():
            self._done.add(key)

    def _run(self, home: Path, runtime: str, cancelled: threading.Event) -> None:
        """In the thread; failures are counted, since the function works without byte-code."""
        if cancelled.is_set():
            return
        try:
            known = self._dialect(runtime)
            if known is None:
                return
            self._files += _Job(home, *known, self._launch).run(self._staging, cancelled)
            self._trees += 1
        except (OSError, ValueError, StokerError):
            self._failed += not cancelled.is_set()

    def _dialect(self, runtime: str) -> tuple[Path, Dialect] | None:
        if runtime not in self._dialects:
            interpreter = self._interpreters(runtime)
            self._dialects[runtime] = None if interpreter is None else (interpreter, _probe(interpreter))
        return self._dialects[runtime]


def _probe(interpreter: Path) -> Dialect:
    try:
        answer = subprocess.run(
            [str(interpreter), "-I", "-S", "-c", _PROBE],
            capture_output=True,
            text=True,
            timeout=_PROBE_TIMEOUT_S,
            env={"PATH": os.defpath},
            check=True,
        ).stdout
    except subprocess.SubprocessError as problem:
        raise CompilingFailed(f"{interpreter} does not run: {problem}") from problem
    match = _PROBED.fullmatch(answer)
    if match is None:
        raise CompilingFailed(f"{interpreter} does not say what its byte-code is")
    return Dialect(match[1], bytes.fromhex(match[2]))
