"""One SQLite file: a writer thread that commits in groups, and a reader thread beside it.

Transactions are plain functions of a SQLAlchemy connection, so that another database can run the same ones.
Knows nothing of what is stored.
"""

import asyncio
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from stoker.core.errors import StokerError
from stoker.store.database import Query, Row, StoreBusy, StoreError

T = TypeVar("T")

GROUP_MAX = 256
"""Transactions that share one commit."""

READS_MAX = 32
"""Reads whose answers go back to the event loop together."""

WAITING_MAX = 8192
"""Transactions that wait for a thread before new ones are refused."""

BUSY_TIMEOUT_MS = 5000

_DIALECT: Final = SQLiteDialect_pysqlite(paramstyle="named")


@dataclass(slots=True)
class _Job:
    transaction: Callable[[Connection], Any]
    """Begins none of its own when ``is_plain``."""
    future: asyncio.Future[Any]
    result: Any = None
    error: BaseException | None = None
    is_plain: bool = False


@dataclass(slots=True)
class _Lane:
    """A thread with its connection; ``None`` on its queue ends it."""

    name: str
    begin: str
    group_max: int
    jobs: queue.SimpleQueue[_Job | None] = field(default_factory=queue.SimpleQueue[Any])
    thread: threading.Thread | None = None


class SqliteDatabase:
    """Opens the file on ``open``; every write that returned is on disk (WAL, synchronous=FULL)."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._writer = _Lane("writer", "BEGIN IMMEDIATE", GROUP_MAX)
        self._reader = _Lane("reader", "BEGIN", READS_MAX)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._commits = 0

    @property
    def commits(self) -> int:
        """Groups committed so far; with the number of writes it tells how well grouping works."""
        return self._commits

    async def open(self, prepare: Callable[[Connection], None]) -> None:
        """Create the file (mode 0600) if need be and bring its schema up to date with ``prepare``."""
        self._loop = asyncio.get_running_loop()
        self._file.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self._start(self._writer)
        try:
            await self.write(prepare)
        except BaseException:
            await self.close()
            raise
        self._start(self._reader)

    async def close(self) -> None:
        """Finish what waits, then end both threads. Harmless when closed already."""
        for lane in (self._writer, self._reader):
            thread, lane.thread = lane.thread, None
            if thread is not None:
                lane.jobs.put(None)
                await asyncio.to_thread(thread.join)

    async def write(self, transaction: Callable[[Connection], T]) -> T:
        """Run a transaction; durable when this returns.

        Whatever ``transaction`` raises is raised here and undoes this transaction alone.

        Raises:
            StoreError: the database refused, or too many transactions wait.
        """
        return await self._submit(self._writer, transaction)

    async def read(self, query: Callable[[Connection], T]) -> T:
        """Run a read-only query on a snapshot that holds every write that returned."""
        return await self._submit(self._reader, query)

    async def rows(self, query: Query, **parameters: Any) -> Sequence[Row]:
        """As ``Database.rows``: one statement is a snapshot of its own, without SQLAlchemy on the way."""
        text, given = query.rendered(_DIALECT)
        values = {**given, **parameters}

        def fetch(connection: Connection) -> Sequence[Row]:
            raw: sqlite3.Connection | None = connection.connection.driver_connection
            assert raw is not None
            return raw.execute(text, values).fetchall()

        return await self._submit(self._reader, fetch, is_plain=True)

    async def _submit(
        self, lane: _Lane, transaction: Callable[[Connection], T], *, is_plain: bool = False
    ) -> T:
        if lane.thread is None or self._loop is None:
            raise StoreError(f"{self._file.name} is not open")
        if lane.jobs.qsize() >= WAITING_MAX:
            raise StoreBusy(f"{self._file.name}: {WAITING_MAX} transactions wait")
        job = _Job(transaction, self._loop.create_future(), is_plain=is_plain)
        lane.jobs.put(job)
        return await job.future

    def _start(self, lane: _Lane) -> None:
        lane.thread = threading.Thread(
            target=self._run, args=(lane,), name=f"{self._file.stem}-{lane.name}", daemon=True
        )
        lane.thread.start()

    def _run(self, lane: _Lane) -> None:
        engine = _engine(self._file, lane.begin)
        with engine.connect() as connection:
            while (job := lane.jobs.get()) is not None:
                group, ended = _group(lane, job)
                if lane is self._reader:
                    _read(connection, group)
                else:
                    _write(connection, group)
                    self._commits += 1
                self._deliver(group)
                if ended:
                    break
        engine.dispose()

    def _deliver(self, group: list[_Job]) -> None:
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(_resolve, group)


def _group(lane: _Lane, first: _Job) -> tuple[list[_Job], bool]:
    """Whatever waits behind ``first``, up to the lane's limit; and whether the lane was told to end."""
    group = [first]
    while len(group) < lane.group_max:
        try:
            job = lane.jobs.get_nowait()
        except queue.Empty:
            break
        if job is None:
            return group, True
        group.append(job)
    return group, False


def _read(connection: Connection, group: list[_Job]) -> None:
    """Each on a snapshot of its own; one that fails fails alone."""
    for job in group:
        try:
            if job.is_plain:
                job.result = job.transaction(connection)
            else:
                _commit_alone(connection, job)
        except Exception as problem:
            _fail(connection, [job], problem)


def _write(connection: Connection, group: list[_Job]) -> None:
    try:
        _commit(connection, group)
    except Exception as problem:
        _fail(connection, group, problem)


def _commit(connection: Connection, group: list[_Job]) -> None:
    if len(group) == 1:
        _commit_alone(connection, group[0])
        return
    with connection.begin():
        for job in group:
            try:
                with connection.begin_nested():
                    job.result = job.transaction(connection)
            except OperationalError:
                raise
            except Exception as problem:
                job.error = problem


def _commit_alone(connection: Connection, job: _Job) -> None:
    try:
        with connection.begin():
            job.result = job.transaction(connection)
    except StokerError as problem:
        job.error = problem


def _fail(connection: Connection, group: list[_Job], problem: Exception) -> None:
    if connection.in_transaction():
        connection.rollback()
    for job in group:
        job.error = StoreError(str(problem))


def _resolve(group: list[_Job]) -> None:
    for job in group:
        if job.future.done():
            continue
        if job.error is None:
            job.future.set_result(job.result)
        else:
            job.future.set_exception(job.error)


def _engine(file: Path, begin: str) -> Engine:
    def connect() -> sqlite3.Connection:
        raw = sqlite3.connect(file, isolation_level=None, timeout=BUSY_TIMEOUT_MS / 1000)
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            "trusted_schema=OFF",
            f"busy_timeout={BUSY_TIMEOUT_MS}",
        ):
            raw.execute(f"PRAGMA {pragma}")
        return raw

    engine = create_engine("sqlite://", creator=connect, poolclass=NullPool)

    def start(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    event.listen(engine, "begin", start)
    return engine
