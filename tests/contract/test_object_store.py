"""What every ObjectStore promises: a local folder, S3, and the fake of the tests."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from stoker.services.object_store import ObjectMissing, ObjectStore
from stoker.store.local_object_store import LocalObjectStore
from stoker.store.memory_object_store import MemoryObjectStore
from tests.contract.object_stores import KEYS, RunningS3, s3_store


@pytest.fixture(scope="module")
def server() -> Iterator[RunningS3]:
    running = RunningS3()
    yield running
    running.stop()


@pytest.fixture(params=["local", "s3", "memory"])
async def store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ObjectStore]:
    if request.param == "memory":
        yield MemoryObjectStore()
    elif request.param == "local":
        local = LocalObjectStore(tmp_path / "objects")
        await local.start()
        yield local
    else:
        server: RunningS3 = request.getfixturevalue("server")
        url = f"http://{server.host}:{server.port}"
        for name, value in {**KEYS, "AWS_ENDPOINT_URL_S3": url}.items():
            monkeypatch.setenv(name, value)
        async with s3_store(server, url) as made:
            yield made


async def keys(store: ObjectStore, prefix: str) -> list[str]:
    return sorted([entry.key async for entry in store.list_objects(prefix)])


async def test_what_was_put_is_there(store: ObjectStore) -> None:
    await store.put("a/b.c=1/_x-2", b"content")
    assert await store.get("a/b.c=1/_x-2") == b"content"
    assert await store.size_bytes("a/b.c=1/_x-2") == 7
    await store.put("a/b.c=1/_x-2", b"")
    assert await store.get("a/b.c=1/_x-2") == b""
    assert await store.size_bytes("a/b.c=1/_x-2") == 0


async def test_put_new_never_replaces(store: ObjectStore) -> None:
    assert await store.put_new("a/b", b"first")
    assert not await store.put_new("a/b", b"second")
    assert await store.get("a/b") == b"first"


async def test_one_of_many_that_put_new_at_once_succeeds(store: ObjectStore) -> None:
    contents = [b"%d" % number for number in range(8)]
    put = await asyncio.gather(*(store.put_new("deep/er/key", content) for content in contents))
    assert put.count(True) == 1
    assert await store.get("deep/er/key") == contents[put.index(True)]


async def test_ranges(store: ObjectStore) -> None:
    await store.put("key", b"0123456789")
    assert await store.get_range("key", 2, 3) == b"234"
    assert await store.get_range("key", 8, 100) == b"89"
    assert await store.get_range("key", 10, 1) == b""
    assert await store.get_range("key", 1000, 1) == b""
    assert await store.get_range("key", 0, 0) == b""
    for offset, size_bytes in ((-1, 5), (0, -1)):
        with pytest.raises(ValueError, match="range"):
            await store.get_range("key", offset, size_bytes)


async def test_what_is_missing(store: ObjectStore, tmp_path: Path) -> None:
    await store.put("there/is", b"x")
    for key in ("no/such", "there/isnt", "there"):
        with pytest.raises(ObjectMissing):
            await store.get(key)
        with pytest.raises(ObjectMissing):
            await store.get_range(key, 1, 2)
        with pytest.raises(ObjectMissing):
            await store.fetch(key, tmp_path / "file")
        assert not (tmp_path / "file").exists()
        assert await store.size_bytes(key) is None
    await store.delete("no/such")


async def test_deletion(store: ObjectStore) -> None:
    await store.put("a/b/c", b"1")
    await store.put("a/b/d", b"2")
    await store.delete("a/b/c")
    assert await keys(store, "") == ["a/b/d"]
    await store.delete("a/b/d")
    assert await keys(store, "") == []
    assert await store.put_new("a/b/c", b"again")


async def test_listing(store: ObjectStore) -> None:
    for number in range(12):
        await store.put(f"some/{number % 3}/{number:02}", bytes(number))
    await store.put("other", b"x")
    assert await keys(store, "some/1/") == [f"some/1/{number:02}" for number in (1, 4, 7, 10)]
    assert await keys(store, "some/1/0") == ["some/1/01", "some/1/04", "some/1/07"]
    assert len(await keys(store, "some")) == 12
    assert len(await keys(store, "")) == 13
    assert await keys(store, "nothing/here") == []
    [entry] = [entry async for entry in store.list_objects("some/1/10")]
    assert entry.size_bytes == 10
    assert abs(entry.modified_at_s - (await _now(store))) < 60


async def _now(store: ObjectStore) -> float:
    await store.put("clock", b"")
    [entry] = [entry async for entry in store.list_objects("clock")]
    return entry.modified_at_s


@pytest.mark.parametrize("size_bytes", [0, 1000, 20 * 1024 * 1024 + 17])
async def test_files_go_there_and_back(store: ObjectStore, tmp_path: Path, size_bytes: int) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(size_bytes))
    sent: list[int] = []
    await store.put("file", b"to be replaced")
    await store.put_file("file", source, sent.append)
    received: list[int] = []
    await store.fetch("file", tmp_path / "back", received.append)
    digests = [hashlib.sha256((tmp_path / name).read_bytes()).digest() for name in ("source", "back")]
    assert digests[0] == digests[1]
    assert sum(sent) == sum(received) == size_bytes
    assert (tmp_path / "back").stat().st_mode & 0o777 == 0o600


async def test_a_file_that_is_there_is_not_fetched_over(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(b"mine")
    await store.put("key", b"theirs")
    with pytest.raises(FileExistsError):
        await store.fetch("key", tmp_path / "mine")
    assert (tmp_path / "mine").read_bytes() == b"mine"


async def test_what_is_no_key_is_refused(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    for key in (
        "",
        "/",
        "/a",
        "a/",
        "a//b",
        ".",
        "a/../b",
        "../a",
        "a b",
        "a\0",
        "ü",
        "a%2e",
        "x" * 201,
        "a/" * 500 + "a",
    ):
        for call in (
            store.put_new(key, b""),
            store.put(key, b""),
            store.put_file(key, tmp_path / "file"),
            store.get(key),
            store.get_range(key, 0, 1),
            store.fetch(key, tmp_path / "into"),
            store.size_bytes(key),
            store.delete(key),
        ):
            with pytest.raises(ValueError, match="object key"):
                await call
    assert await keys(store, "") == []


async def test_what_no_key_starts_with_is_refused(store: ObjectStore) -> None:
    for prefix in ("/", "/a", "../", "a/../", "a//", "ü"):
        with pytest.raises(ValueError, match="object key"):
            await keys(store, prefix)
