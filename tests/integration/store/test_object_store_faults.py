"""Object stores when things go wrong: servers that fail, stall, lie; full disks; links; kill -9."""

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from stoker.aws.clients import AwsClients
from stoker.aws.part_uploads import S3PartUploads
from stoker.services.object_store import ObjectMissing, ObjectStoreUnavailable
from stoker.store import object_parts
from stoker.store.local_object_store import LocalObjectStore
from stoker.store.object_store import S3ObjectStore
from stoker.store.objects import S3Settings
from tests.contract.object_stores import INTERNAL_ERROR, KEYS, REGION, Proxy, RunningS3

PREFIX = "below/here"


@pytest.fixture(scope="module")
def server() -> Iterator[RunningS3]:
    running = RunningS3()
    yield running
    running.stop()


@pytest.fixture
def bucket(server: RunningS3) -> str:
    return server.bucket()


@pytest.fixture
async def proxy(server: RunningS3, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Proxy]:
    monkeypatch.setattr(object_parts, "FIRST_WAIT_S", 0.01)
    made = Proxy(server.host, server.port)
    url = await made.start()
    for name, value in {**KEYS, "AWS_ENDPOINT_URL_S3": url}.items():
        monkeypatch.setenv(name, value)
    yield made
    await made.stop()


def s3_store(bucket: str, timeout_s: float = 20) -> S3ObjectStore:
    environment = dict(os.environ)
    parts = S3PartUploads(AwsClients(environment), bucket, REGION)
    return S3ObjectStore(bucket, PREFIX, S3Settings(environment, REGION), parts, timeout_s=timeout_s)


@pytest.fixture
def store(proxy: Proxy, bucket: str) -> S3ObjectStore:
    return s3_store(bucket)


def failing(method: str, times: int, answer: bytes | int | str = INTERNAL_ERROR) -> object:
    left = [times]

    def misbehave(request: str) -> object:
        if not request.startswith(method) or not left[0]:
            return None
        left[0] -= 1
        return answer

    return misbehave


async def test_failures_that_pass_are_not_noticed(proxy: Proxy, store: S3ObjectStore) -> None:
    proxy.misbehave = failing("PUT", 2)  # type: ignore[assignment]
    assert await store.put_new("key", b"content")
    proxy.misbehave = failing("GET", 2)  # type: ignore[assignment]
    assert await store.get("key") == b"content"
    assert len(proxy.requests) == 6


async def test_failures_that_stay_are_told(proxy: Proxy, store: S3ObjectStore) -> None:
    proxy.misbehave = lambda _: INTERNAL_ERROR
    for call in (store.put_new("key", b"x"), store.get("key"), store.size_bytes("key"), store.delete("key")):
        with pytest.raises(ObjectStoreUnavailable, match=f"s3://objects-.*/{PREFIX}/key: "):
            await call
    with pytest.raises(ObjectStoreUnavailable, match="InternalError: We encountered an internal error"):
        await store.get("key")
    with pytest.raises(ObjectStoreUnavailable):
        [_ async for _ in store.list_objects("")]


async def test_an_answer_that_ends_early_is_never_taken_for_whole(
    proxy: Proxy, store: S3ObjectStore, tmp_path: Path
) -> None:
    content = os.urandom(300_000)
    await store.put("key", content)
    proxy.misbehave = failing("GET", 1, 150_000)  # type: ignore[assignment]
    assert await store.get("key") == content
    proxy.misbehave = failing("GET", 1000, 2_000)  # type: ignore[assignment]
    with pytest.raises(ObjectStoreUnavailable):
        await store.get_range("key", 0, 300_000)
    with pytest.raises(ObjectStoreUnavailable):
        await store.fetch("key", tmp_path / "file")
    assert not (tmp_path / "file").exists()


async def test_a_store_that_stalls_is_given_up(proxy: Proxy, bucket: str, tmp_path: Path) -> None:
    store = s3_store(bucket, timeout_s=0.5)
    proxy.misbehave = lambda _: "stall"
    for call in (store.put_new("key", b"x"), store.get("key"), store.fetch("key", tmp_path / "file")):
        with pytest.raises(ObjectStoreUnavailable, match=r"no answer within 0\.5 s"):
            await call


async def test_nobody_answers(server: RunningS3, bucket: str, proxy: Proxy) -> None:
    await proxy.stop()
    with pytest.raises(ObjectStoreUnavailable, match=r"s3://objects-.*/key: "):
        await s3_store(bucket).get("key")


async def test_a_bucket_that_is_not_there_is_no_missing_object(proxy: Proxy) -> None:
    store = s3_store("no-such-bucket")
    with pytest.raises(ObjectStoreUnavailable, match="NoSuchBucket"):
        await store.get("key")
    with pytest.raises(ObjectStoreUnavailable, match="NoSuchBucket"):
        await store.put_new("key", b"x")


async def test_parts_that_fail_are_sent_again(
    proxy: Proxy, store: S3ObjectStore, bucket: str, server: RunningS3, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(20 * 1024 * 1024))
    proxy.misbehave = failing("PUT", 3)  # type: ignore[assignment]
    await store.put_file("big", source)
    assert sum("uploadId" in request for request in proxy.requests if request.startswith("PUT")) == 6
    await store.fetch("big", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == source.read_bytes()
    assert "Uploads" not in server.client().list_multipart_uploads(Bucket=bucket)


@pytest.mark.parametrize("method", ["PUT", "POST /.*uploadId"])
async def test_an_upload_that_cannot_be_finished_leaves_nothing(
    proxy: Proxy, store: S3ObjectStore, bucket: str, server: RunningS3, tmp_path: Path, method: str
) -> None:
    source = tmp_path / "source"
    source.write_bytes(bytes(20 * 1024 * 1024))
    word, _, query = method.partition(" /.*")
    proxy.misbehave = lambda request: (
        INTERNAL_ERROR if request.startswith(word) and query in request else None
    )
    with pytest.raises(ObjectStoreUnavailable, match="internal error"):
        await store.put_file("big", source)
    assert any(request.startswith("DELETE") for request in proxy.requests)
    assert "Uploads" not in server.client().list_multipart_uploads(Bucket=bucket)
    assert "Contents" not in server.client().list_objects_v2(Bucket=bucket)


async def test_uploads_that_a_killed_process_left_are_dropped(
    store: S3ObjectStore, bucket: str, server: RunningS3
) -> None:
    client = server.client()
    for key in (f"{PREFIX}/mine", "not-below"):
        client.create_multipart_upload(Bucket=bucket, Key=key)
    assert await store.drop_uploads(begun_before_s=0) == 0
    assert await store.drop_uploads(begun_before_s=2**40) == 1
    left = client.list_multipart_uploads(Bucket=bucket)["Uploads"]
    assert [one["Key"] for one in left] == ["not-below"]


async def local_store(folder: Path) -> LocalObjectStore:
    store = LocalObjectStore(folder)
    await store.start()
    return store


async def test_links_are_never_followed(tmp_path: Path) -> None:
    store = await local_store(tmp_path / "store")
    objects = tmp_path / "store" / "objects"
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    (objects / "folder").symlink_to(outside)
    (objects / "file").symlink_to(outside / "secret")
    for key in ("folder/secret", "file"):
        with pytest.raises(ObjectStoreUnavailable):
            await store.get(key)
        with pytest.raises(ObjectStoreUnavailable):
            await store.put_new(key, b"x")
    with pytest.raises(ObjectStoreUnavailable):
        await store.put("folder/new", b"x")
    await store.put("file", b"takes the link's place")
    assert [entry.key async for entry in store.list_objects("")] == ["file"]
    assert os.listdir(outside) == ["secret"]
    assert (outside / "secret").read_bytes() == b"secret"


async def test_what_is_no_file_is_no_object(tmp_path: Path) -> None:
    store = await local_store(tmp_path / "store")
    os.mkfifo(tmp_path / "store" / "objects" / "pipe")
    with pytest.raises(ObjectMissing):
        await store.get("pipe")
    with pytest.raises(ObjectStoreUnavailable):
        await store.put_new("pipe", b"x")


async def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", str(folder)], check=True)
    try:
        store = await local_store(folder)
        (tmp_path / "big").write_bytes(bytes(2 * 1024 * 1024))
        assert await store.put_new("small", b"x")
        for call in (
            store.put_new("a/big", bytes(2 * 1024 * 1024)),
            store.put("a/big", bytes(2 * 1024 * 1024)),
            store.put_file("a/big", tmp_path / "big"),
        ):
            with pytest.raises(
                ObjectStoreUnavailable, match=f"no space is left on the disk: objects in {folder}"
            ):
                await call
        assert [entry.key async for entry in store.list_objects("")] == ["small"]
        assert os.listdir(folder / "staging") == []
        assert await store.put_new("a/fits", bytes(512 * 1024))
    finally:
        subprocess.run(["umount", str(folder)], check=True)


WRITER = """
import asyncio, sys
from pathlib import Path
from stoker.store.local_object_store import LocalObjectStore

async def main():
    store = LocalObjectStore(Path(sys.argv[1]))
    await store.start()
    for number in range(100_000):
        await store.put_new(f"some/{number % 7}/{number}", b"%d " % number * 20_000)
        print(number, flush=True)

asyncio.run(main())
"""


async def test_kill_9_loses_nothing_acknowledged_and_shows_nothing_half(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE)
    assert writer.stdout is not None
    acknowledged = [int(writer.stdout.readline()) for _ in range(25)]
    writer.send_signal(signal.SIGKILL)
    acknowledged += [int(line) for line in writer.stdout if line.endswith(b"\n")]
    writer.wait()
    writer.stdout.close()
    store = await local_store(folder)
    found = {int(e.key.rpartition("/")[2]): await store.get(e.key) async for e in store.list_objects("")}
    assert found.keys() >= set(acknowledged)
    assert all(content == b"%d " % number * 20_000 for number, content in found.items())
    assert os.listdir(folder / "staging") == []
