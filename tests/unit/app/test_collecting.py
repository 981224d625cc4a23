"""The collector as the service runs it."""

import asyncio

import msgspec
import pytest

from stoker.app import collecting as module
from stoker.app.collecting import Collecting
from stoker.core.clock import ManualClock
from stoker.core.configuration import Settings
from stoker.packaging.chunks.images import ChunkedImages
from stoker.packaging.chunks.roots import RootState
from stoker.store.memory_keys import MemoryDataKeys
from stoker.store.memory_object_store import Fault, MemoryObjectStore


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def images(clock: ManualClock) -> ChunkedImages:
    return ChunkedImages(MemoryObjectStore(clock=clock.now_s), MemoryDataKeys(), clock)


async def test_where_nothing_was_stored_nothing_is_written(images: ChunkedImages, clock: ManualClock) -> None:
    assert not await Collecting(images, Settings(), clock).collect()
    assert images.store.objects == {}  # type: ignore[attr-defined]


async def test_settings_say_when_roots_rotate_and_go(images: ChunkedImages, clock: ManualClock) -> None:
    collecting = Collecting(images, Settings(root_rotation_days=2, root_grace_hours=3), clock)
    await images.roots.read()
    seen: list[list[RootState]] = []
    for hours in (47, 1, 2, 1):
        clock.advance(hours * 3600)
        assert await collecting.collect()
        seen.append([root.state for root in (await images.roots.read()).roots])
    assert seen == [["active"], ["expired", "active"], ["expired", "active"], ["deleted", "active"]]
    assert collecting.statistics().rotations == 1
    assert collecting.statistics().roots_deleted == 1


async def test_the_timer_survives_a_store_that_fails(
    images: ChunkedImages, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_AFTER_S", 0)
    monkeypatch.setattr(module, "EVERY_S", 0.001)
    store = images.store
    assert isinstance(store, MemoryObjectStore)
    store.inject(Fault(kind="fail", operation="list", times=3))
    collecting = Collecting(images, Settings(), clock)
    collecting.start()
    while collecting.statistics().runs < 5:
        await asyncio.sleep(0.001)
    await collecting.close()
    assert collecting.statistics().failures == 3
    assert all(isinstance(value, int) for value in msgspec.structs.asdict(collecting.statistics()).values())
