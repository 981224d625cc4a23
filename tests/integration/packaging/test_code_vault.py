"""Sealed code in a real local object store and in one that fails: whole or absent, and never plain."""

import asyncio
import os
import tempfile
from pathlib import Path

import pytest

from stoker.core.errors import StokerError
from stoker.packaging.artifacts import ArtifactDamaged
from stoker.packaging.code_vault import CodeVault, Facts
from stoker.services.code import CodeMissing
from stoker.services.keys import KeyRefused, KeyUnavailable
from stoker.services.object_store import ObjectStore, ObjectStoreUnavailable
from stoker.store.data_keys import MasterDataKeys
from stoker.store.local_object_store import LocalObjectStore
from stoker.store.memory_keys import MemoryDataKeys
from stoker.store.memory_object_store import MemoryObjectStore
from stoker.store.rotation import WrappedDataKeys
from stoker.store.sealing import Sealer

DIGEST = "ab" * 32
OTHER = "cd" * 32
SMALL = b"known plaintext"
BIG = b"known plaintext " * (5 * 1024 * 1024 // 16) + b"end"


def file_of(content: bytes) -> int:
    descriptor = os.memfd_create("content")
    os.write(descriptor, content)
    return descriptor


async def opened(store: ObjectStore, folder: Path, keys: object = None) -> CodeVault:
    if isinstance(store, LocalObjectStore):
        await store.start()
    vault = CodeVault(store, keys or MasterDataKeys(Sealer([b"k" * 32])), folder / "staging")  # type: ignore[arg-type]
    await vault.start()
    return vault


async def put(vault: CodeVault, original: bytes, image: bytes, digest: str = DIGEST) -> None:
    files = file_of(original), file_of(image)
    try:
        await vault.put(digest, Facts(len(original), 7, len(image)), files)
    finally:
        for file in files:
            os.close(file)


async def read(vault: CodeVault, what: str, digest: str = DIGEST) -> bytes:
    code = await vault.find(digest)
    assert code is not None
    with tempfile.TemporaryFile() as file:
        if what == "original":
            await vault.original_into(code, file.fileno())
        elif what == "image":
            await vault.image_into(code, file.fileno())
        else:
            await vault.variant_into(code, what, file.fileno())
        file.seek(0)
        return file.read()


async def read_all(store: ObjectStore, folder: Path) -> None:
    await read(await opened(store, folder), "original")
    await read(await opened(store, folder), "image")


@pytest.mark.parametrize("original", [SMALL, BIG], ids=["small", "big"])
@pytest.mark.parametrize("image", [b"", b"image", BIG[::-1]], ids=["none", "small", "big"])
async def test_what_is_stored_comes_back_after_a_restart(
    tmp_path: Path, original: bytes, image: bytes
) -> None:
    store = LocalObjectStore(tmp_path / "store")
    await put(await opened(store, tmp_path), original, image)
    vault = await opened(store, tmp_path)
    assert vault.digests() == [DIGEST]
    code = await vault.find(DIGEST)
    assert code is not None
    assert code.facts == Facts(len(original), 7, len(image))
    assert await read(vault, "original") == original
    assert await read(vault, "image") == image
    assert [file for file in tmp_path.rglob("*") if file.is_file() and b"known" in file.read_bytes()] == []
    assert os.listdir(tmp_path / "staging") == []


async def test_the_first_with_a_digest_stays_and_many_at_once_are_one(tmp_path: Path) -> None:
    store = MemoryObjectStore()
    vault = await opened(store, tmp_path)
    await asyncio.gather(*(put(vault, BIG, b"image") for _ in range(5)))
    assert len([stored async for stored in store.list_objects("code/")]) == 2


@pytest.mark.parametrize("content", [SMALL, BIG], ids=["small", "big"])
async def test_a_store_that_fails_at_any_step_leaves_code_or_nothing(tmp_path: Path, content: bytes) -> None:
    for failing in ("put", "put_file"):
        store = MemoryObjectStore()
        vault = await opened(store, tmp_path)

        async def refuse(*_: object) -> None:
            raise ObjectStoreUnavailable("no space left")

        real, _ = getattr(store, failing), setattr(store, failing, refuse)
        if failing == "put" or content is BIG:
            with pytest.raises(ObjectStoreUnavailable):
                await put(vault, content, b"")
            assert not vault.is_stored(DIGEST)
            assert [stored async for stored in store.list_objects("code/")] == []
        setattr(store, failing, real)
        await put(vault, content, b"")
        assert await read(vault, "original") == content


async def test_what_a_killed_process_left_without_a_key_is_removed(tmp_path: Path) -> None:
    store = LocalObjectStore(tmp_path / "store")
    await put(await opened(store, tmp_path), BIG, b"")
    await store.delete(f"code/{DIGEST}.key")
    (tmp_path / "staging" / "half").write_bytes(b"sealed")
    vault = await opened(store, tmp_path)
    assert vault.digests() == os.listdir(tmp_path / "staging") == []
    assert [stored async for stored in store.list_objects("code/")] == []
    await put(vault, BIG, b"")
    assert await read(vault, "original") == BIG


async def test_every_object_is_bound_to_its_place(tmp_path: Path) -> None:
    store = MemoryObjectStore()
    vault = await opened(store, tmp_path)
    await put(vault, SMALL, b"")
    await put(vault, b"other", b"", OTHER)
    await store.put(f"code/{OTHER}.key", await store.get(f"code/{DIGEST}.key"))
    again = await opened(store, tmp_path)
    with pytest.raises(ArtifactDamaged):
        await again.find(OTHER)


async def test_a_flipped_bit_anywhere_is_caught(tmp_path: Path) -> None:
    for content in (SMALL, BIG):
        store = MemoryObjectStore()
        await put(await opened(store, tmp_path), content, b"image")
        for stored in [stored async for stored in store.list_objects("code/")]:
            good = await store.get(stored.key)
            for at in {3, len(good) // 3, len(good) // 2, len(good) - 1}:
                await store.put(stored.key, good[:at] + bytes([good[at] ^ 4]) + good[at + 1 :])
                with pytest.raises((ArtifactDamaged, KeyRefused, StokerError)):
                    await read_all(store, tmp_path)
            await store.put(stored.key, good[:-1])
            with pytest.raises((ArtifactDamaged, KeyRefused)):
                await read_all(store, tmp_path)
            await store.put(stored.key, good)
        assert await read(await opened(store, tmp_path), "original") == content


async def test_forgotten_code_is_gone_at_once_and_altogether(tmp_path: Path) -> None:
    store = MemoryObjectStore()
    vault = await opened(store, tmp_path)
    await put(vault, BIG, b"image")
    code = await vault.find(DIGEST)
    assert code is not None
    await vault.put_variant(code, "python3.11", file := file_of(b"variant"))
    assert vault.has_variant(DIGEST, "python3.11")
    assert await read(vault, "python3.11") == b"variant"
    forgetting = asyncio.create_task(vault.forget(DIGEST))
    await asyncio.sleep(0)
    assert await vault.find(DIGEST) is None
    await forgetting
    assert [stored async for stored in store.list_objects("code/")] == []
    await vault.put_variant(code, "python3.11", file)
    os.close(file)
    assert [stored async for stored in store.list_objects("code/")] == []
    with tempfile.TemporaryFile() as target, pytest.raises(CodeMissing):
        await vault.original_into(code, target.fileno())


async def test_forgetting_while_it_is_admitted_again_leaves_it_whole(tmp_path: Path) -> None:
    vault = await opened(MemoryObjectStore(), tmp_path)
    for _ in range(10):
        await put(vault, BIG, b"image")
        await asyncio.gather(vault.forget(DIGEST), put(vault, BIG, b"image"))
        assert await read(vault, "image") == b"image"


async def test_keys_rotate_without_a_package_being_written(tmp_path: Path) -> None:
    store = MemoryObjectStore()
    await put(await opened(store, tmp_path), BIG, b"")
    await put(await opened(store, tmp_path), SMALL, b"", OTHER)
    before = {stored.key: await store.get(stored.key) async for stored in store.list_objects("code/")}
    rotated = MasterDataKeys(Sealer([b"n" * 32, b"k" * 32]))
    vault = await opened(store, tmp_path, rotated)
    rotation = WrappedDataKeys([vault], rotated)
    assert await rotation.reseal() == (2, [])
    assert await rotation.reseal() == (0, [])
    assert sum((await rotation.counts()).values()) == 2
    changed = [key for key, content in before.items() if await store.get(key) != content]
    assert sorted(changed) == [f"code/{DIGEST}.key", f"code/{OTHER}.key"]
    alone = await opened(store, tmp_path, MasterDataKeys(Sealer([b"n" * 32])))
    assert await read(alone, "original") == BIG
    assert await read(alone, "original", OTHER) == SMALL


async def test_without_a_key_nothing_is_stored_and_nothing_opens(tmp_path: Path) -> None:
    keys, store = MemoryDataKeys(), MemoryObjectStore()
    vault = await opened(store, tmp_path, keys)
    keys.failure = KeyUnavailable("the key service is away")
    with pytest.raises(KeyUnavailable):
        await put(vault, SMALL, b"")
    assert not vault.is_stored(DIGEST)
    keys.failure = None
    await put(vault, SMALL, b"")
    keys.failure = KeyUnavailable("the key service is away")
    with pytest.raises(KeyUnavailable):
        await read(vault, "original")
    keys.failure = None
    assert await read(vault, "original") == SMALL
