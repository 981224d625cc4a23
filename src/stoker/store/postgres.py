"""A PostgreSQL database: the same transactions as on SQLite, serialisable, over a pool of connections.

Knows nothing of what is stored.
"""

import asyncio
from collections.abc import Callable, Sequence
from random import SystemRandom
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from stoker.core.errors import StokerError
from stoker.store.database import Query, Row, StoreBusy, StoreError

T = TypeVar("T")

CONNECTIONS_MAX: Final = 16
CONNECTION_WAIT_S: Final = 10.0
"""A transaction that got no connection in this time is refused."""

WAITING_MAX: Final = 8192
"""Transactions that run or wait for a connection before new ones are refused."""

ATTEMPTS_MAX: Final = 12
"""Of a transaction that lost against others that touched the same rows."""
FIRST_PAUSE_S: Final = 0.002
PAUSE_MAX_S: Final = 0.25

STATEMENT_TIMEOUT_MS: Final = 30_000

_SCHEMA_LOCK: Final = 0x73746F6B6572
"""Advisory lock under which one process at a time brings the schema up to date."""

_RETRIED: Final = frozenset({"40001", "40P01"})
"""serialization_failure and deadlock_detected: the transaction did nothing and may run again."""


class PostgresDatabase:
    """``url`` is ``postgresql://user:password@host/name``; every write that returned is committed."""

    def __init__(self, url: str, *, connections_max: int = CONNECTIONS_MAX) -> None:
        try:
            parsed = make_url(url)
        except ArgumentError as problem:
            raise StoreError("the database URL cannot be read") from problem
        if parsed.get_backend_name() != "postgresql":
            raise StoreError("the database URL must begin with postgresql://")
        self._url = parsed.set(drivername="postgresql+asyncpg")
        self._name = f"{parsed.host or 'local'}/{parsed.database}"
        self._connections_max = connections_max
        self._engine: AsyncEngine | None = None
        self._running = 0
        self._random = SystemRandom()

    async def open(self, prepare: Callable[[Connection], None]) -> None:
        """Connect, and bring the schema up to date with ``prepare``, one process at a time.

        Raises:
            StoreError: no connection, or a schema that is newer than this Stoker.
        """
        self._engine = create_async_engine(
            self._url,
            pool_size=self._connections_max,
            max_overflow=0,
            pool_timeout=CONNECTION_WAIT_S,
            pool_pre_ping=True,
            isolation_level="SERIALIZABLE",
            connect_args={
                "timeout": CONNECTION_WAIT_S,
                "server_settings": {
                    "application_name": "stoker",
                    "statement_timeout": str(STATEMENT_TIMEOUT_MS),
                    "synchronous_commit": "on",
                },
            },
        )

        try:
            await self._locked(prepare)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Give the connections back. Harmless when closed already."""
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.dispose()

    async def write(self, transaction: Callable[[Connection], T]) -> T:
        """As ``Database.write``; run again, a few times, when other transactions were in the way."""
        return await self._run(transaction)

    async def read(self, query: Callable[[Connection], T]) -> T:
        """As ``Database.read``."""
        return await self._run(query)

    async def rows(self, query: Query, **parameters: Any) -> Sequence[Row]:
        """As ``Database.rows``."""
        return await self._run(lambda connection: connection.execute(query.statement, parameters).all())

    async def _run(self, transaction: Callable[[Connection], T]) -> T:
        if self._running >= WAITING_MAX:
            raise StoreBusy(f"{self._name}: {WAITING_MAX} transactions wait")
        self._running += 1
        try:
            for attempt in range(ATTEMPTS_MAX):
                try:
                    return await self._attempt(transaction)
                except DBAPIError as problem:
                    if _state(problem) not in _RETRIED or attempt + 1 == ATTEMPTS_MAX:
                        raise StoreError(f"{self._name}: {_words(problem)}") from problem
                except (SQLAlchemyError, OSError) as problem:
                    raise StoreError(f"{self._name}: {_words(problem)}") from problem
                ceiling_s = min(FIRST_PAUSE_S * 2**attempt, PAUSE_MAX_S)
                await asyncio.sleep(self._random.uniform(0, ceiling_s))
            raise AssertionError("the last attempt returns or raises")
        finally:
            self._running -= 1

    async def _attempt(self, transaction: Callable[[Connection], T]) -> T:
        if self._engine is None:
            raise StoreError(f"{self._name} is not open")
        async with self._engine.begin() as connection:
            return await connection.run_sync(transaction)

    async def _locked(self, prepare: Callable[[Connection], None]) -> None:
        """The lock is the session's: a serialisable transaction has to begin after it was granted."""
        assert self._engine is not None
        try:
            async with self._engine.connect() as plain:
                holder = await plain.execution_options(isolation_level="AUTOCOMMIT")
                await holder.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": _SCHEMA_LOCK})
                try:
                    await self._run(prepare)
                finally:
                    await holder.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": _SCHEMA_LOCK})
        except StokerError:
            raise
        except (SQLAlchemyError, OSError, TimeoutError) as problem:
            raise StoreError(f"{self._name}: {_words(problem)}") from problem


def _state(problem: DBAPIError) -> str | None:
    """The SQLSTATE of an error, which the driver keeps below SQLAlchemy's own."""
    cause: Any = problem.orig
    return getattr(cause, "sqlstate", None)


def _words(problem: BaseException) -> str:
    """What went wrong, in one line, without the statement and its values: they may hold what is sealed."""
    if isinstance(problem, PoolTimeout):
        return "no connection became free"
    if isinstance(problem, DBAPIError):
        problem = problem.orig or problem
    return " ".join(str(problem).split()) or type(problem).__name__
