"""What every adapter of Records promises."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from stoker.services.functions import FunctionKey, FunctionMetadata
from stoker.services.records import (
    ANY_REVISION,
    FunctionThere,
    NobodyRefers,
    Put,
    Record,
    RecordChanged,
    RecordExists,
    RecordKey,
    RecordMissing,
    Records,
    RecordThere,
    Remove,
    RequirementUnmet,
    Shelf,
)
from stoker.store.memory import MemoryFunctionMetadata
from stoker.store.memory_records import MemoryRecords
from stoker.store.metadata import SqlFunctionMetadata
from stoker.store.records import SqlRecords
from stoker.store.sealing import Sealer
from tests.contract.databases import open_store
from tests.contract.test_metadata import ACCOUNT, REGION, version
from tests.contract.test_metadata import record as function_record

Stores = tuple[FunctionMetadata, Records]


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def stores(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stores]:
    if request.param == "memory":
        functions = MemoryFunctionMetadata()
        yield functions, MemoryRecords(functions)
        return
    database = await open_store(request, tmp_path)
    yield SqlFunctionMetadata(database, Sealer([b"k" * 32])), SqlRecords(database)
    await database.close()


@pytest.fixture
def records(stores: Stores) -> Records:
    return stores[1]


def key(name: str, owner: str = "", kind: str = "alias", region: str = REGION) -> RecordKey:
    return RecordKey(kind, ACCOUNT, region, owner, name)


def record(name: str, owner: str = "", **changes: object) -> Record:
    made = Record(key=key(name, owner), revision_id="r1", document=b'{"a":1}')
    return msgspec.structs.replace(made, **changes)


async def names(records: Records, **options: object) -> list[tuple[str, str]]:
    found = await records.page("alias", ACCOUNT, REGION, **options)  # pyright: ignore
    return [(one.key.owner, one.key.name) for one in found]


async def test_what_was_put_is_there(records: Records) -> None:
    made = record("one", lookups=("x", "y"))
    await records.write([Put(made)])
    assert await records.get(made.key) == made
    assert await records.get(key("one", region="eu-west-1")) is None
    assert await records.get(key("one", kind="layer")) is None
    assert await records.every("alias") == [made]
    assert await records.every("layer") == []


async def test_a_new_record_must_be_new(records: Records) -> None:
    await records.write([Put(record("one"))])
    with pytest.raises(RecordExists):
        await records.write([Put(record("two")), Put(record("one", revision_id="r2"))])
    assert await records.get(key("two")) is None
    assert await records.get(key("one")) == record("one")


async def test_replacing_wants_the_stored_revision(records: Records) -> None:
    with pytest.raises(RecordMissing):
        await records.write([Put(record("one"), "r1")])
    await records.write([Put(record("one", lookups=("x",)))])
    with pytest.raises(RecordChanged):
        await records.write([Put(record("one", revision_id="r2"), "r0")])
    await records.write([Put(record("one", revision_id="r2", lookups=("y",)), "r1")])
    assert await records.referring("alias", ACCOUNT, REGION, "x") == []
    assert [one.revision_id for one in await records.referring("alias", ACCOUNT, REGION, "y")] == ["r2"]
    await records.write([Put(record("one", revision_id="r3"), ANY_REVISION)])
    await records.write([Put(record("other"), ANY_REVISION)])
    assert await names(records) == [("", "one"), ("", "other")]


async def test_removing_wants_the_stored_revision(records: Records) -> None:
    with pytest.raises(RecordMissing):
        await records.write([Remove(key("one"))])
    await records.write([Put(record("one", lookups=("x",)))])
    with pytest.raises(RecordChanged):
        await records.write([Remove(key("one"), "r0")])
    await records.write([Remove(key("one"), "r1")])
    assert await records.get(key("one")) is None
    assert await records.referring("alias", ACCOUNT, REGION, "x") == []


async def test_changes_are_made_together_or_not_at_all(records: Records) -> None:
    await records.write([Put(record("one"))])
    with pytest.raises(RecordMissing):
        await records.write([Remove(key("one")), Put(record("two")), Remove(key("three"))])
    assert await names(records) == [("", "one")]


async def test_lists_page_in_both_directions(records: Records) -> None:
    wanted = [("a", "1"), ("a", "2"), ("b", "1"), ("b", "3"), ("é", "1")]
    await records.write([Put(record(name, owner)) for owner, name in reversed(wanted)])
    await records.write([Put(msgspec.structs.replace(record("x"), key=key("x", region="eu-west-1")))])
    assert await names(records) == wanted
    assert await names(records, limit=2) == wanted[:2]
    assert await names(records, after=("a", "2"), limit=2) == wanted[2:4]
    assert await names(records, owner="b") == wanted[2:4]
    assert await names(records, owner="b", descending=True) == wanted[2:4][::-1]
    assert await names(records, descending=True, after=("b", "1"), limit=1) == [("a", "2")]


async def test_referring_pages_too(records: Records) -> None:
    await records.write([Put(record(name, lookups=("x", name))) for name in "cab"])
    found = await records.referring("alias", ACCOUNT, REGION, "x", after=("", "a"), limit=1)
    assert [one.key.name for one in found] == ["b"]
    assert await records.referring("alias", ACCOUNT, REGION, "c") == [record("c", lookups=("x", "c"))]


async def test_requirements_hold_or_nothing_is_written(stores: Stores) -> None:
    functions, records = stores
    function = FunctionKey(ACCOUNT, REGION, "fn")
    missing = [
        FunctionThere(function),
        FunctionThere(function, "1"),
        RecordThere(key("other")),
    ]
    for requirement in missing:
        with pytest.raises(RequirementUnmet) as refused:
            await records.write([Put(record("one"))], [requirement])
        assert refused.value.requirement == requirement
    assert await records.get(key("one")) is None
    await functions.create(function_record("fn"), version("fn"))
    await records.write([Put(record("other", lookups=("x",)))])
    await records.write([Put(record("one"))], [FunctionThere(function), RecordThere(key("other"))])
    with pytest.raises(RequirementUnmet):
        await records.write([Put(record("two"))], [FunctionThere(function, "1")])
    await records.write([Put(record("two"))], [FunctionThere(function, "$LATEST")])
    with pytest.raises(RequirementUnmet):
        await records.write([Put(record("three"))], [NobodyRefers("alias", ACCOUNT, REGION, "x")])
    await records.write([Put(record("three"))], [NobodyRefers("layer", ACCOUNT, REGION, "x")])


async def test_records_go_away_with_their_function(stores: Stores) -> None:
    functions, records = stores
    with pytest.raises(RequirementUnmet):
        await records.write([Put(record("one", function="fn"))])
    for name in ("fn", "other"):
        await functions.create(function_record(name), version(name))
    await records.write(
        [
            Put(record("one", function="fn", lookups=("x",))),
            Put(record("two", function="other")),
            Put(record("three")),
        ]
    )
    await functions.delete(FunctionKey(ACCOUNT, REGION, "fn"))
    assert await names(records) == [("", "three"), ("", "two")]
    assert await records.referring("alias", ACCOUNT, REGION, "x") == []


async def test_of_two_writers_one_wins(records: Records) -> None:
    await records.write([Put(record("one"))])
    outcomes = await asyncio.gather(
        *(records.write([Put(record("one", revision_id=f"n{n}"), "r1")]) for n in range(5)),
        return_exceptions=True,
    )
    assert {type(outcome) for outcome in outcomes if outcome is not None} == {RecordChanged}
    assert outcomes.count(None) == 1


class Alias(msgspec.Struct, frozen=True):
    version: str


async def test_a_shelf_holds_values(records: Records) -> None:
    shelf = Shelf(records, "alias", Alias)
    at = shelf.key(ACCOUNT, REGION, "fn", "live")
    await shelf.write(Put(shelf.record(at, Alias("1"), "r1", lookups=("1",))))
    entry = await shelf.get(at)
    assert entry is not None
    assert (entry.key, entry.revision_id, entry.value) == (at, "r1", Alias("1"))
    assert await shelf.page(ACCOUNT, REGION, owner="fn") == [entry]
    assert await shelf.referring(ACCOUNT, REGION, "1") == [entry]
    assert await shelf.every() == [entry]
    await shelf.write(Remove(at, "r1"))
    assert await shelf.get(at) is None
