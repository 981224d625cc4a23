"""The embedded cellar: SQLite, a local code folder, local logs; opened in order, closed in reverse."""

import os
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec

from stoker.core.clock import Clock
from stoker.core.configuration import Settings
from stoker.packaging.code_store import LocalCodeStore, staging_folder
from stoker.packaging.packers import PackerPool
from stoker.store.coordination import LocalInvalidation
from stoker.store.credentials import StoredCredentials
from stoker.store.metadata import SqlFunctionMetadata
from stoker.store.opening import open_metadata_database, open_queue_database
from stoker.store.queue import SqlEventQueue
from stoker.store.sealing import Sealer, load_master_keys

MEGABYTE = 1024 * 1024


class Cellar(msgspec.Struct, frozen=True, kw_only=True):
    """What the rooms stand on."""

    metadata: SqlFunctionMetadata
    queue: SqlEventQueue
    credentials: StoredCredentials
    code: LocalCodeStore
    invalidation: LocalInvalidation
    location_key: bytes


async def open_cellar(settings: Settings, clock: Clock, stack: AsyncExitStack) -> Cellar:
    """Open everything below the data folder; ``stack`` closes it.

    Raises:
        StokerError: a file is damaged, open to others, or under another master key.
    """
    data = Path(settings.data)
    sealer = Sealer(load_master_keys(data / "master.key", os.environ.get("STOKER_MASTER_KEY")))
    metadata_database = await open_metadata_database(data)
    stack.push_async_callback(metadata_database.close)
    queue_database = await open_queue_database(data)
    stack.push_async_callback(queue_database.close)
    queue = SqlEventQueue(queue_database, capacity_bytes=settings.queue_capacity_mb * MEGABYTE)
    await queue.recover()
    credentials = StoredCredentials(metadata_database, sealer, clock)
    await credentials.start(settings.account, given=_given_key(settings))
    return Cellar(
        metadata=SqlFunctionMetadata(metadata_database, sealer),
        queue=queue,
        credentials=credentials,
        code=await _open_code(data, stack),
        invalidation=LocalInvalidation(),
        location_key=sealer.derive("code locations"),
    )


async def _open_code(data: Path, stack: AsyncExitStack) -> LocalCodeStore:
    packers = PackerPool(staging_folder(data / "code"))
    await packers.start()
    stack.push_async_callback(packers.close)
    code = LocalCodeStore(data / "code", packers, boot_id=_boot_id())
    await code.start()
    stack.push_async_callback(code.close)
    return code


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _given_key(settings: Settings) -> tuple[str, str] | None:
    if not settings.access_key_id:
        return None
    return settings.access_key_id, settings.secret_access_key
