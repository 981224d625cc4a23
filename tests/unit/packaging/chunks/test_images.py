"""Images in chunks: admitted, opened, shared, forgotten; what others can see of them."""

import asyncio
from functools import partial

import pytest

from stoker.packaging.chunks.admission import ADMISSION_MAX_S, AdmissionLost
from stoker.packaging.chunks.images import ChunkedImages
from stoker.packaging.chunks.layout import manifest_key, table_key
from stoker.packaging.chunks.manifest import ManifestDamaged
from stoker.packaging.chunks.root_table import KeptRoots, RootTableDamaged
from stoker.packaging.chunks.roots import RootTable, rotated
from stoker.packaging.chunks.sealing import ChunkDamaged
from stoker.services.images import ImageMissing
from stoker.services.keys import KeyRefused
from stoker.services.object_store import ObjectMissing, ObjectStoreUnavailable
from stoker.store.data_keys import MasterDataKeys
from stoker.store.memory_object_store import Fault
from stoker.store.rotation import WrappedDataKeys
from stoker.store.sealing import Sealer, key_id
from tests.unit.packaging.chunks.chunked import ACCOUNT, OTHER, Chunked, digest_of, put_all

PLAINS = [b"the first chunk", b"", b"the third one"]
ABSENT = "sha256:" + "0" * 64


@pytest.fixture
def chunked() -> Chunked:
    return Chunked()


def chunks(chunked: Chunked) -> set[str]:
    return {key for key in chunked.memory.objects if "/chunks/" in key}


async def test_what_was_admitted_is_read(chunked: Chunked) -> None:
    digest = await chunked.admit(ACCOUNT, PLAINS)
    assert await chunked.read(ACCOUNT, digest) == PLAINS
    assert await chunked.images.stored() == [(ACCOUNT, digest)]
    assert not [key for key in chunked.memory.objects if "/admissions/" in key]


async def test_admitting_twice_changes_nothing(chunked: Chunked) -> None:
    await chunked.admit(ACCOUNT, PLAINS)
    before = dict(chunked.memory.objects)
    await chunked.admit(ACCOUNT, PLAINS)
    assert chunked.memory.objects == before


async def test_many_admissions_of_one_image_at_once(chunked: Chunked) -> None:
    digests = await asyncio.gather(*(chunked.admit(ACCOUNT, PLAINS) for _ in range(6)))
    assert len(set(digests)) == 1
    assert await chunked.read(ACCOUNT, digests[0]) == PLAINS
    assert len([key for key in chunked.memory.objects if "/keys/" in key]) == 1


async def test_images_share_chunks_also_between_accounts(chunked: Chunked) -> None:
    await chunked.admit(ACCOUNT, PLAINS)
    more = [*PLAINS, b"one more"]
    async with await chunked.images.begin(OTHER, digest_of(more)) as admission:
        assert await put_all(admission, more) == 1
    assert len(chunks(chunked)) == 3


async def test_an_image_is_its_accounts_alone(chunked: Chunked) -> None:
    digest = await chunked.admit(ACCOUNT, PLAINS)
    with pytest.raises(ImageMissing):
        await chunked.read(OTHER, digest)
    root = (await chunked.images.roots.read()).active.id
    mine = chunked.memory.objects[manifest_key(root, ACCOUNT, digest)]
    chunked.memory.objects[manifest_key(root, OTHER, digest)] = mine
    with pytest.raises(KeyRefused):
        await chunked.read(OTHER, digest)


async def test_nothing_stored_shows_what_it_is(chunked: Chunked) -> None:
    plains = [b"-----BEGIN PRIVATE KEY-----" * 50, b"hello from a function" * 9]
    async with await chunked.images.begin(ACCOUNT, digest_of(plains)) as admission:
        await put_all(admission, plains, b'{"environment": {"PASSWORD": "hunter2"}}')
    salt = admission.salt
    for key, content in chunked.memory.objects.items():
        for known in (b"PRIVATE", b"hello", b"hunter2", b"PASSWORD", salt, salt.hex().encode()):
            assert known not in content, key


async def test_a_bit_flipped_in_any_object_is_caught(chunked: Chunked) -> None:
    digest = await chunked.admit(ACCOUNT, PLAINS)
    caught = 0
    for key, content in list(chunked.memory.objects.items()):
        for bit in {0, 7, len(content) * 4, len(content) * 8 - 1}:
            flipped = bytearray(content)
            flipped[bit // 8] ^= 1 << (bit % 8)
            chunked.memory.objects[key] = bytes(flipped)
            with pytest.raises((ChunkDamaged, ManifestDamaged, KeyRefused, RootTableDamaged, ObjectMissing)):
                await Chunked(chunked.store, chunked.keys, chunked.clock).read(ACCOUNT, digest)
            caught += 1
        chunked.memory.objects[key] = content
    assert caught >= 4 * 5
    assert await chunked.read(ACCOUNT, digest) == PLAINS


@pytest.mark.parametrize("kind", ["truncate", "lie"])
async def test_a_store_that_lies_is_caught(chunked: Chunked, kind: str) -> None:
    digest = await chunked.admit(ACCOUNT, PLAINS)
    for key in ("roots-table/", "roots/"):
        for skipped in range(4):
            calls = len(chunked.memory.calls)
            chunked.memory.inject(Fault(kind=kind, operation="get", key=key, times=1 + skipped))  # type: ignore[arg-type]
            with pytest.raises((ChunkDamaged, ManifestDamaged, KeyRefused, RootTableDamaged)):
                await chunked.read(ACCOUNT, digest)
            assert len(chunked.memory.calls) > calls
            chunked.memory.heal()
    assert await chunked.read(ACCOUNT, digest) == PLAINS


async def test_a_damaged_manifest_is_mended_by_admitting_again(chunked: Chunked) -> None:
    digest = await chunked.admit(ACCOUNT, PLAINS)
    root = (await chunked.images.roots.read()).active.id
    chunked.memory.objects[manifest_key(root, ACCOUNT, digest)] = b"rubbish"
    with pytest.raises(ManifestDamaged):
        await chunked.read(ACCOUNT, digest)
    await chunked.admit(ACCOUNT, PLAINS)
    assert await chunked.read(ACCOUNT, digest) == PLAINS


async def test_forgotten_is_gone(chunked: Chunked) -> None:
    digest = await chunked.admit(ACCOUNT, PLAINS)
    await chunked.admit(OTHER, PLAINS)
    await chunked.images.forget(ACCOUNT, digest)
    with pytest.raises(ImageMissing):
        await chunked.read(ACCOUNT, digest)
    assert await chunked.read(OTHER, digest) == PLAINS
    await chunked.images.forget(ACCOUNT, digest)
    await chunked.images.forget(ACCOUNT, ABSENT)
    assert await chunked.images.stored() == [(OTHER, digest)]


async def test_a_failed_admission_leaves_nothing_visible(chunked: Chunked) -> None:
    digest = digest_of(PLAINS)
    for operation in ("put_new", "put"):
        chunked.memory.inject(Fault(kind="fail", operation=operation, key="roots/", times=1))  # type: ignore[arg-type]
        with pytest.raises(ObjectStoreUnavailable):
            await chunked.admit(ACCOUNT, PLAINS)
        chunked.memory.heal()
        with pytest.raises(ImageMissing):
            await chunked.read(ACCOUNT, digest)
    assert await chunked.admit(ACCOUNT, PLAINS) == digest


async def test_a_publication_whose_answer_is_lost_succeeds_when_tried_again(chunked: Chunked) -> None:
    chunked.memory.inject(Fault(kind="late", operation="put_new", key="roots/", times=1))
    with pytest.raises(ObjectStoreUnavailable):
        await chunked.admit(ACCOUNT, PLAINS)
    digest = await chunked.admit(ACCOUNT, PLAINS)
    assert await chunked.read(ACCOUNT, digest) == PLAINS


async def test_a_master_key_rotates_without_touching_chunks_or_manifests() -> None:
    old, new = b"o" * 32, b"n" * 32
    chunked = Chunked(keys=MasterDataKeys(Sealer([old])))
    digest = await chunked.admit(ACCOUNT, PLAINS)
    before = dict(chunked.memory.objects)
    both = Chunked(chunked.store, MasterDataKeys(Sealer([new, old])), chunked.clock)
    rotation = WrappedDataKeys([both.images], both.images.keys)
    assert await rotation.counts() == {key_id(old): 2}
    assert await rotation.reseal() == (2, [])
    assert await rotation.reseal() == (0, [])
    assert await rotation.counts() == {key_id(new): 2}
    changed = {key for key, content in chunked.memory.objects.items() if before.get(key) != content}
    assert {key.split("/")[0] + key.split("/")[-2] for key in changed} == {
        "rootskeys",
        "roots-tableroots-table",
    }
    alone = Chunked(chunked.store, MasterDataKeys(Sealer([new])), chunked.clock)
    assert await alone.read(ACCOUNT, digest) == PLAINS
    with pytest.raises(KeyRefused):
        await Chunked(chunked.store, MasterDataKeys(Sealer([old])), chunked.clock).read(ACCOUNT, digest)


def rotated_to(new_id: str, table: RootTable) -> RootTable:
    return rotated(table, table.active.id, new_id, 0)


async def rotate(images: ChunkedImages, new_id: str) -> RootTable:
    active = (await images.roots.read()).active.id
    return await images.roots.change(lambda table: rotated(table, active, new_id, 0))


async def test_an_admission_whose_root_retires_is_lost(chunked: Chunked) -> None:
    async with await chunked.images.begin(ACCOUNT, digest_of(PLAINS)) as admission:
        await rotate(chunked.images, "ab" * 16)
        with pytest.raises(AdmissionLost, match="retired"):
            await put_all(admission, PLAINS)
        chunked.clock.advance(11)
        with pytest.raises(AdmissionLost, match="retired"):
            await admission.put_chunk(b"n" * 32, b"content")
    assert await chunked.images.stored() == []
    digest = await chunked.admit(ACCOUNT, PLAINS)
    assert (await chunked.images.find(ACCOUNT, digest)).place.root == "ab" * 16


async def test_an_admission_that_takes_too_long_is_lost(chunked: Chunked) -> None:
    async with await chunked.images.begin(ACCOUNT, digest_of(PLAINS)) as admission:
        chunked.clock.advance(ADMISSION_MAX_S)
        with pytest.raises(AdmissionLost, match="longer"):
            await put_all(admission, PLAINS)


async def test_a_retired_root_is_read(chunked: Chunked) -> None:
    digest = await chunked.admit(ACCOUNT, PLAINS)
    await rotate(chunked.images, "ab" * 16)
    assert await chunked.read(ACCOUNT, digest) == PLAINS
    assert await chunked.images.stored() == [(ACCOUNT, digest)]
    await chunked.images.forget(ACCOUNT, digest)
    with pytest.raises(ImageMissing):
        await chunked.read(ACCOUNT, digest)


async def test_roots_have_salts_of_their_own(chunked: Chunked) -> None:
    await chunked.admit(ACCOUNT, PLAINS)
    await rotate(chunked.images, "ab" * 16)
    await chunked.admit(ACCOUNT, PLAINS)
    names = [key.rpartition("/")[2] for key in chunks(chunked)]
    assert len(names) == len(set(names)) == 4


async def test_two_that_change_the_table_at_once_lose_nothing(chunked: Chunked) -> None:
    kept = [KeptRoots(chunked.store, chunked.keys, chunked.clock) for _ in range(4)]

    async def rotate_often(roots: KeptRoots, number: int) -> None:
        for step in range(5):
            new_id = f"{number * 100 + step:032x}"
            await roots.change(partial(rotated_to, new_id))

    await asyncio.gather(*(rotate_often(roots, number) for number, roots in enumerate(kept)))
    table = await kept[0].read()
    assert len(table.roots) == 21
    assert table.revision == 21
    assert len({root.id for root in table.roots}) == 21


async def test_a_change_based_on_a_dropped_revision_is_made_again(chunked: Chunked) -> None:
    slow = KeptRoots(chunked.store, chunked.keys, chunked.clock)
    stale = await slow.read()
    for number in range(30):
        await rotate(chunked.images, f"{number:032x}")
    assert table_key(stale.revision + 1) not in chunked.memory.objects
    assert not await slow._put(stale.__class__(stale.revision + 1, stale.wrapped_key, stale.roots))
    assert (await slow.read()).active.id == f"{29:032x}"
