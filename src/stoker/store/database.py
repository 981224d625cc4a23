"""What every store needs of a database: transactions that are plain functions of a SQLAlchemy connection.

Which engine runs them (``sqlite``, ``postgres``) the stores do not know.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection
from sqlalchemy.engine import Dialect
from sqlalchemy.sql.selectable import ExecutableReturnsRows

from stoker.core.errors import StokerError

T = TypeVar("T")


class StoreError(StokerError):
    """The database could not do what was asked; nothing was written, as far as can be known."""


class StoreBusy(StoreError):
    """Too many transactions wait."""


class Query:
    """A SELECT with named parameters, made once when its module is imported and rendered once per dialect."""

    def __init__(self, statement: ExecutableReturnsRows) -> None:
        self.statement = statement
        self._rendered: dict[str, tuple[str, Mapping[str, Any]]] = {}

    def rendered(self, dialect: Dialect) -> tuple[str, Mapping[str, Any]]:
        """The text, and the values that the statement holds itself, for a dialect with named parameters."""
        found = self._rendered.get(dialect.name)
        if found is None:
            compiled = self.statement.compile(dialect=dialect)
            found = self._rendered[dialect.name] = str(compiled), dict(compiled.params)
        return found


Row = Sequence[Any]
"""The values of a row, in the order of the query's columns."""


class Database(Protocol):
    """An open database. Transactions may run more than once before one of them counts."""

    async def write(self, transaction: Callable[[Connection], T]) -> T:
        """Run a transaction alone; durable when this returns.

        Whatever ``transaction`` raises is raised here and undoes this transaction alone.

        Raises:
            StoreError: the database refused, or too many transactions wait.
        """
        ...

    async def read(self, query: Callable[[Connection], T]) -> T:
        """Run a read-only query on a snapshot that holds every write that returned."""
        ...

    async def rows(self, query: Query, **parameters: Any) -> Sequence[Row]:
        """What one query finds: as ``read``, for questions that are asked so often that each us counts."""
        ...

    async def close(self) -> None:
        """Finish what runs; harmless when closed already."""
        ...
