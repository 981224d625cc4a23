"""Opens the embedded databases of a data folder with their schemas brought up to date."""

from pathlib import Path

from stoker.store.database import Database
from stoker.store.migrate import METADATA, QUEUE, upgrade


async def open_metadata_database(data: Path) -> Database:
    """``metadata.db`` of the data folder; close it when done."""
    return await _open(data, METADATA)


async def open_queue_database(data: Path) -> Database:
    """``queue.db`` of the data folder: its own file, since a file has one writer; close it when done."""
    return await _open(data, QUEUE)


async def _open(data: Path, name: str) -> Database:
    database = Database(data / f"{name}.db")
    await database.open(lambda connection: upgrade(connection, name))
    return database
