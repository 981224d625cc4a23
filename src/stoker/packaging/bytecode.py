"""Compiled code for unpacked trees, made in the background by confined compilers, one at a time.

An optimisation that may fail at any point: what was not compiled is compiled where it is imported.
"""

import asyncio
import os
import shutil
import threading
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
from stoker.packaging.code_cache import NodeRecipe, build_of
from stoker.packaging.compile_job import LAUNCH_COMMAND, Job, Recipe
from stoker.packaging.interpreters import Interpreters, is_node
from stoker.packaging.quiet_jobs import JOBS_WAITING_MAX, QUIET_S, JobStatistics


class ByteCodeStatistics(msgspec.Struct, frozen=True):
    """Counts since the start."""

    trees: int
    """Looked at to the end, with or without something to do."""
    files: int
    """Sources that were compiled."""
    failed: int
    """Trees that the host could not compile."""
    dropped: int
    """Trees that found too many others waiting."""


class PythonRecipe(msgspec.Struct, frozen=True):
    """Byte-code in ``__pycache__`` beside each source."""

    interpreter: Path
    dialect: Dialect
    language: str = "python"
    output_max_bytes: int = BYTECODE_MAX_BYTES

    def sources(self, tree: int) -> list[str]:
        return [source.path for source in sources_without_bytecode(tree, self.dialect)]

    def place(self, tree: int, out: int, sources: list[str]) -> int:
        known = [Source(folder, name) for folder, _, name in (path.rpartition("/") for path in sources)]
        return place(tree, out, known, self.dialect)


_Key = tuple[Path, str, str]
"""Home of the tree, runtime, and the account where what is made is one account's own."""


class ByteCode:
    """Compiles trees: Python beside its sources, Node.js into a folder of its own per account.

    Belongs to the event loop it is first used on. ``interpreters`` gives the program on the host that runs a
    runtime, None where nothing is compiled; it is called in a thread, once per runtime. ``staging`` is on the
    file system of the trees and nobody else's: a packer that hostile input took over could otherwise plant
    compiled code there.
    """

    def __init__(
        self,
        staging: Path,
        interpreters: Callable[[str], Path | None],
        *,
        launch: Sequence[str] = LAUNCH_COMMAND,
    ) -> None:
        self._staging = staging
        self._interpreters = Interpreters(interpreters)
        self._launch = launch
        self._thread = ThreadPoolExecutor(1, "bytecode")
        self._jobs: dict[_Key, asyncio.Future[Path | None]] = {}
        self._cancelled: dict[_Key, threading.Event] = {}
        self._done: dict[_Key, Path | None] = {}
        """Bounded by the code that is stored: ``forget`` removes."""
        self._later: dict[_Key, None] = {}
        self._quiet: asyncio.TimerHandle | None = None
        self._trees = self._files = self._failed = self._dropped = 0

    async def start(self) -> None:
        """Make the staging folder and remove what a killed process left there."""
        self._staging.mkdir(parents=True, exist_ok=True, mode=0o700)
        for entry in await asyncio.to_thread(os.listdir, self._staging):
            await asyncio.to_thread(shutil.rmtree, self._staging / entry)

    def statistics(self) -> ByteCodeStatistics:
        return ByteCodeStatistics(self._trees, self._files, self._failed, self._dropped)

    def jobs(self) -> JobStatistics:
        """The same as counts of trees."""
        return JobStatistics(len(self._jobs) + len(self._later), self._trees, self._failed, self._dropped)

    def compile_nowait(self, home: Path, runtime: str, account: str = "") -> None:
        """Begin to compile ``home/task`` for ``runtime``, unless that was done, is under way or cannot be."""
        self._begin(_key(home, runtime, account))

    def compile_when_quiet(self, home: Path, runtime: str, account: str = "") -> None:
        """The same for code that nobody waits for yet; at once when a cold start asks for it before."""
        key = _key(home, runtime, account)
        if key in self._done or key in self._jobs:
            return
        if len(self._later) >= JOBS_WAITING_MAX and key not in self._later:
            self._dropped += 1
            return
        self._later[key] = None
        if self._quiet is not None:
            self._quiet.cancel()
        self._quiet = asyncio.get_running_loop().call_later(QUIET_S, self._compile_next)

    def _compile_next(self) -> None:
        """One after another for as long as it stays quiet."""
        self._quiet = None
        while self._later:
            job = self._begin(next(iter(self._later)))
            if job is not None:
                job.add_done_callback(lambda _: self._go_on())
                return

    def _go_on(self) -> None:
        if self._quiet is None:
            self._compile_next()

    def _begin(self, key: _Key) -> asyncio.Future[Path | None] | None:
        self._later.pop(key, None)
        if key in self._done or key in self._jobs:
            return None
        if len(self._jobs) >= JOBS_WAITING_MAX:
            self._dropped += 1
            return None
        cancelled = self._cancelled[key] = threading.Event()
        loop = asyncio.get_running_loop()
        job = self._jobs[key] = loop.run_in_executor(self._thread, self._run, key, cancelled)
        job.add_done_callback(lambda done: self._ended(key, done))
        return job

    def is_known(self, home: Path, runtime: str, account: str = "") -> bool:
        """Whether that was done or is under way: at most a few microseconds, for every cold start."""
        key = _key(home, runtime, account)
        return key in self._done or key in self._jobs

    def folder_of(self, home: Path, runtime: str, account: str = "") -> Path | None:
        """What was made for a tree outside of it; None when there is nothing (yet). As quick."""
        return self._done.get(_key(home, runtime, account))

    def under_way(self) -> int:
        return len(self._jobs)

    async def wait_compiled(self) -> None:
        """Wait until nothing is under way."""
        while self._jobs:
            await asyncio.wait(list(self._jobs.values()))

    def forget_nowait(self, home: Path) -> list[asyncio.Future[Path | None]]:
        """End what is under way for ``home``: nothing writes there once these futures are done."""
        self._done = {key: made for key, made in self._done.items() if key[0] != home}
        self._later = {key: None for key in self._later if key[0] != home}
        return [self._cancel(key) for key in list(self._jobs) if key[0] == home]

    async def close(self) -> None:
        """End everything under way; what has not begun is left for the next cold start."""
        self._later.clear()
        if self._quiet is not None:
            self._quiet.cancel()
        for key in list(self._jobs):
            self._cancel(key)
        await self.wait_compiled()
        self._thread.shutdown()

    def _cancel(self, key: _Key) -> asyncio.Future[Path | None]:
        self._cancelled[key].set()
        return self._jobs[key]

    def _ended(self, key: _Key, job: asyncio.Future[Path | None]) -> None:
        del self._jobs[key]
        if not self._cancelled.pop(key).is_set():
            self._done[key] = job.result()

    def _run(self, key: _Key, cancelled: threading.Event) -> Path | None:
        """In the thread; failures are counted, since the function works without compiled code."""
        home, runtime, account = key
        if cancelled.is_set():
            return None
        try:
            recipe = self._recipe(home, runtime, account)
            if recipe is None:
                return None
            tree = os.open(home / "task", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                self._files += Job(tree, recipe, self._launch).run(self._staging, cancelled)
            finally:
                os.close(tree)
            self._trees += 1
            return recipe.made() if isinstance(recipe, NodeRecipe) else None
        except (OSError, ValueError, StokerError):
            self._failed += not cancelled.is_set()
            return None

    def _recipe(self, home: Path, runtime: str, account: str) -> Recipe | None:
        interpreter = self._interpreters.of(runtime)
        if interpreter is None:
            return None
        if is_node(runtime):
            return NodeRecipe(interpreter, home, account, build_of(interpreter))
        return PythonRecipe(interpreter, self._interpreters.dialect(interpreter))


def _key(home: Path, runtime: str, account: str) -> _Key:
    return home, runtime, account if is_node(runtime) else ""
