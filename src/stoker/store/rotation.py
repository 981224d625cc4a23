"""Rotation of the master key: a new active key, everything sealed again under it, old keys removed at last.

Knows how to count and reseal whatever is Sealed, and nothing of what that is.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

import msgspec
import structlog

from stoker.core.clock import Clock
from stoker.core.errors import StokerError
from stoker.services.keys import (
    WRAPPED_BY_MASTER_KEY,
    DataKeys,
    KeyRefused,
    KeysReport,
    MasterKeyStatus,
    RetirementRefused,
    WrappedKeys,
)
from stoker.services.records import ANY_REVISION, Put, RecordKey, Records, Remove, Shelf
from stoker.store.master_keys import MasterKeys
from stoker.store.sealing import Sealer, sealed_under

WRITES_END_S: Final = 60.0
"""A write that sealed under the old key has ended by then: no database call takes longer."""
SESSIONS_END_S: Final = 36 * 3600.0
"""The longest that temporary credentials live (STS, GetSessionToken)."""
RETRY_S: Final = 60.0
"""Between attempts when something could not be sealed again."""
BROKEN_SHOWN: Final = 3
"""Names of things that cannot be opened, in a message."""

MASTER_KEY: Final = "master-key"
"""The kind of the records of when a key came and went; the keys themselves are elsewhere."""

_log = structlog.get_logger("stoker.store")


class Sealed(Protocol):
    """Things sealed under master keys, of one kind."""

    kind: str

    async def counts(self) -> dict[bytes, int]:
        """How many are under which key, by its id."""
        ...

    async def reseal(self) -> tuple[int, list[str]]:
        """Seal under the active key whatever is not; how many were, and what cannot be opened."""
        ...


class WrappedDataKeys:
    """The Sealed port over the data keys that somebody keeps."""

    kind = "data keys"

    def __init__(self, kept: Sequence[WrappedKeys], data_keys: DataKeys) -> None:
        self._kept = kept
        self._data_keys = data_keys

    async def counts(self) -> dict[bytes, int]:
        found: Counter[bytes] = Counter()
        for keeper in self._kept:
            async for key in keeper.wrapped_keys():
                if key.wrapped[:1] == WRAPPED_BY_MASTER_KEY:  # KMS rotates its own
                    found[sealed_under(key.wrapped)] += 1
        return found

    async def reseal(self) -> tuple[int, list[str]]:
        done, broken = 0, list[str]()
        for keeper in self._kept:
            async for key in keeper.wrapped_keys():
                if key.wrapped[:1] != WRAPPED_BY_MASTER_KEY:
                    continue
                try:
                    wrapped = await self._data_keys.rewrap(key.wrapped, key.context)
                except KeyRefused as problem:
                    broken.append(f"{key.name}: {problem.message}")
                    continue
                if wrapped is not None:
                    await keeper.replace_wrapped(key, wrapped)
                    done += 1
        return done, broken


class RotationStatistics(msgspec.Struct, frozen=True):
    """Counted since the start."""

    master_keys: int
    waiting: int
    """Things under a key that is not the active one, when they were last counted."""
    resealed: int
    failures: int
    """Attempts to seal everything again that did not come to their end."""


class _Life(msgspec.Struct, frozen=True, kw_only=True):
    added_at_s: float
    replaced_at_s: float | None = None


class KeyRotation:
    """``start`` goes on with what was under way; ``close`` leaves the rest to the next start."""

    def __init__(
        self, keys: MasterKeys, sealer: Sealer, sealed: Sequence[Sealed], records: Records, clock: Clock
    ) -> None:
        self._keys = keys
        self._sealer = sealer
        self._sealed = sealed
        self._lives = Shelf(records, MASTER_KEY, _Life)
        self._clock = clock
        self._changed: list[Callable[[Sequence[bytes]], Awaitable[None]]] = []
        self._lock = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._resealed = self._failures = self._waiting = 0
        self._trouble = ""

    def on_changed(self, callback: Callable[[Sequence[bytes]], Awaitable[None]]) -> None:
        """Await ``callback`` with the new keys, before anything is made with the new active one."""
        self._changed.append(callback)

    async def start(self) -> None:
        """Note which keys there are; with more than one, seal everything under the active one behind this."""
        await self._note()
        self._begin()

    async def close(self) -> None:
        """Stop; nothing is half done."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def rotate(self) -> KeysReport:
        """Make a new key the active one, and begin to seal everything under it.

        Raises:
            MasterKeyError: the keys are a setting, or too many.
            StokerError: something that is sealed cannot be reached; nothing was changed.
        """
        async with self._lock:
            await self._counts()  # what cannot be counted could not be sealed again either
            keys = await asyncio.to_thread(self._keys.add)
            await self._use(keys)
        self._begin()
        return await self.report()

    async def retire(self, *, end_sessions: bool = False) -> KeysReport:
        """Remove every key but the active one, once nothing is under them.

        Args:
            end_sessions: do not wait until temporary credentials made under them have ended by themselves.

        Raises:
            RetirementRefused: something is under an old key, or may be; nothing was removed.
            MasterKeyError: the keys are a setting: says which of them can be taken out.
        """
        async with self._lock:
            active, *old = self._sealer.key_ids
            if not old:
                raise RetirementRefused("there is one master key only")
            await self._check_age(old, end_sessions=end_sessions)
            await self._reseal()
            left = await self._counts()
            under = {each.hex(): dict(left[each]) for each in left if each != active}
            if under:
                raise RetirementRefused(f"still sealed under other keys than the active one: {under}")
            keys = await asyncio.to_thread(self._keys.remove, frozenset(old))
            await self._use(keys)
        return await self.report()

    async def report(self) -> KeysReport:
        """Everything counted now."""
        counts = await self._counts()
        lives = await self._known()
        here = self._sealer.key_ids
        return KeysReport(
            source=self._keys.source,
            keys=[
                MasterKeyStatus(
                    key_id=each.hex(),
                    active=each == here[0],
                    added_at_s=lives[each].added_at_s,
                    replaced_at_s=lives[each].replaced_at_s,
                    sealed=dict(counts.get(each, {})),
                )
                for each in here
            ],
            missing={each.hex(): sum(found.values()) for each, found in counts.items() if each not in here},
            resealing=self._task is not None and not self._task.done(),
            trouble=self._trouble,
        )

    def statistics(self) -> RotationStatistics:
        """Counts as of now."""
        return RotationStatistics(len(self._sealer.key_ids), self._waiting, self._resealed, self._failures)

    async def _use(self, keys: Sequence[bytes]) -> None:
        for callback in self._changed:
            await callback(keys)
        self._sealer.use(keys)
        await self._note()

    async def _note(self) -> None:
        """Bring the records of keys' lives up to date: a key may have come by the file or the setting too."""
        lives = await self._known()
        active, *old = self._sealer.key_ids
        now_s = self._clock.now_s()
        noted = {active: _Life(added_at_s=lives[active].added_at_s if active in lives else now_s)}
        for each in old:
            life = lives.get(each, _Life(added_at_s=now_s))
            replaced_at_s = now_s if life.replaced_at_s is None else life.replaced_at_s
            noted[each] = msgspec.structs.replace(life, replaced_at_s=replaced_at_s)
        puts = [
            Put(self._lives.record(self._place(each), life, "1"), ANY_REVISION)
            for each, life in noted.items()
            if lives.get(each) != life
        ]
        gone = [Remove(self._place(each)) for each in lives if each not in noted]
        if puts or gone:
            await self._lives.write(*puts, *gone)

    async def _known(self) -> dict[bytes, _Life]:
        return {bytes.fromhex(entry.key.name): entry.value for entry in await self._lives.every()}

    def _place(self, each: bytes) -> RecordKey:
        return self._lives.key("", "", "", each.hex())

    async def _check_age(self, old: Sequence[bytes], *, end_sessions: bool) -> None:
        lives = await self._known()
        since_s = max(lives[each].replaced_at_s or self._clock.now_s() for each in old)
        age_s = self._clock.now_s() - since_s
        if age_s < WRITES_END_S:
            left_s = int(WRITES_END_S - age_s) + 1
            raise RetirementRefused(f"writes of before the rotation may be under way: again in {left_s} s")
        if age_s < SESSIONS_END_S and not end_sessions:
            left_h = int((SESSIONS_END_S - age_s) / 3600) + 1
            raise RetirementRefused(
                f"temporary credentials of before the rotation live up to {left_h} h yet, and would end; "
                "--end-sessions does it now"
            )

    def _begin(self) -> None:
        if len(self._sealer.key_ids) > 1 and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._work())

    async def _work(self) -> None:
        """Until nothing is under another key, and once more when writes that began before have ended."""
        settled = False
        while True:
            try:
                async with self._lock:
                    done = await self._reseal()
            except StokerError as problem:
                self._failures += 1
                self._trouble = str(problem)
                _log.error("resealing_failed", problem=str(problem), again_in_s=RETRY_S)
                await asyncio.sleep(RETRY_S)
                continue
            if settled and not done:
                return
            settled = True
            await asyncio.sleep(WRITES_END_S)

    async def _reseal(self) -> int:
        """Raises StokerError if anything cannot be opened; everything else was sealed again all the same."""
        broken: list[str] = []
        done_before = self._resealed
        for sealed in self._sealed:
            done, cannot = await sealed.reseal()
            self._resealed += done
            broken += cannot
        done = self._resealed - done_before
        await self._counts()
        if done:
            key_id = self._sealer.key_ids[0].hex()
            _log.info("resealed", count=done, waiting=self._waiting, key_id=key_id)
        if broken:
            shown = "; ".join(broken[:BROKEN_SHOWN])
            raise StokerError(f"{len(broken)} sealed values cannot be opened: {shown}")
        self._trouble = ""
        return done

    async def _counts(self) -> dict[bytes, Counter[str]]:
        """By key id and kind."""
        found: dict[bytes, Counter[str]] = {}
        for sealed in self._sealed:
            for each, count in (await sealed.counts()).items():
                found.setdefault(each, Counter())[sealed.kind] += count
        active = self._sealer.key_ids[0]
        self._waiting = sum(sum(kinds.values()) for each, kinds in found.items() if each != active)
        return found
