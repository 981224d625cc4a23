"""A Stoker whose metadata is in a real PostgreSQL: migrations, contention, kill -9, a server that goes away."""

import asyncio

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text

from stoker.store import migrate
from stoker.store.database import StoreError
from stoker.store.postgres import PostgresDatabase
from stoker.store.schema import metadata
from tests.postgres import running_postgres
from tests.running import PYTHON_RUNTIME, ROLE, RunningStoker, python_zip


@pytest.fixture
def empty_url(postgres_url: str) -> str:
    async def clear() -> None:
        database = PostgresDatabase(postgres_url)
        await database.open(_clear)
        await database.close()

    asyncio.run(clear())
    return postgres_url


def _clear(connection: Connection) -> None:
    connection.execute(text("DROP SCHEMA public CASCADE"))
    connection.execute(text("CREATE SCHEMA public"))


def _differences(connection: Connection) -> list[object]:
    return list(compare_metadata(MigrationContext.configure(connection), metadata))


async def test_every_earlier_revision_migrates_to_the_tables_that_the_code_expects(empty_url: str) -> None:
    revisions = migrate.revisions(migrate.METADATA)
    for start in revisions:
        database = PostgresDatabase(empty_url)
        await database.open(_clear)
        await database.write(lambda c, start=start: migrate.upgrade(c, migrate.METADATA, target=start))
        assert await database.read(migrate.stored_revision) == start
        await database.write(lambda connection: migrate.upgrade(connection, migrate.METADATA))
        assert await database.read(_differences) == []
        await database.close()


async def test_hosts_that_start_at_once_migrate_once(empty_url: str) -> None:
    databases = await asyncio.gather(*(opened(empty_url) for _ in range(4)))
    for database in databases:
        assert await database.read(migrate.stored_revision) == migrate.HEADS[migrate.METADATA]
        await database.close()


async def opened(url: str) -> PostgresDatabase:
    database = PostgresDatabase(url, connections_max=2)
    await database.open(lambda connection: migrate.upgrade(connection, migrate.METADATA))
    return database


async def test_counters_that_collide_lose_no_increment(empty_url: str) -> None:
    database = PostgresDatabase(empty_url, connections_max=4)
    await database.open(lambda c: c.execute(text("CREATE TABLE counter AS SELECT 0 AS value")).close())

    def increment(connection: Connection) -> None:
        value = connection.execute(text("SELECT value FROM counter")).scalar_one()
        connection.execute(text("UPDATE counter SET value = :value"), {"value": value + 1})

    await asyncio.gather(*(database.write(increment) for _ in range(16)))
    total = await database.read(lambda c: c.execute(text("SELECT value FROM counter")).scalar_one())
    await database.close()
    assert total == 16


@pytest.mark.parametrize("url", ["mysql://a@b/c", "postgresql", "://"])
def test_other_urls_are_refused_without_being_shown(url: str) -> None:
    with pytest.raises(StoreError) as refused:
        PostgresDatabase(url)
    assert url not in str(refused.value)


async def test_a_server_that_is_not_there_is_named_without_the_password() -> None:
    database = PostgresDatabase("postgresql://stoker:sesame@127.0.0.1:1/stoker")
    with pytest.raises(StoreError, match=r"127\.0\.0\.1/stoker") as refused:
        await database.open(lambda connection: None)
    assert "sesame" not in str(refused.value)


def test_a_stoker_keeps_its_functions_there() -> None:
    with running_postgres() as url:
        stoker = RunningStoker(pool_memory_mb=0)
        stoker.environment["STOKER_DATABASE"] = url
        try:
            stoker.start()
            client = stoker.client("lambda")
            stoker.create_python("kept", "def lambda_handler(event, context): return event")
            assert stoker.data.joinpath("metadata.db").exists() is False
            stoker.kill()
            stoker.start()
            assert [found["FunctionName"] for found in client.list_functions()["Functions"]] == ["kept"]
            answer = client.invoke(FunctionName="kept", Payload=b'{"a": 1}')
            assert answer["Payload"].read() == b'{"a": 1}'
            with pytest.raises(client.exceptions.ResourceConflictException):
                client.create_function(
                    FunctionName="kept",
                    Role=ROLE,
                    Runtime=PYTHON_RUNTIME,
                    Handler="lambda_function.lambda_handler",
                    Code={"ZipFile": python_zip("x = 1")},
                )
        finally:
            stoker.remove()
