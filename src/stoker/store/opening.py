"""Opens the databases of a Stoker with their schemas brought up to date."""

from pathlib import Path

from stoker.store.database import Database
from stoker.store.migrate import METADATA, QUEUE, upgrade
from stoker.store.sqlite import SqliteDatabase


async def open_metadata_database(data: Path, url: str = "") -> Database:
    """``metadata.db`` of the data folder, or the PostgreSQL database behind ``url``; close it when done."""
    if not url:
        return await open_file(data, METADATA)
    from stoker.store.postgres import PostgresDatabase  # noqa: PLC0415 - an embedded start does without

    database = PostgresDatabase(url)
    await database.open(lambda connection: upgrade(connection, METADATA))
    return database


async def open_queue_database(data: Path) -> SqliteDatabase:
    """``queue.db`` of the data folder: its own file, since a file has one writer; close it when done."""
    return await open_file(data, QUEUE)


async def open_file(data: Path, name: str) -> SqliteDatabase:
    """``NAME.db`` of the data folder."""
    database = SqliteDatabase(data / f"{name}.db")
    await database.open(lambda connection: upgrade(connection, name))
    return database
