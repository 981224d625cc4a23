"""What every adapter of FunctionMetadata promises of published versions, with the aliases that refer to them."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from stoker.services.aliases import ALIAS, Alias, alias_key, alias_record, alias_shelf, version_lookup
from stoker.services.functions import (
    LATEST,
    FunctionKey,
    FunctionMetadata,
    FunctionMissing,
    FunctionRecord,
    FunctionVersion,
    LogSettings,
    Publication,
    Status,
    VersionInUse,
)
from stoker.services.records import FunctionThere, Put, Records, Remove, RequirementUnmet
from stoker.store.memory import MemoryFunctionMetadata
from stoker.store.memory_records import MemoryRecords
from stoker.store.metadata import SqlFunctionMetadata
from stoker.store.records import SqlRecords
from stoker.store.sealing import Sealer
from tests.contract.databases import open_store

ACCOUNT, REGION = "000000000000", "us-east-1"

Cellar = tuple[FunctionMetadata, Records]


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def cellar(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Cellar]:
    if request.param == "memory":
        memory = MemoryFunctionMetadata()
        yield memory, MemoryRecords(memory)
        return
    database = await open_store(request, tmp_path)
    yield SqlFunctionMetadata(database, Sealer([b"k" * 32])), SqlRecords(database)
    await database.close()


def key(name: str, region: str = REGION) -> FunctionKey:
    return FunctionKey(ACCOUNT, region, name)


def latest(name: str, region: str = REGION) -> FunctionVersion:
    return FunctionVersion(
        key=key(name, region),
        deployment_id="d",
        revision_id="r0",
        last_modified="2026-01-31T12:00:00.000+0000",
        role="arn:aws:iam::000000000000:role/r",
        environment={"SECRET": "s"},
        code_sha256="c1",
        code_size_bytes=10,
        logging=LogSettings(log_group="/aws/lambda/x"),
        state=Status(value="Active"),
    )


async def make(metadata: FunctionMetadata, name: str, versions: int = 0, region: str = REGION) -> None:
    await metadata.create(FunctionRecord(key=key(name, region), created_at_s=1.0), latest(name, region))
    for _ in range(versions):
        await metadata.publish(key(name, region), snapshot)


def snapshot(
    stored: FunctionVersion, newest: FunctionVersion | None, number: int, /, **changes: object
) -> Publication:
    published = msgspec.structs.replace(
        stored, version=str(number), revision_id=f"v{number}", deployment_id=f"d{number}", **changes
    )
    return Publication(latest=msgspec.structs.replace(stored, revision_id=f"r{number}"), published=published)


async def numbers(metadata: FunctionMetadata, name: str | None = None, **options: object) -> list[str]:
    found = await metadata.list_versions(ACCOUNT, REGION, name=name, **options)  # type: ignore[arg-type]
    return [f"{version.key.name}:{version.version}" for version in found]


def unless(name: str, version: str) -> tuple[str, str]:
    return ALIAS, version_lookup(name, version)


async def test_publishing_writes_the_version_and_latest(cellar: Cellar) -> None:
    metadata, _ = cellar
    await make(metadata, "one")
    made = await metadata.publish(key("one"), snapshot)
    assert made.published is not None
    assert made.published.version == "1"
    assert await metadata.version(key("one"), "1") == made.published
    assert made.published.environment == {"SECRET": "s"}
    stored = await metadata.version(key("one"), LATEST)
    assert stored is not None
    assert stored.revision_id == "r1"


async def test_a_publication_is_told_the_newest_version(cellar: Cellar) -> None:
    metadata, _ = cellar
    await make(metadata, "one", versions=2)
    seen: list[str | None] = []

    def nothing_new(stored: FunctionVersion, newest: FunctionVersion | None, number: int) -> Publication:
        seen.append(newest and newest.version)
        return Publication(latest=msgspec.structs.replace(stored, revision_id="again"))

    made = await metadata.publish(key("one"), nothing_new)
    assert made.published is None
    await metadata.delete_version(key("one"), "2", unless=unless("one", "2"))
    await metadata.publish(key("one"), nothing_new)
    assert seen == ["2", None]
    assert await numbers(metadata, "one") == ["one:$LATEST", "one:1"]


async def test_what_a_publication_raises_undoes_it(cellar: Cellar) -> None:
    metadata, _ = cellar
    await make(metadata, "one")

    def refuse(stored: FunctionVersion, newest: FunctionVersion | None, number: int) -> Publication:
        raise VersionInUse("refused")

    with pytest.raises(VersionInUse):
        await metadata.publish(key("one"), refuse)
    assert await numbers(metadata, "one") == ["one:$LATEST"]
    with pytest.raises(FunctionMissing):
        await metadata.publish(key("two"), snapshot)


async def test_numbers_are_never_used_twice(cellar: Cellar) -> None:
    metadata, _ = cellar
    await make(metadata, "one", versions=2)
    await metadata.delete_version(key("one"), "2", unless=unless("one", "2"))
    await metadata.publish(key("one"), snapshot)
    assert await numbers(metadata, "one") == ["one:$LATEST", "one:1", "one:3"]
    await asyncio.gather(*(metadata.publish(key("one"), snapshot) for _ in range(8)))
    assert (await numbers(metadata, "one"))[3:] == [f"one:{number}" for number in range(4, 12)]


async def test_a_function_can_be_made_with_its_first_version(cellar: Cellar) -> None:
    metadata, _ = cellar
    first = msgspec.structs.replace(latest("one"), version="1")
    await metadata.create(FunctionRecord(key=key("one"), created_at_s=1.0), latest("one"), first)
    assert await metadata.version(key("one"), "1") == first
    await metadata.publish(key("one"), snapshot)
    assert await numbers(metadata, "one") == ["one:$LATEST", "one:1", "one:2"]


async def test_versions_are_listed_by_name_and_number(cellar: Cellar) -> None:
    metadata, _ = cellar
    await make(metadata, "b", versions=11)
    await make(metadata, "a", versions=1)
    await make(metadata, "b", region="eu-west-1")
    expected = ["a:$LATEST", "a:1", "b:$LATEST", *(f"b:{number}" for number in range(1, 12))]
    assert await numbers(metadata) == expected
    assert await numbers(metadata, limit=3) == expected[:3]
    assert await numbers(metadata, after=("b", 0)) == expected[3:]
    assert await numbers(metadata, after=("a", 1), limit=2) == expected[2:4]
    assert await numbers(metadata, "b", after=("b", 9)) == ["b:10", "b:11"]
    assert await numbers(metadata, "c") == []


async def test_a_version_that_an_alias_refers_to_stays(cellar: Cellar) -> None:
    metadata, records = cellar
    await make(metadata, "one", versions=3)
    shelf, place = alias_shelf(records), alias_key(key("one"), "live")
    alias = Alias(version="1", additional={"2": 0.1})
    await shelf.write(Put(alias_record(shelf, place, alias, "a1")), requires=[FunctionThere(key("one"), "1")])
    for version in ("1", "2"):
        with pytest.raises(VersionInUse):
            await metadata.delete_version(key("one"), version, unless=unless("one", version))
    await metadata.delete_version(key("one"), "3", unless=unless("one", "3"))
    await shelf.write(Remove(place))
    await metadata.delete_version(key("one"), "1", unless=unless("one", "1"))
    with pytest.raises(FunctionMissing):
        await metadata.delete_version(key("one"), "1", unless=unless("one", "1"))
    with pytest.raises(RequirementUnmet):
        await shelf.write(
            Put(alias_record(shelf, place, alias, "a1")), requires=[FunctionThere(key("one"), "1")]
        )
    assert await numbers(metadata, "one") == ["one:$LATEST", "one:2"]


async def test_an_alias_of_another_function_keeps_nothing(cellar: Cellar) -> None:
    metadata, records = cellar
    await make(metadata, "one", versions=1)
    await make(metadata, "two", versions=1)
    shelf = alias_shelf(records)
    await shelf.write(Put(alias_record(shelf, alias_key(key("two"), "live"), Alias(version="1"), "a1")))
    await metadata.delete_version(key("one"), "1", unless=unless("one", "1"))
    found = await shelf.referring(ACCOUNT, REGION, version_lookup("two", "1"))
    assert [entry.value for entry in found] == [Alias(version="1")]


async def test_versions_and_aliases_go_with_their_function(cellar: Cellar) -> None:
    metadata, records = cellar
    await make(metadata, "one", versions=2)
    shelf, place = alias_shelf(records), alias_key(key("one"), "live")
    await shelf.write(Put(alias_record(shelf, place, Alias(version="1"), "a1")))
    assert len(await metadata.delete(key("one"))) == 3
    assert await shelf.get(place) is None
    await make(metadata, "one", versions=1)
    assert await numbers(metadata, "one") == ["one:$LATEST", "one:1"]


async def test_a_function_is_created_with_its_records_or_not_at_all(cellar: Cellar) -> None:
    metadata, records = cellar
    shelf = alias_shelf(records)
    record = alias_record(shelf, alias_key(key("f"), "live"), Alias(version=LATEST), "r")
    function = FunctionRecord(key=key("f"), created_at_s=1.0)
    with pytest.raises(RequirementUnmet):
        await metadata.create(
            function, latest("f"), records=[record], requires=[FunctionThere(key("another"))]
        )
    assert await metadata.function(key("f")) is None
    assert await metadata.version(key("f"), LATEST) is None
    assert await records.get(record.key) is None
    await metadata.create(function, latest("f"), records=[record], requires=[FunctionThere(key("f"))])
    assert await records.get(record.key) == record
