"""Two Stokers share a store: admissions, forgets, rotations and collections interleave, operation by operation,
and either may die or lose an answer at any of them. What is wanted stays readable; all else goes.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from stoker.core.clock import ManualClock
from stoker.core.errors import StokerError
from stoker.packaging.chunks.admission import ADMISSION_MAX_S, AdmissionLost
from stoker.packaging.chunks.collector import CLOCKS_APART_MAX_S, LEASE_S, Collector, CollectorLimits
from stoker.packaging.chunks.layout import chunk_key, manifest_key
from stoker.packaging.chunks.manifest import read_public
from stoker.packaging.chunks.reading import Alarms, ImageReader, open_reader
from stoker.packaging.chunks.sealing import open_chunk
from stoker.store.data_keys import MasterDataKeys
from stoker.store.memory_object_store import MemoryObjectStore
from stoker.store.sealing import Sealer
from tests.simulation.packaging.gated import Crashed, GatedStore, InlineExecutor, Waiting, settle
from tests.unit.packaging.chunks.chunked import ACCOUNT, OTHER, Chunked, digest_of

T = TypeVar("T")

DAY_S = 24 * 3600
LIMITS = CollectorLimits(rotate_after_s=30 * DAY_S, grace_s=LEASE_S)
CONTENTS = ([b"a"], [b"a", b"b"], [b"b", b"", b"c"], [b"d", b"a"])
IMAGES = [(account, index) for account in (ACCOUNT, OTHER) for index in range(len(CONTENTS))]

stokers = st.integers(0, 1)
images = st.sampled_from(IMAGES)
picks = st.integers(0, 1000)

Image = tuple[str, int]


async def no_sleep(_: float) -> None:
    await asyncio.sleep(0)


class Stoker:
    """One process."""

    def __init__(
        self, memory: MemoryObjectStore, waiting: list[Waiting], keys: Any, clock: ManualClock
    ) -> None:
        self.store = GatedStore(memory, waiting)
        self.chunked = Chunked(self.store, keys, clock)
        self.collector = Collector(
            self.chunked.images, clock, LIMITS, on_problem=lambda *_: None, sleep=no_sleep
        )
        self.tasks: dict[asyncio.Task[None], str] = {}


class Roots(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.loop.set_default_executor(InlineExecutor(1))
        self.clock = ManualClock()
        self.memory = MemoryObjectStore(clock=self.clock.now_s)
        self.keys = MasterDataKeys(Sealer([b"k" * 32]))
        self.waiting: list[Waiting] = []
        self.wanted: set[Image] = set()
        self.forgetting: dict[Image, int] = {}
        self.admitting: dict[Image, int] = {}
        self.readers: list[tuple[Image, ImageReader]] = []
        self.alarms = Alarms()

    @initialize()
    def begin(self) -> None:
        self.observer = Chunked(self.memory, self.keys, self.clock)
        self.stokers = [self.new_stoker(), self.new_stoker()]

    def new_stoker(self) -> Stoker:
        return Stoker(self.memory, self.waiting, self.keys, self.clock)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def start(self, stoker: int, what: str, work: Coroutine[Any, Any, None]) -> None:
        task = self.loop.create_task(self.guarded(work))
        tasks = self.stokers[stoker].tasks
        tasks[task] = what
        task.add_done_callback(lambda done: tasks.pop(done, None))
        self.run(settle())

    async def guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except (StokerError, Crashed):
            # What fails may fail; what it promised is all that counts.
            return

    # What can happen.

    @rule(stoker=stokers, image=images)
    def admit(self, stoker: int, image: Image) -> None:
        if image not in self.forgetting:
            self.start(stoker, "admit", self.admitted(stoker, image))

    async def admitted(self, stoker: int, image: Image) -> None:
        account, index = image
        self.admitting[image] = self.admitting.get(image, 0) + 1
        try:
            for _ in range(3):
                try:
                    await self.stokers[stoker].chunked.admit(account, CONTENTS[index])
                except AdmissionLost:
                    continue
                self.wanted.add(image)
                break
        finally:
            self.admitting[image] -= 1
            if not self.admitting[image]:
                del self.admitting[image]

    @rule(stoker=stokers, pick=picks)
    def forget(self, stoker: int, pick: int) -> None:
        free = sorted(self.wanted - self.admitting.keys())
        if free:
            image = free[pick % len(free)]
            self.wanted.discard(image)
            self.start(stoker, "forget", self.forgotten(stoker, image))

    async def forgotten(self, stoker: int, image: Image) -> None:
        account, index = image
        self.forgetting[image] = self.forgetting.get(image, 0) + 1
        try:
            await self.stokers[stoker].chunked.images.forget(account, digest_of(CONTENTS[index]))
        finally:
            self.forgetting[image] -= 1
            if not self.forgetting[image]:
                del self.forgetting[image]

    @rule(stoker=stokers, rotate=st.booleans())
    def collect(self, stoker: int, rotate: bool) -> None:
        if "collect" not in self.stokers[stoker].tasks.values():
            self.start(stoker, "collect", self.collected(stoker, rotate))

    async def collected(self, stoker: int, rotate: bool) -> None:
        await self.stokers[stoker].collector.collect(rotate=rotate)

    @precondition(lambda self: self.waiting)
    @rule(order=st.lists(picks, min_size=1, max_size=30))
    def step(self, order: list[int]) -> None:
        for pick in order:
            if self.waiting:
                self.let(self.waiting[pick % len(self.waiting)], "act")

    @precondition(lambda self: self.waiting)
    @rule(count=st.integers(1, 300))
    def go_on(self, count: int) -> None:
        for _ in range(count):
            if self.waiting:
                self.let(self.waiting[0], "act")

    @precondition(lambda self: self.waiting)
    @rule(before=st.integers(0, 40), count=st.integers(1, 100), acts=st.booleans())
    def stumble(self, before: int, count: int, acts: bool) -> None:
        """One goes on, loses an answer and goes on; all others stand still."""
        who = self.waiting[0].store
        for number in range(before + count):
            mine = [one for one in self.waiting if one.store is who]
            if mine:
                self.let(mine[0], ("act and fail" if acts else "fail") if number == before else "act")

    @precondition(lambda self: self.waiting)
    @rule(pick=picks, acts=st.booleans())
    def lose_an_answer(self, pick: int, acts: bool) -> None:
        self.let(self.waiting[pick % len(self.waiting)], "act and fail" if acts else "fail")

    @rule(stoker=stokers, acts=st.booleans())
    def die(self, stoker: int, acts: bool) -> None:
        dead = self.stokers[stoker].store
        dead.is_dead = True
        for waiting in [one for one in self.waiting if one.store is dead]:
            self.let(waiting, "act and crash" if acts else "crash")
        self.run(settle())
        self.stokers[stoker] = self.new_stoker()

    @rule(seconds=st.sampled_from([20, 120, LEASE_S + 1, ADMISSION_MAX_S + CLOCKS_APART_MAX_S + 1]))
    def some_time_passes(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @rule(days=st.sampled_from([1, 2, 5, 31]), acts=st.booleans())
    def much_time_passes(self, days: int, acts: bool) -> None:
        """Longer than any request takes."""
        for waiting in list(self.waiting):
            self.let(waiting, "act and fail" if acts else "fail")
        self.clock.advance(days * DAY_S)

    @rule(pick=picks)
    def mount(self, pick: int) -> None:
        if self.wanted and len(self.readers) < 4:
            image = sorted(self.wanted)[pick % len(self.wanted)]
            digest = digest_of(CONTENTS[image[1]])
            reader = self.run(open_reader(self.observer.images, image[0], digest, self.clock, self.alarms))
            self.readers.append((image, reader))

    @precondition(lambda self: self.readers)
    @rule(pick=picks)
    def read_what_is_mounted(self, pick: int) -> None:
        image, reader = self.readers[pick % len(self.readers)]
        if image not in self.wanted:
            self.readers.remove((image, reader))
            return
        for index, plain in enumerate(CONTENTS[image[1]]):
            sealed = self.run(reader.chunk(index))
            opened = b"" if sealed is None else open_chunk(sealed.content, sealed.name, sealed.key)
            assert bytes(opened).rstrip(b"\0") == plain

    def let(self, waiting: Waiting, verdict: str) -> None:
        self.waiting.remove(waiting)
        waiting.go.set_result(verdict)
        self.run(settle())

    # What must be.

    @invariant()
    def what_is_wanted_is_readable(self) -> None:
        for account, index in self.wanted:
            plains = CONTENTS[index]
            assert self.run(self.observer.read(account, digest_of(plains))) == plains

    @invariant()
    def nothing_is_alarming(self) -> None:
        assert self.alarms.expired_reads == 0
        assert not [key for key in self.memory.objects if key.startswith("alarms/")]

    def teardown(self) -> None:
        try:
            self.go_on(20_000)
            assert not self.waiting
            self.sweep()
            self.check_that_garbage_is_gone()
        finally:
            self.run(self.loop.shutdown_asyncgens())
            self.loop.close()

    def sweep(self) -> None:
        """What any Stoker does in time, with nobody disturbing."""
        collector = Collector(
            self.observer.images, self.clock, LIMITS, on_problem=lambda *_: None, sleep=no_sleep
        )
        self.clock.advance(ADMISSION_MAX_S + CLOCKS_APART_MAX_S + LEASE_S)
        for account, digest in self.run(self.observer.images.stored()):
            if not any((account, digest) == (one, digest_of(CONTENTS[index])) for one, index in self.wanted):
                self.run(self.observer.images.forget(account, digest))
        assert self.run(collector.collect(rotate=True))
        for days in (2, 31):
            self.clock.advance(days * DAY_S - 1)
            assert self.run(collector.collect())
        self.clock.advance(2 * DAY_S)
        assert self.run(collector.collect())
        self.what_is_wanted_is_readable()

    def check_that_garbage_is_gone(self) -> None:
        table = self.run(self.observer.images.roots.read())
        needed = set[str]()
        for account, index in self.wanted:
            manifest = manifest_key(table.active.id, account, digest_of(CONTENTS[index]))
            public = read_public(self.memory.objects[manifest])
            needed |= {manifest, f"roots/{table.active.id}/keys/{public.key_id.hex()}"}
            needed |= {chunk_key(table.active.id, name) for name in public.each_name()}
        left = {key for key in self.memory.objects if not key.startswith("roots-table/")}
        assert left == needed


Roots.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


class TestRoots(Roots.TestCase):
    """pytest's door to the machine."""
