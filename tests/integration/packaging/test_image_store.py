"""Images admitted through the real flattener into a real store: once, whole or not at all."""

import asyncio
import os
import random
import secrets
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from stoker.core.clock import SystemClock
from stoker.packaging.chunks.images import ChunkedImages
from stoker.packaging.chunks.sealing import CHUNK_BYTES, open_chunk
from stoker.packaging.image_admission import ImageAdmission
from stoker.packaging.image_mounts import ImageMounts
from stoker.packaging.image_store import ChunkedImageStore
from stoker.services.images import ImageArtifact, ImageProgress, ImageRefused, ImageUser, ResolvedImage
from stoker.services.object_store import ObjectStore, ObjectStoreUnavailable
from stoker.store.data_keys import MasterDataKeys
from stoker.store.local_object_store import LocalObjectStore
from stoker.store.memory_object_store import MemoryObjectStore
from stoker.store.sealing import Sealer
from tests.erofs_reader import Reader
from tests.images.layers import File, Layer
from tests.images.layout import write_image
from tests.images.source import LayoutSource

ACCOUNT = "000000000000"
KEY = secrets.token_bytes(32)
NOISE = random.Random(9).randbytes(6_000_000)
SECRET = b"what the customer wrote " * 4000
BASE: Layer = {"etc/passwd": "app:x:1000:1001::/home/app:/bin/sh\n", "usr/lib/noise": NOISE}
CONFIG = {
    "Entrypoint": ["/bin/app"],
    "Cmd": ["handler"],
    "Env": ["A=1", "B=x=y", "broken"],
    "WorkingDir": "/var/task",
    "User": "app",
}


class Images:
    """An image store over ``objects`` whose images come from a layout."""

    def __init__(self, tmp_path: Path, objects: ObjectStore, key: bytes = KEY) -> None:
        self.source = LayoutSource(tmp_path / "layout")
        self.chunked = ChunkedImages(objects, MasterDataKeys(Sealer([key])), SystemClock())
        self.admission = ImageAdmission(self.source, self.chunked, tmp_path / "staging")

        async def nothing_pinned() -> set[tuple[str, str]]:
            return set()

        self.store = ChunkedImageStore(
            self.source, self.chunked, self.admission, _no_mounts(), nothing_pinned
        )

    async def admit(self, digest: str, account: str = ACCOUNT) -> ImageArtifact:
        return await self.store.admit(named(digest), account)

    async def tree(self, digest: str, into: Path) -> Reader:
        image = await self.chunked.find(ACCOUNT, digest)
        with into.open("wb") as file:
            for entry in image.manifest.entries():
                file.seek(entry.index * CHUNK_BYTES)
                file.write(open_chunk(await self.chunked.fetch(image, entry), entry.name, entry.key))
            file.truncate(image.manifest.size_bytes)
        return Reader(into.read_bytes())


def _no_mounts() -> ImageMounts:
    """Nothing is mounted here."""
    return None  # type: ignore[return-value]


def named(digest: str) -> ResolvedImage:
    uri = f"registry.example.com/app@{digest}"
    return ResolvedImage(uri=uri, resolved_uri=uri, digest=digest)


def write(tmp_path: Path, line: str = "one", *, compression: str = "gzip") -> str:
    application: Layer = {"var/task/app.py": File(line.encode() + SECRET, mode=0o755)}
    return write_image(tmp_path / "layout", [BASE, application], CONFIG, compression=compression)


@pytest.fixture
async def images(tmp_path: Path) -> Images:
    found = Images(tmp_path, MemoryObjectStore())
    await found.admission.start()
    return found


def memory(images: Images) -> MemoryObjectStore:
    assert isinstance(images.chunked.store, MemoryObjectStore)
    return images.chunked.store


@pytest.mark.parametrize("compression", ["gzip", "none"])
async def test_an_admitted_image_is_whole_and_says_how_it_starts(
    images: Images, tmp_path: Path, compression: str
) -> None:
    digest = write(tmp_path, compression=compression)
    told: list[ImageProgress] = []
    artifact = await images.store.admit(named(digest), ACCOUNT, progress=told.append)
    assert artifact == await images.store.artifact(ACCOUNT, digest)
    configuration = artifact.configuration
    assert (configuration.entry_point, configuration.command) == (("/bin/app",), ("handler",))
    assert configuration.environment == {"A": "1", "B": "x=y"}
    assert configuration.working_directory == "/var/task"
    assert configuration.user == ImageUser(1000, 1001, "/home/app")
    tree = (await images.tree(digest, tmp_path / "image")).tree()
    assert tree["/usr/lib/noise"].content == NOISE
    assert tree["/var/task/app.py"].content == b"one" + SECRET
    assert told[-1].phase == "storing"
    assert told[-1].done_bytes == told[-1].total_bytes
    assert not os.listdir(tmp_path / "staging")


async def test_nothing_stored_is_readable(images: Images, tmp_path: Path) -> None:
    await images.admit(write(tmp_path))
    for content in memory(images).objects.values():
        assert SECRET[:48] not in content
        assert NOISE[1000:1048] not in content
        assert b"app:x:1000" not in content
        assert b"app.py" not in content


async def test_many_admissions_at_once_are_one(images: Images, tmp_path: Path) -> None:
    digest = write(tmp_path)
    artifacts = await asyncio.gather(*(images.admit(digest) for _ in range(5)))
    assert len(set(map(str, artifacts))) == 1
    assert len(images.source.fetched) == len(set(images.source.fetched)) == 2


async def test_another_account_or_another_line_stores_little(images: Images, tmp_path: Path) -> None:
    digest = write(tmp_path)
    await images.admit(digest)
    first_bytes = _chunk_bytes(images)
    assert first_bytes < 1.05 * (len(NOISE) + len(SECRET))
    await images.admit(digest, "111111111111")
    assert _chunk_bytes(images) == first_bytes
    await images.admit(write(tmp_path, "two"))
    assert _chunk_bytes(images) - first_bytes < 0.03 * first_bytes


def _chunk_bytes(images: Images) -> int:
    return sum(len(content) for key, content in memory(images).objects.items() if "/chunks/" in key)


async def test_damaged_layers_are_refused_and_leave_nothing(images: Images, tmp_path: Path) -> None:
    digest = write(tmp_path)
    images.source.damage = lambda content: content[:-5000]
    with pytest.raises(ImageRefused) as refused:
        await images.admit(digest)
    assert refused.value.kind == "invalid"
    assert await images.store.artifact(ACCOUNT, digest) is None
    assert await images.store.stored() == []
    assert not os.listdir(tmp_path / "staging")
    images.source.damage = None
    await images.admit(digest)
    assert await images.store.stored() == [(ACCOUNT, digest)]


async def test_a_failing_store_and_then_a_healthy_one(images: Images, tmp_path: Path) -> None:
    digest = write(tmp_path)
    puts: list[str] = []

    def fail(operation: str, key: str) -> None:
        if operation == "put_new" and "/chunks/" in key:
            puts.append(key)
            if len(puts) > 5:
                raise ObjectStoreUnavailable("503")

    memory(images).before = fail
    with pytest.raises(ObjectStoreUnavailable):
        await images.admit(digest)
    assert await images.store.stored() == []
    memory(images).before = None
    await images.admit(digest)
    assert (await images.tree(digest, tmp_path / "image")).tree()["/usr/lib/noise"].content == NOISE


async def test_a_full_store_is_said(tmp_path: Path) -> None:
    images = Images(tmp_path, MemoryObjectStore(capacity_bytes=2_000_000))
    await images.admission.start()
    with pytest.raises(ObjectStoreUnavailable):
        await images.admit(write(tmp_path))
    assert await images.store.stored() == []


async def test_a_forgotten_image_is_admitted_again(images: Images, tmp_path: Path) -> None:
    digest = write(tmp_path)
    await images.admit(digest)
    await images.store.forget(ACCOUNT, digest)
    assert await images.store.artifact(ACCOUNT, digest) is None
    await images.admit(digest)
    assert await images.store.stored() == [(ACCOUNT, digest)]


@pytest.mark.parametrize("after_s", [0.0, 0.15, 0.4])
async def test_kill_9_in_the_middle_leaves_nothing_half_there(tmp_path: Path, after_s: float) -> None:
    """Killed once chunks appear, some later; the next admission in the same folders succeeds."""
    digest = write(tmp_path)
    objects = tmp_path / "objects"
    script = f"""
        import asyncio
        from pathlib import Path
        from stoker.store.local_object_store import LocalObjectStore
        from tests.integration.packaging.test_image_store import Images
        async def main():
            store = LocalObjectStore(Path({str(objects)!r}))
            await store.start()
            images = Images(Path({str(tmp_path)!r}), store, bytes.fromhex({KEY.hex()!r}))
            await images.admission.start()
            while True:
                await images.admit({digest!r})
                await images.store.forget("000000000000", {digest!r})
        asyncio.run(main())
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], env={"PYTHONPATH": "src:."})
    try:
        deadline_s = time.monotonic() + 60
        while not list(objects.rglob("chunks/**/*")) and time.monotonic() < deadline_s:
            await asyncio.sleep(0.02)
        await asyncio.sleep(after_s)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    store = LocalObjectStore(objects)
    await store.start()
    images = Images(tmp_path, store)
    await images.admission.start()
    assert not os.listdir(tmp_path / "staging")
    for account, there in await images.store.stored():
        assert (account, there) == (ACCOUNT, digest)
        await images.tree(digest, tmp_path / "image")
    await images.admit(digest)
    assert (await images.tree(digest, tmp_path / "image")).tree()["/usr/lib/noise"].content == NOISE
