"""Collects garbage by rotating roots: what is wanted moves into a new root, the old one goes as a whole.

No chunk of a root that can be read is ever deleted. Every step can be cut off or done twice, also by two
collectors at once; the lease only spares them the double work.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable

import msgspec

from stoker.core.clock import Clock
from stoker.core.errors import StokerError
from stoker.packaging.chunks.admission import ADMISSION_MAX_S, AdmissionLost, Registration
from stoker.packaging.chunks.images import ChunkedImages
from stoker.packaging.chunks.layout import (
    admissions_prefix,
    alarm_key,
    chunks_prefix,
    manifest_key,
    root_prefix,
)
from stoker.packaging.chunks.manifest import REVOKED, ManifestDamaged
from stoker.packaging.chunks.migration import Migration
from stoker.packaging.chunks.pace import Pace
from stoker.packaging.chunks.roots import (
    Root,
    RootState,
    RootTable,
    deleted,
    expired,
    forgotten,
    leased,
    rotated,
    unleased,
)
from stoker.packaging.chunks.sealing import ChunkDamaged
from stoker.services.keys import KeyRefused, KeyUnavailable
from stoker.services.object_store import ObjectMissing, ObjectStoreUnavailable, StoredObject

LEASE_S = 900
CLOCKS_APART_MAX_S = 3600
"""How far the clocks of those who share a store may differ before an admission is revoked too early; even
then it only has to begin again."""

ADMISSIONS_AWAITED_S = 24 * 3600
"""A rotation waits this long for a moment without admissions, then it makes them begin again."""

ALARM_CHECKED_EVERY = 100
"""Deletions."""

MOVED_BYTES_PER_S = 50 * 1024 * 1024
DELETIONS_PER_S = 200

_STAYS = (
    AdmissionLost,
    ChunkDamaged,
    ManifestDamaged,
    ObjectMissing,
    ObjectStoreUnavailable,
    KeyRefused,
    KeyUnavailable,
)
"""Why an image may have to stay in a retired root, which does not expire then."""


class CollectorLimits(msgspec.Struct, frozen=True, kw_only=True):
    """When and how fast."""

    rotate_after_s: float
    """An active root is retired at this age."""
    grace_s: float
    """Between a root's expiry and the deletion of its chunks. Far longer than readers take to notice."""
    moved_bytes_per_s: float = MOVED_BYTES_PER_S
    deletions_per_s: float = DELETIONS_PER_S


class CollectorStatistics(msgspec.Struct):
    """What happened since the start."""

    phase: str = "idle"
    rotations: int = 0
    images_moved: int = 0
    images_stuck: int = 0
    """Failures to move an image in the latest collection; their roots do not expire."""
    bytes_moved: int = 0
    roots_deleted: int = 0
    objects_deleted: int = 0
    bytes_deleted: int = 0
    alarmed_roots: int = 0
    """Expired roots, at the latest collection, that are not deleted because something read them."""


class LeaseLost(StokerError):
    """Another collector took over."""


class Collector:
    """One collector of a store that others may share."""

    def __init__(
        self,
        images: ChunkedImages,
        clock: Clock,
        limits: CollectorLimits,
        *,
        on_problem: Callable[[str, Exception | None], None],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.statistics = CollectorStatistics()
        self._images = images
        self._clock = clock
        self._limits = limits
        self._on_problem = on_problem
        self._holder = secrets.token_hex(16)
        self._deletions = Pace(limits.deletions_per_s, clock, sleep)
        self._moves = Pace(limits.moved_bytes_per_s, clock, sleep)
        self._leased_until_s = 0.0

    async def collect(self, *, rotate: bool = False) -> bool:
        """Do all that is due, and a rotation anyway if asked to; whether nobody else is at it.

        Raises:
            LeaseLost, RootTableDamaged, RootTableBusy, ObjectStoreUnavailable, KeyRefused, KeyUnavailable:
            the rest is done next time.
        """
        if not await self._lease():
            return False
        try:
            await self._collect(rotate)
        finally:
            self.statistics.phase = "idle"
        # After a failure the lease just ends.
        await self._images.roots.change(lambda table: unleased(table, self._holder))
        return True

    async def clear_alarm(self, root: str) -> None:
        """Somebody has looked into it: the root may be deleted."""
        await self._images.store.delete(alarm_key(root))

    async def _collect(self, rotate: bool) -> None:
        self.statistics.phase = "rotating"
        await self._rotate(at_once=rotate)
        self.statistics.phase = "moving"
        self.statistics.images_stuck = 0
        migration = Migration(self._images, self._moves, self._count_moved)
        for root in (await self._table()).in_state(RootState.RETIRED):
            await self._empty(root, migration)
        self.statistics.phase = "deleting"
        self.statistics.alarmed_roots = 0
        for root in (await self._table()).in_state(RootState.EXPIRED):
            if self._clock.now_s() - root.since_s >= self._limits.grace_s:
                await self._delete(root)
        for root in (await self._table()).in_state(RootState.DELETED):
            await self._delete_all(root, root_prefix(root.id))
        old_s = self._clock.now_s() - max(self._limits.rotate_after_s, 2 * ADMISSION_MAX_S)
        await self._images.roots.change(lambda table: forgotten(table, old_s))

    async def _rotate(self, *, at_once: bool) -> None:
        active = (await self._table()).active
        age_s = self._clock.now_s() - active.since_s
        if not at_once and age_s < self._limits.rotate_after_s:
            return
        patient = age_s < self._limits.rotate_after_s + ADMISSIONS_AWAITED_S
        if patient and not at_once and await self._under_way(active.id):
            return
        new_id = secrets.token_hex(16)
        await self._images.roots.change(lambda table: rotated(table, active.id, new_id, self._clock.now_s()))
        self.statistics.rotations += 1

    async def _empty(self, root: Root, migration: Migration) -> None:
        """Move what a retired root holds; it expires once nothing in it is needed.

        Admissions are looked for first: one that has ended has its manifest there to be seen.
        """
        if not await self._revoke(root.id):
            return
        stuck = 0
        for account, digest in await self._images.stored_in(root.id):
            stuck += not await self._moved(root, account, digest, migration)
        self.statistics.images_stuck += stuck
        if not stuck:
            await self._images.roots.change(lambda table: expired(table, root.id, self._clock.now_s()))

    async def _moved(self, root: Root, account: str, digest: str, migration: Migration) -> bool:
        await self._keep_lease()
        try:
            if await self._is_newer(root, account, digest):
                return True
            await migration.move(root.id, account, digest)
        except _STAYS as problem:
            self._on_problem(f"image {digest} of account {account} cannot leave a retired root", problem)
            return False
        self.statistics.images_moved += 1
        return True

    async def _is_newer(self, root: Root, account: str, digest: str) -> bool:
        """Whether a younger root that can be read has the image."""
        table = await self._images.roots.read()
        younger = table.roots[table.roots.index(root) + 1 :] if root in table.roots else ()
        for other in younger:
            if other in table.readable() and await self._opens_in(other, account, digest):
                return True
        return False

    async def _opens_in(self, root: Root, account: str, digest: str) -> bool:
        try:
            return await self._images.open_in(root.id, account, digest) is not None
        except (ObjectMissing, ManifestDamaged, KeyRefused):
            return False

    async def _under_way(self, root: str) -> bool:
        """Whether admissions are registered in a root, other than some that died long ago."""
        found = [entry async for entry in self._images.store.list_objects(admissions_prefix(root))]
        return any(self._is_alive(entry) for entry in found)

    def _is_alive(self, entry: StoredObject) -> bool:
        return self._clock.now_s() < entry.modified_at_s + ADMISSION_MAX_S + CLOCKS_APART_MAX_S

    async def _revoke(self, root: str) -> bool:
        """Whether no admission of a retired root can publish any more: those that took far too long find
        something where they would put their manifest."""
        found = [entry async for entry in self._images.store.list_objects(admissions_prefix(root))]
        return all([await self._revoked(root, entry) for entry in found])

    async def _revoked(self, root: str, entry: StoredObject) -> bool:
        now_s = self._clock.now_s()
        if self._is_alive(entry):
            return False
        try:
            registration = msgspec.json.decode(await self._images.store.get(entry.key), type=Registration)
            key = manifest_key(root, registration.account, registration.digest)
        except ObjectMissing:
            return True
        except (msgspec.DecodeError, ValueError) as problem:
            self._on_problem(f"{entry.key} cannot be read; its root stays", problem)
            return False
        if now_s < registration.deadline_s + CLOCKS_APART_MAX_S:
            return False
        await self._images.store.put_new(key, REVOKED)
        await self._images.store.delete(entry.key)
        return True

    async def _delete(self, root: Root) -> None:
        """Chunks first, then all the rest, then the root itself."""
        if await self._delete_all(root, chunks_prefix(root.id)) and await self._delete_all(
            root, root_prefix(root.id)
        ):
            await self._images.roots.change(lambda table: deleted(table, root.id, self._clock.now_s()))
            self.statistics.roots_deleted += 1

    async def _delete_all(self, root: Root, prefix: str) -> bool:
        """Delete everything below a prefix of a root; False when an alarm stopped it."""
        count = 0
        async for entry in self._images.store.list_objects(prefix):
            if count % ALARM_CHECKED_EVERY == 0:
                await self._keep_lease()
                if await self._is_alarmed(root):
                    return False
            count += 1
            await self._images.store.delete(entry.key)
            self.statistics.objects_deleted += 1
            self.statistics.bytes_deleted += entry.size_bytes
            await self._deletions.spend(1)
        return True

    async def _is_alarmed(self, root: Root) -> bool:
        if await self._images.store.size_bytes(alarm_key(root.id)) is None:
            return False
        self.statistics.alarmed_roots += 1
        self._on_problem(f"root {root.id} expired and is read still; it is not deleted", None)
        return True

    async def _table(self) -> RootTable:
        await self._keep_lease()
        return await self._images.roots.read()

    async def _lease(self) -> bool:
        now_s = self._clock.now_s()
        table = await self._images.roots.change(lambda table: leased(table, self._holder, now_s, LEASE_S))
        self._leased_until_s = now_s + LEASE_S
        return table.lease is not None and table.lease.holder == self._holder

    async def _keep_lease(self) -> None:
        if self._leased_until_s - self._clock.now_s() < LEASE_S / 2 and not await self._lease():
            raise LeaseLost("another collector took over")

    def _count_moved(self, size_bytes: int) -> None:
        self.statistics.bytes_moved += size_bytes
