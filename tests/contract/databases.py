"""Opens the database that a test of the stores is parametrised with."""

from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from stoker.store.database import Database
from stoker.store.opening import open_metadata_database
from stoker.store.schema import metadata


async def open_store(request: pytest.FixtureRequest, folder: Path) -> Database:
    """An empty metadata database of the engine that ``request.param`` names."""
    if request.param == "sqlite":
        return await open_metadata_database(folder)
    database = await open_metadata_database(folder, request.getfixturevalue("postgres_url"))
    await database.write(_empty)
    return database


def _empty(connection: Connection) -> None:
    names = ", ".join(f'"{table.name}"' for table in metadata.sorted_tables)
    connection.execute(text(f"TRUNCATE {names}"))
