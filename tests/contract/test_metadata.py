"""What every adapter of FunctionMetadata promises."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from stoker.services.functions import (
    LATEST,
    FunctionExists,
    FunctionKey,
    FunctionMetadata,
    FunctionMissing,
    FunctionRecord,
    FunctionVersion,
    ImageUse,
    LayerUse,
    LogSettings,
    ReservationRefused,
    RevisionMismatch,
    Status,
)
from stoker.services.images import image_code
from stoker.store.memory import MemoryFunctionMetadata
from stoker.store.metadata import SqlFunctionMetadata
from stoker.store.sealing import Sealer
from tests.contract.databases import open_store

ACCOUNT, REGION = "000000000000", "us-east-1"


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def metadata(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[FunctionMetadata]:
    if request.param == "memory":
        yield MemoryFunctionMetadata()
        return
    database = await open_store(request, tmp_path)
    yield SqlFunctionMetadata(database, Sealer([b"k" * 32]))
    await database.close()


def key(name: str, region: str = REGION) -> FunctionKey:
    return FunctionKey(ACCOUNT, region, name)


def record(name: str, **changes: object) -> FunctionRecord:
    return msgspec.structs.replace(FunctionRecord(key=key(name), created_at_s=1.5), **changes)


def version(name: str, **changes: object) -> FunctionVersion:
    made = FunctionVersion(
        key=key(name),
        deployment_id="d1",
        revision_id="r1",
        last_modified="2026-01-31T12:00:00.000+0000",
        role="arn:aws:iam::000000000000:role/r",
        runtime="python3.12",
        handler="a.b",
        code_sha256="c1",
        code_size_bytes=10,
        logging=LogSettings(log_group="/aws/lambda/x"),
        state=Status(value="Active"),
        stored_only={"VpcConfig": {"SubnetIds": ["a"]}},
    )
    return msgspec.structs.replace(made, **changes)


async def test_what_was_created_is_there(metadata: FunctionMetadata) -> None:
    made = version("one", environment={"KEY": "välue", "EMPTY": ""})
    await metadata.create(record("one", tags={"a": "b"}), made)
    assert await metadata.version(key("one"), LATEST) == made
    assert await metadata.function(key("one")) == record("one", tags={"a": "b"})
    assert await metadata.version(key("one"), "1") is None
    assert await metadata.version(key("two"), LATEST) is None
    assert await metadata.function(key("one", "eu-west-1")) is None


async def test_an_empty_environment_is_not_none(metadata: FunctionMetadata) -> None:
    await metadata.create(record("one"), version("one", environment={}))
    await metadata.create(record("two"), version("two", environment=None))
    first, second = [await metadata.version(key(name), LATEST) for name in ("one", "two")]
    assert first is not None
    assert first.environment == {}
    assert second is not None
    assert second.environment is None


async def test_a_name_is_taken_once_an_account_and_region(metadata: FunctionMetadata) -> None:
    await metadata.create(record("one"), version("one"))
    with pytest.raises(FunctionExists):
        await metadata.create(record("one"), version("one", revision_id="r2"))
    stored = await metadata.version(key("one"), LATEST)
    assert stored is not None
    assert stored.revision_id == "r1"
    elsewhere = key("one", "eu-west-1")
    await metadata.create(record("one", key=elsewhere), version("one", key=elsewhere))


async def test_of_many_creates_at_once_one_wins(metadata: FunctionMetadata) -> None:
    outcomes = await asyncio.gather(
        *(metadata.create(record("one"), version("one", revision_id=f"r{number}")) for number in range(8)),
        return_exceptions=True,
    )
    assert sum(outcome is None for outcome in outcomes) == 1
    assert sum(isinstance(outcome, FunctionExists) for outcome in outcomes) == 7


async def test_replacing_is_guarded_by_the_revision(metadata: FunctionMetadata) -> None:
    await metadata.create(record("one"), version("one"))
    second = version("one", revision_id="r2", memory_mb=256)
    await metadata.replace_version(second, "r1")
    with pytest.raises(RevisionMismatch):
        await metadata.replace_version(version("one", revision_id="r3"), "r1")
    assert await metadata.version(key("one"), LATEST) == second
    with pytest.raises(FunctionMissing):
        await metadata.replace_version(version("two"), "r1")


async def test_lists_in_name_order_page_by_page(metadata: FunctionMetadata) -> None:
    for name in ("b", "a", "B", "c"):
        await metadata.create(record(name), version(name))
    first = await metadata.list_latest(ACCOUNT, REGION, after_name="", limit=3)
    assert [found.key.name for found in first] == ["B", "a", "b"]
    rest = await metadata.list_latest(ACCOUNT, REGION, after_name="b", limit=3)
    assert [found.key.name for found in rest] == ["c"]
    assert await metadata.list_latest(ACCOUNT, "eu-west-1", after_name="", limit=3) == []


async def test_deleting_takes_every_version(metadata: FunctionMetadata) -> None:
    made = version("one", environment={"A": "b"})
    await metadata.create(record("one"), made)
    assert await metadata.delete(key("one")) == [made]
    assert await metadata.function(key("one")) is None
    assert await metadata.version(key("one"), LATEST) is None
    with pytest.raises(FunctionMissing):
        await metadata.delete(key("one"))


async def test_reservations_are_summed_and_bounded(metadata: FunctionMetadata) -> None:
    for name in ("a", "b"):
        await metadata.create(record(name), version(name))
    await metadata.set_reserved_concurrency(key("a"), 60, total_max=100)
    with pytest.raises(ReservationRefused):
        await metadata.set_reserved_concurrency(key("b"), 41, total_max=100)
    await metadata.set_reserved_concurrency(key("b"), 40, total_max=100)
    await metadata.set_reserved_concurrency(key("a"), 0, total_max=100)
    assert await metadata.total_reserved_concurrency(ACCOUNT, REGION) == 40
    function = await metadata.function(key("a"))
    assert function is not None
    assert function.reserved_concurrency == 0
    await metadata.set_reserved_concurrency(key("b"), None)
    assert await metadata.total_reserved_concurrency(ACCOUNT, REGION) == 0
    with pytest.raises(FunctionMissing):
        await metadata.set_reserved_concurrency(key("c"), 1)


async def test_tags_change_in_one_transaction(metadata: FunctionMetadata) -> None:
    await metadata.create(record("one", tags={"a": "1"}), version("one"))
    await asyncio.gather(
        *(
            metadata.change_tags(key("one"), lambda tags, number=number: {**tags, f"t{number}": "x"})
            for number in range(5)
        )
    )
    function = await metadata.function(key("one"))
    assert function is not None
    assert set(function.tags) == {"a", "t0", "t1", "t2", "t3", "t4"}
    with pytest.raises(FunctionMissing):
        await metadata.change_tags(key("two"), dict)


async def test_what_a_tag_change_raises_undoes_it(metadata: FunctionMetadata) -> None:
    await metadata.create(record("one", tags={"a": "1"}), version("one"))

    def refuse(_tags: dict[str, str]) -> dict[str, str]:
        raise RevisionMismatch("no")

    with pytest.raises(RevisionMismatch):
        await metadata.change_tags(key("one"), refuse)
    function = await metadata.function(key("one"))
    assert function is not None
    assert function.tags == {"a": "1"}


async def test_knows_which_code_is_used(metadata: FunctionMetadata) -> None:
    await metadata.create(record("one"), version("one", code_sha256="c1"))
    assert await metadata.code_is_used("c1")
    assert not await metadata.code_is_used("c2")
    await metadata.replace_version(version("one", code_sha256="c2", revision_id="r2"), "r1")
    assert not await metadata.code_is_used("c1")


async def test_knows_which_images_are_used_and_by_whom(metadata: FunctionMetadata) -> None:
    def use(digit: str) -> ImageUse:
        return ImageUse(uri=f"local/{digit}:1", resolved_uri="", digest=f"sha256:{digit * 64}")

    async def used(account: str) -> list[str]:
        names = {digit: image_code(account, f"sha256:{digit * 64}") for digit in "ab"}
        return [digit for digit, name in names.items() if await metadata.code_is_used(name)]

    here = key("one").account
    latest = version("one", image=use("a"), code_sha256="a" * 64, package_type="Image")
    await metadata.create(record("one"), latest)
    assert (await used(here), await used("111111111111")) == (["a"], [])
    changed = msgspec.structs.replace(latest, revision_id="r2", next_image=use("b"))
    await metadata.replace_version(changed, "r1")
    assert (await used(here), await used("111111111111")) == (["a", "b"], [])
    assert await metadata.version(key("one"), LATEST) == changed
    moved = msgspec.structs.replace(changed, revision_id="r3", image=use("b"), next_image=None)
    await metadata.replace_version(moved, "r2")
    assert await used(here) == ["b"]
    await metadata.delete(key("one"))
    assert await used(here) == []


async def test_knows_which_code_of_layers_is_used(metadata: FunctionMetadata) -> None:
    def use(name: str) -> LayerUse:
        return LayerUse(arn=f"arn:{name}", code_sha256=name, size_bytes=1, unpacked_bytes=2)

    latest = version("one", layers=(use("l1"), use("l2"), use("l1")))
    first = msgspec.structs.replace(latest, version="1", layers=(use("l1"),))
    await metadata.create(record("one"), latest, first)
    stored = await metadata.version(key("one"), LATEST)
    assert stored is not None
    assert stored.layers == latest.layers

    async def used() -> list[str]:
        return [name for name in ("l1", "l2", "l3") if await metadata.code_is_used(name)]

    assert await used() == ["l1", "l2"]
    changed = msgspec.structs.replace(latest, revision_id="r2", layers=(use("l3"),))
    await metadata.replace_version(changed, "r1")
    assert await used() == ["l1", "l3"]
    await metadata.delete_version(key("one"), "1", unless=("alias", "none"))
    assert await used() == ["l3"]
    await metadata.delete(key("one"))
    assert await used() == []


async def test_usage_counts_functions_and_bytes(metadata: FunctionMetadata) -> None:
    assert await metadata.usage(ACCOUNT, REGION) == (0, 0)
    await metadata.create(record("a"), version("a", code_size_bytes=7))
    await metadata.create(record("b"), version("b", code_size_bytes=5_000_000_000))
    assert await metadata.usage(ACCOUNT, REGION) == (2, 5_000_000_007)
    assert await metadata.usage(ACCOUNT, "eu-west-1") == (0, 0)


async def test_finds_what_is_under_way(metadata: FunctionMetadata) -> None:
    await metadata.create(record("done"), version("done", last_update=Status(value="Successful")))
    pending = version("pending", state=Status(value="Pending"))
    updating = version("updating", last_update=Status(value="InProgress"), environment={"A": "b"})
    for made in (pending, updating):
        await metadata.create(record(made.key.name), made)
    assert sorted(await metadata.unsettled(), key=lambda found: found.key.name) == [pending, updating]
    await metadata.replace_version(version("pending", revision_id="r2"), "r1")
    assert await metadata.unsettled() == [updating]
