"""Rotation, migration and deletion, step by step; the races that a random walk rarely meets."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from stoker.packaging.chunks.admission import ADMISSION_MAX_S, AdmissionLost
from stoker.packaging.chunks.collector import (
    ADMISSIONS_AWAITED_S,
    CLOCKS_APART_MAX_S,
    LEASE_S,
    Collector,
    CollectorLimits,
    LeaseLost,
)
from stoker.packaging.chunks.layout import alarm_key, profile_key
from stoker.packaging.chunks.reading import Alarms, open_reader
from stoker.packaging.chunks.roots import RootState, expired, rotated
from stoker.packaging.chunks.sealing import open_chunk
from stoker.packaging.chunks.survey import survey
from stoker.services.images import ImageMissing
from stoker.services.keys import KeyRefused, KeyUnavailable
from stoker.services.object_store import ObjectStoreUnavailable
from stoker.store.memory_keys import MemoryDataKeys
from stoker.store.memory_object_store import Fault, Operation
from tests.unit.packaging.chunks.chunked import ACCOUNT, OTHER, Chunked, digest_of, put_all

DAY_S = 24 * 3600
LIMITS = CollectorLimits(rotate_after_s=30 * DAY_S, grace_s=DAY_S)
PLAINS, OTHERS = [b"one" * 100, b"", b"two" * 100], [b"one" * 100, b"three" * 100]


@pytest.fixture
def chunked() -> Chunked:
    return Chunked(keys=MemoryDataKeys())


@pytest.fixture
def problems() -> list[str]:
    return []


async def no_sleep(_: float) -> None:
    await asyncio.sleep(0)


@pytest.fixture
def collector(chunked: Chunked, problems: list[str]) -> Collector:
    return new_collector(chunked, problems)


def new_collector(
    chunked: Chunked, problems: list[str], sleep: Callable[[float], Awaitable[None]] = no_sleep
) -> Collector:
    return Collector(
        chunked.images,
        chunked.clock,
        LIMITS,
        on_problem=lambda text, problem: problems.append(f"{text}: {problem}"),
        sleep=sleep,
    )


async def states(chunked: Chunked) -> list[RootState]:
    return [root.state for root in (await chunked.images.roots.read()).roots]


def of_root(chunked: Chunked, root: str) -> list[str]:
    return [key for key in chunked.memory.objects if key.startswith(f"roots/{root}/")]


async def test_the_way_of_a_root(chunked: Chunked, collector: Collector) -> None:
    kept, gone = await chunked.admit(ACCOUNT, PLAINS), await chunked.admit(OTHER, OTHERS)
    old = (await chunked.images.find(ACCOUNT, kept)).place.root
    await chunked.images.forget(OTHER, gone)
    await collector.collect()
    assert await states(chunked) == ["active"]

    chunked.clock.advance(30 * DAY_S)
    await collector.collect()
    assert await states(chunked) == ["expired", "active"]
    assert await chunked.read(ACCOUNT, kept) == PLAINS
    assert (await chunked.images.find(ACCOUNT, kept)).place.root != old
    assert len([key for key in of_root(chunked, old) if "/chunks/" in key]) == 3

    chunked.clock.advance(DAY_S - 1)
    await collector.collect()
    assert await states(chunked) == ["expired", "active"]
    chunked.clock.advance(1)
    await collector.collect()
    assert await states(chunked) == ["deleted", "active"]
    assert of_root(chunked, old) == []
    assert await chunked.read(ACCOUNT, kept) == PLAINS
    chunked.memory.objects[f"roots/{old}/chunks/aa/late"] = b"what a request of long ago left"
    chunked.clock.advance(20 * DAY_S)
    await collector.collect()
    assert of_root(chunked, old) == []

    chunked.clock.advance(11 * DAY_S)
    await collector.collect()
    assert await states(chunked) == ["expired", "active"]
    assert collector.statistics.rotations == 2
    assert collector.statistics.roots_deleted == 1
    assert collector.statistics.phase == "idle"


async def test_shared_chunks_move_once(chunked: Chunked, collector: Collector) -> None:
    for account in (ACCOUNT, OTHER):
        await chunked.admit(account, PLAINS)
        await chunked.admit(account, OTHERS)
    await collector.collect(rotate=True)
    assert collector.statistics.images_moved == 4
    assert collector.statistics.bytes_moved == 300 + 300 + 500
    [_, active] = await survey(chunked.images)
    assert (active.images, active.chunks, active.stored_bytes, active.garbage_bytes) == (4, 3, 1100, 0)
    assert active.dedup_ratio > 8 / 3


async def test_a_survey_counts_garbage(chunked: Chunked) -> None:
    await chunked.admit(ACCOUNT, PLAINS)
    await chunked.images.forget(ACCOUNT, await chunked.admit(ACCOUNT, OTHERS))
    [root] = await survey(chunked.images)
    assert (root.images, root.chunks, root.stored_bytes, root.garbage_bytes) == (1, 3, 1100, 500)


async def test_a_profile_moves_with_its_image(chunked: Chunked, collector: Collector) -> None:
    digest = await chunked.admit(ACCOUNT, PLAINS)
    old = (await chunked.images.find(ACCOUNT, digest)).place.root
    await chunked.store.put(profile_key(old, ACCOUNT, digest), b"0 2")
    await collector.collect(rotate=True)
    new = (await chunked.images.find(ACCOUNT, digest)).place.root
    assert await chunked.store.get(profile_key(new, ACCOUNT, digest)) == b"0 2"


@pytest.mark.parametrize("failure", [KeyRefused("DisabledException", "no"), KeyUnavailable("not now")])
async def test_a_root_stays_while_an_image_cannot_leave_it(
    chunked: Chunked, collector: Collector, problems: list[str], failure: Exception
) -> None:
    digest = await chunked.admit(ACCOUNT, PLAINS)
    keys = chunked.keys
    assert isinstance(keys, MemoryDataKeys)
    await collector.collect()
    unwrap = keys.unwrap

    async def refusing(wrapped: bytes, context: object) -> bytes:
        if "image" in context:  # type: ignore[operator]
            raise failure
        return await unwrap(wrapped, context)  # type: ignore[arg-type]

    keys.unwrap = refusing  # type: ignore[method-assign]
    await collector.collect(rotate=True)
    chunked.clock.advance(10 * DAY_S)
    await collector.collect()
    assert await states(chunked) == ["retired", "active"]
    assert collector.statistics.images_stuck == 1
    assert digest in problems[0]
    keys.unwrap = unwrap  # type: ignore[method-assign]
    await collector.collect()
    assert await states(chunked) == ["expired", "active"]
    assert await chunked.read(ACCOUNT, digest) == PLAINS


async def test_a_damaged_chunk_keeps_its_root(
    chunked: Chunked, collector: Collector, problems: list[str]
) -> None:
    digest = await chunked.admit(ACCOUNT, PLAINS)
    chunk = next(key for key in chunked.memory.objects if "/chunks/" in key)
    content = chunked.memory.objects[chunk]
    chunked.memory.objects[chunk] = content[:-1] + b"!"
    await collector.collect(rotate=True)
    assert await states(chunked) == ["retired", "active"]
    assert "is damaged" in problems[0]
    chunked.memory.objects[chunk] = content
    await collector.collect()
    assert await chunked.read(ACCOUNT, digest) == PLAINS


async def test_a_rotation_waits_for_admissions_but_not_for_ever(
    chunked: Chunked, collector: Collector
) -> None:
    chunked.clock.advance(30 * DAY_S)
    await chunked.images.begin(ACCOUNT, digest_of(PLAINS))
    chunked.clock.advance(30 * DAY_S)
    waiting = await chunked.images.begin(ACCOUNT, digest_of(OTHERS))
    await collector.collect()
    assert await states(chunked) == ["active"]
    chunked.clock.advance(ADMISSIONS_AWAITED_S)
    still = await chunked.images.begin(OTHER, digest_of(OTHERS))
    await collector.collect()
    assert await states(chunked) == ["retired", "active"]
    for lost in (waiting, still):
        with pytest.raises(AdmissionLost):
            await put_all(lost, OTHERS)


async def test_a_root_does_not_expire_under_an_admission(chunked: Chunked, collector: Collector) -> None:
    admission = await chunked.images.begin(ACCOUNT, digest_of(PLAINS))
    await collector.collect(rotate=True)
    chunked.clock.advance(10 * DAY_S - 1)
    await chunked.store.put(admission._key, chunked.memory.objects[admission._key])
    await collector.collect()
    assert await states(chunked) == ["retired", "active"]
    await admission.end()
    await collector.collect()
    assert await states(chunked) == ["expired", "active"]


async def test_what_is_published_as_the_root_retires_is_not_lost(
    chunked: Chunked, collector: Collector
) -> None:
    """The root is looked up, then retires, then the manifest arrives: the registration keeps the root."""
    digest = digest_of(PLAINS)
    arrived = asyncio.Event()

    def rotate_before_the_manifest(operation: Operation, key: str) -> None:
        if operation == "put_new" and "/manifests/" in key:
            chunked.memory.before = None
            collecting.append(asyncio.ensure_future(collector.collect(rotate=True)))
            arrived.set()
            raise ObjectStoreUnavailable("not yet")

    collecting: list[asyncio.Future[bool]] = []
    admission = await chunked.images.begin(ACCOUNT, digest)
    chunked.memory.before = rotate_before_the_manifest
    real = chunked.memory.put_new

    async def patient(key: str, content: bytes) -> bool:
        try:
            return await real(key, content)
        except ObjectStoreUnavailable:
            await collecting[0]
            return await real(key, content)

    chunked.memory.put_new = patient  # type: ignore[method-assign]
    await put_all(admission, PLAINS)
    assert arrived.is_set()
    assert await states(chunked) == ["retired", "active"]
    await admission.end()
    chunked.clock.advance(DAY_S)
    await collector.collect()
    assert await states(chunked) == ["expired", "active"]
    assert await chunked.read(ACCOUNT, digest) == PLAINS


async def test_an_admission_that_died_is_revoked(chunked: Chunked, collector: Collector) -> None:
    """Its process was not dead but asleep: it wakes up within its last request."""
    digest = digest_of(PLAINS)
    admission = await chunked.images.begin(ACCOUNT, digest)
    slept = asyncio.Event()
    real = chunked.memory.put_new

    async def sleepy(key: str, content: bytes) -> bool:
        if "/manifests/" in key and not slept.is_set():
            slept.set()
            await collector.collect(rotate=True)
            chunked.clock.advance(ADMISSION_MAX_S + CLOCKS_APART_MAX_S)
            await collector.collect()
            assert await states(chunked) == ["expired", "active"]
        return await real(key, content)

    chunked.memory.put_new = sleepy  # type: ignore[method-assign]
    with pytest.raises(AdmissionLost, match="too long"):
        await put_all(admission, PLAINS)
    assert await chunked.images.stored() == []
    with pytest.raises(ImageMissing):
        await chunked.read(ACCOUNT, digest)


async def test_registering_as_the_root_retires_begins_in_the_new_one(
    chunked: Chunked, collector: Collector
) -> None:
    await chunked.images.roots.read()
    real = chunked.memory.put

    async def rotating(key: str, content: bytes) -> None:
        if "/admissions/" in key:
            chunked.memory.put = real  # type: ignore[method-assign]
            await collector.collect(rotate=True)
        await real(key, content)

    chunked.memory.put = rotating  # type: ignore[method-assign]
    admission = await chunked.images.begin(ACCOUNT, digest_of(PLAINS))
    table = await chunked.images.roots.read()
    assert admission.place.root == table.active.id
    assert [key for key in chunked.memory.objects if "/admissions/" in key] == [admission._key]


async def test_an_image_forgotten_while_it_moves_stays_forgotten(
    chunked: Chunked, collector: Collector
) -> None:
    digest = await chunked.admit(ACCOUNT, PLAINS)
    real = chunked.memory.put_new

    async def forgetting(key: str, content: bytes) -> bool:
        if "/chunks/" in key:
            chunked.memory.put_new = real  # type: ignore[method-assign]
            await chunked.images.forget(ACCOUNT, digest)
        return await real(key, content)

    chunked.memory.put_new = forgetting  # type: ignore[method-assign]
    await collector.collect(rotate=True)
    assert await chunked.images.stored() == []


async def test_only_one_collects(chunked: Chunked, problems: list[str]) -> None:
    one, other = (new_collector(chunked, problems) for _ in range(2))
    assert sorted(await asyncio.gather(one.collect(), other.collect())) == [False, True]
    await other.collect()
    await chunked.admit(ACCOUNT, PLAINS)
    chunked.memory.inject(Fault(kind="fail", operation="list", key="roots/"))
    with pytest.raises(ObjectStoreUnavailable):
        await one.collect(rotate=True)
    assert not await other.collect()
    chunked.clock.advance(LEASE_S)
    assert await other.collect()


async def test_a_collector_that_lost_its_lease_stops(chunked: Chunked, problems: list[str]) -> None:
    other = new_collector(chunked, problems)
    stolen: list[bool] = []

    async def slow(_: float) -> None:
        if not stolen:
            chunked.clock.advance(LEASE_S)
            stolen.append(True)
            stolen.append(await other._lease())

    one = new_collector(chunked, problems, sleep=slow)
    for number in range(3):
        await chunked.admit(ACCOUNT, [bytes([65 + number]) * 300_000, bytes([75 + number]) * 300_000])
    with pytest.raises(LeaseLost):
        await one.collect(rotate=True)
    assert stolen == [True, True]


async def read_all(chunked: Chunked, digest: str, alarms: Alarms) -> Callable[[], Awaitable[list[bytes]]]:
    reader = await open_reader(chunked.images, ACCOUNT, digest, chunked.clock, alarms)

    async def read() -> list[bytes]:
        chunks = [await reader.chunk(index) for index in range(len(PLAINS))]
        return [b"" if one is None else bytes(open_chunk(one.content, one.name, one.key)) for one in chunks]

    return read


async def test_a_mounted_image_is_read_through_every_rotation(chunked: Chunked, collector: Collector) -> None:
    alarms = Alarms()
    read = await read_all(chunked, await chunked.admit(ACCOUNT, PLAINS), alarms)
    for _ in range(4):
        await collector.collect(rotate=True)
        assert await read() == PLAINS
        chunked.clock.advance(2 * DAY_S)
        await collector.collect()
        assert await read() == PLAINS
    assert collector.statistics.roots_deleted == 4
    assert alarms.expired_reads == 0


async def test_a_read_of_an_expired_root_stops_its_deletion(
    chunked: Chunked, collector: Collector, problems: list[str]
) -> None:
    """A collector gone wrong, or the table changed by hand."""
    alarms = Alarms()
    digest = await chunked.admit(ACCOUNT, PLAINS)
    read = await read_all(chunked, digest, alarms)
    old = (await chunked.images.roots.read()).active.id
    await chunked.images.roots.change(lambda table: rotated(table, old, "ab" * 16, chunked.clock.now_s()))
    await chunked.images.roots.change(lambda table: expired(table, old, chunked.clock.now_s()))
    chunked.clock.advance(61)
    assert await read() == PLAINS
    assert alarms.expired_reads == 1
    assert alarm_key(old) in chunked.memory.objects
    chunked.clock.advance(10 * DAY_S)
    await collector.collect()
    assert await states(chunked) == ["expired", "active"]
    assert collector.statistics.alarmed_roots == 1
    assert "is read still" in problems[0]
    assert await read() == PLAINS
    await collector.clear_alarm(old)
    await collector.collect()
    assert await states(chunked) == ["deleted", "active"]
    with pytest.raises(ObjectStoreUnavailable, match="is gone"):
        await read()


async def test_a_mount_that_outlives_its_image_is_no_alarm(chunked: Chunked, collector: Collector) -> None:
    alarms = Alarms()
    digest = await chunked.admit(ACCOUNT, PLAINS)
    read = await read_all(chunked, digest, alarms)
    await collector.collect(rotate=True)
    await chunked.images.forget(ACCOUNT, digest)
    chunked.clock.advance(61)
    assert await read() == PLAINS
    assert alarms.expired_reads == 0


async def test_reads_go_on_while_roots_cannot_be_looked_up(
    chunked: Chunked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stoker.packaging.chunks.reading.LOOK_UP_WAIT_S", 0.01)
    read = await read_all(chunked, await chunked.admit(ACCOUNT, PLAINS), Alarms())
    for kind in ("stall", "fail"):
        chunked.clock.advance(61)
        chunked.memory.inject(Fault(kind=kind, operation="list", key="roots-table/"))  # type: ignore[arg-type]
        assert await read() == PLAINS


async def test_deletion_is_paced(chunked: Chunked, problems: list[str]) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        chunked.clock.advance(seconds)

    collector = new_collector(chunked, problems, sleep)
    plains = [bytes([1 + number // 250, 1 + number % 250]) * 40 for number in range(400)]
    await chunked.images.forget(ACCOUNT, await chunked.admit(ACCOUNT, plains))
    await collector.collect(rotate=True)
    chunked.clock.advance(DAY_S)
    await collector.collect()
    assert collector.statistics.objects_deleted == 400
    assert sum(slept) == pytest.approx(2.0, abs=0.1)
