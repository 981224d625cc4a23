"""The SQLite adapters on real files: durability, group commit, migrations, leases over a restart."""

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import Connection, text

from stoker.core.errors import StokerError
from stoker.services.functions import (
    LATEST,
    FunctionExists,
    FunctionKey,
    FunctionRecord,
    FunctionVersion,
    LogSettings,
    Status,
)
from stoker.services.queue import QueuedEvent
from stoker.store import migrate
from stoker.store.database import StoreError
from stoker.store.master_keys import load_master_keys
from stoker.store.metadata import SqlFunctionMetadata
from stoker.store.opening import open_metadata_database, open_queue_database
from stoker.store.queue import SqlEventQueue
from stoker.store.schema import metadata as metadata_tables
from stoker.store.schema import queue_metadata as queue_tables
from stoker.store.sealing import SealBroken, Sealer
from stoker.store.sqlite import SqliteDatabase

KEY = FunctionKey("000000000000", "us-east-1", "f")
SECRET = "a-very-secret-value"


def version(key: FunctionKey = KEY) -> FunctionVersion:
    return FunctionVersion(
        key=key,
        deployment_id="d",
        revision_id="r1",
        last_modified="t",
        role="role",
        environment={"TOKEN": SECRET},
        code_sha256="c",
        code_size_bytes=1,
        logging=LogSettings(log_group="g"),
        state=Status(value="Active"),
    )


def event(name: str) -> QueuedEvent:
    return QueuedEvent(
        request_id=name, key=KEY, qualifier=LATEST, payload=b"x", accepted_at_s=1.0, due_at_s=5.0
    )


def test_kill_9_loses_no_acknowledged_write(tmp_path: Path) -> None:
    writer = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("writer_process.py")), str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert writer.stdout is not None
    acknowledged = {writer.stdout.readline().strip()}
    time.sleep(0.5)
    writer.kill()
    acknowledged |= {line.strip() for line in writer.stdout if line.endswith("\n")}
    writer.wait()
    assert len(acknowledged) > 50
    functions, events = asyncio.run(_survivors(tmp_path))
    lost = {f"function {name}" for name in functions} | {f"event {name}" for name in events}
    assert acknowledged <= lost


async def _survivors(data: Path) -> tuple[set[str], set[str]]:
    database, queue_database = await open_metadata_database(data), await open_queue_database(data)
    sealer = Sealer(load_master_keys(data / "master.key"))
    found = await SqlFunctionMetadata(database, sealer).list_latest(
        KEY.account, KEY.region, after_name="", limit=1_000_000
    )
    assert all(one.environment == {"NAME": one.key.name} for one in found)
    queue = SqlEventQueue(queue_database, capacity_bytes=10**9)
    await queue.recover()
    taken = await queue.take(now_s=2.0, limit=1_000_000, lease_s=1.0)
    assert await queue.depth() == (len(taken), (await queue.depth())[1])
    await database.close()
    await queue_database.close()
    return {one.key.name for one in found}, {one.request_id for one in taken}


async def test_environments_are_nowhere_in_the_files(tmp_path: Path) -> None:
    database = await open_metadata_database(tmp_path)
    metadata = SqlFunctionMetadata(database, Sealer([b"k" * 32]))
    await metadata.create(FunctionRecord(key=KEY, created_at_s=1.0), version())
    contents = [file.read_bytes() for file in tmp_path.iterdir()]
    await database.close()
    assert not any(SECRET.encode() in content for content in contents)


async def test_a_sealed_environment_copied_to_another_function_does_not_open(tmp_path: Path) -> None:
    database = await open_metadata_database(tmp_path)
    metadata = SqlFunctionMetadata(database, Sealer([b"k" * 32]))
    other = FunctionKey(KEY.account, KEY.region, "thief")
    await metadata.create(FunctionRecord(key=KEY, created_at_s=1.0), version())
    await metadata.create(FunctionRecord(key=other, created_at_s=1.0), version(other))
    steal = text(
        "UPDATE function_versions SET environment_sealed = "
        "(SELECT environment_sealed FROM function_versions WHERE name = 'f') WHERE name = 'thief'"
    )
    await database.write(lambda connection: connection.execute(steal).close())
    with pytest.raises(SealBroken):
        await metadata.version(other, LATEST)
    await database.close()


async def test_writers_at_the_same_time_share_commits(tmp_path: Path) -> None:
    database = await open_queue_database(tmp_path)
    queue = SqlEventQueue(database, capacity_bytes=10**9)
    before = database.commits
    await asyncio.gather(*(queue.put(event(f"e{number}")) for number in range(500)))
    assert database.commits - before <= 20
    assert (await queue.depth())[0] == 500
    await database.close()


async def test_one_failing_writer_does_not_undo_the_others_of_its_group(tmp_path: Path) -> None:
    database = await open_metadata_database(tmp_path)
    metadata = SqlFunctionMetadata(database, Sealer([b"k" * 32]))
    names = ["a", "b", "a", "c", "b"]
    keys = [FunctionKey(KEY.account, KEY.region, name) for name in names]
    outcomes = await asyncio.gather(
        *(metadata.create(FunctionRecord(key=key, created_at_s=1.0), version(key)) for key in keys),
        return_exceptions=True,
    )
    assert [type(outcome) for outcome in outcomes] == [
        type(None),
        type(None),
        FunctionExists,
        type(None),
        FunctionExists,
    ]
    found = await metadata.list_latest(KEY.account, KEY.region, after_name="", limit=9)
    assert [one.key.name for one in found] == ["a", "b", "c"]
    await database.close()


async def test_the_files_are_private_and_durable(tmp_path: Path) -> None:
    database = await open_metadata_database(tmp_path)

    def settings(connection: Connection) -> list[object]:
        return [
            connection.execute(text(f"PRAGMA {name}")).scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        ]

    assert await database.write(settings) == ["wal", 2, 1]
    assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o600}
    await database.close()


async def test_a_closed_database_refuses(tmp_path: Path) -> None:
    database = await open_metadata_database(tmp_path)
    await database.close()
    await database.close()
    with pytest.raises(StoreError):
        await database.read(lambda _: None)


async def test_leases_end_with_the_process_that_took_them(tmp_path: Path) -> None:
    database = await open_queue_database(tmp_path)
    queue = SqlEventQueue(database, capacity_bytes=10**9)
    for name in ("taken", "waiting"):
        await queue.put(event(name))
    (taken,) = await queue.take(now_s=5.0, limit=1, lease_s=3600.0)
    await queue.put(msgspec.structs.replace(event("later"), due_at_s=50.0))
    await database.close()

    database = await open_queue_database(tmp_path)
    queue = SqlEventQueue(database, capacity_bytes=10**9)
    await queue.recover()
    assert (await queue.depth())[0] == 3
    again = await queue.take(now_s=5.0, limit=9, lease_s=3600.0)
    assert {found.request_id for found in again} == {"taken", "waiting"}
    assert taken in again
    await database.close()


@pytest.mark.parametrize("name", [migrate.METADATA, migrate.QUEUE])
async def test_migrating_makes_the_tables_that_the_code_expects(tmp_path: Path, name: str) -> None:
    database = SqliteDatabase(tmp_path / "x.db")
    await database.open(lambda connection: migrate.upgrade(connection, name))
    tables = metadata_tables if name == migrate.METADATA else queue_tables

    def differences(connection: Connection) -> list[object]:
        from alembic.autogenerate import compare_metadata
        from alembic.migration import MigrationContext

        return list(compare_metadata(MigrationContext.configure(connection), tables))

    assert await database.write(differences) == []
    assert await database.read(migrate.stored_revision) == migrate.HEADS[name]
    await database.close()


@pytest.mark.parametrize("name", [migrate.METADATA, migrate.QUEUE])
async def test_every_earlier_revision_migrates_to_the_newest(tmp_path: Path, name: str) -> None:
    revisions = migrate.revisions(name)
    assert revisions[-1] == migrate.HEADS[name]
    for start in revisions:
        database = SqliteDatabase(tmp_path / f"{start}.db")
        await database.open(lambda connection, start=start: migrate.upgrade(connection, name, target=start))
        assert await database.read(migrate.stored_revision) == start
        await database.write(lambda connection: migrate.upgrade(connection, name))
        assert await database.read(migrate.stored_revision) == migrate.HEADS[name]
        await database.close()


async def test_a_file_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    database = await open_metadata_database(tmp_path)
    newer = text("UPDATE alembic_version SET version_num = 'm9999'")
    await database.write(lambda connection: connection.execute(newer).close())
    await database.close()
    with pytest.raises(StokerError, match="unknown schema revision"):
        await open_metadata_database(tmp_path)
