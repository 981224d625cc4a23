"""What every store needs of a database: transactions that are plain functions of a SQLAlchemy connection.

Which engine runs them (``sqlite``, ``postgres``) the stores do not know.
"""

from collections.abc import Callable
from typing import Protocol, TypeVar

from sqlalchemy import Connection

from stoker.core.errors import StokerError

T = TypeVar("T")


class StoreError(StokerError):
    """The database could not do what was asked; nothing was written, as far as can be known."""


class StoreBusy(StoreError):
    """Too many transactions wait."""


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

    async def close(self) -> None:
        """Finish what runs; harmless when closed already."""
        ...
