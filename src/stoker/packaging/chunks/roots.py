"""Roots, in which chunks live and go together, and the moves that are legal. Pure: a table in, a table out.

As in "On-demand Container Loading in AWS Lambda": active, retired, expired, deleted, and never back. New
chunks and manifests go into the active root alone; what is active or retired can be read; an expired root's
chunks wait to be deleted. Each root has its own salt, so its chunks are its own.
"""

from enum import StrEnum

import msgspec

from stoker.core.errors import IllegalTransition

DELETED_KEPT_MAX = 64
"""Deleted roots that are remembered, so that what arrives late in them is found."""


class RootState(StrEnum):
    """How far a root is on its way."""

    ACTIVE = "active"
    RETIRED = "retired"
    EXPIRED = "expired"
    DELETED = "deleted"


_NEXT = {
    RootState.ACTIVE: RootState.RETIRED,
    RootState.RETIRED: RootState.EXPIRED,
    RootState.EXPIRED: RootState.DELETED,
}

READABLE = (RootState.ACTIVE, RootState.RETIRED)


class Root(msgspec.Struct, frozen=True):
    """One root: 32 hexadecimal digits, and since when it is in its state."""

    id: str
    state: RootState
    since_s: float


class Lease(msgspec.Struct, frozen=True):
    """Who may collect, and until when."""

    holder: str
    until_s: float


class RootTable(msgspec.Struct, frozen=True):
    """Every root, oldest first; exactly one is active."""

    revision: int
    wrapped_key: bytes
    """The data key from which the roots' salts are derived and under which this table is authenticated."""
    roots: tuple[Root, ...]
    lease: Lease | None = None

    @property
    def active(self) -> Root:
        """The root for what is new."""
        return next(root for root in self.roots if root.state is RootState.ACTIVE)

    def root(self, root_id: str) -> Root | None:
        """A root by its id."""
        return next((root for root in self.roots if root.id == root_id), None)

    def state(self, root_id: str) -> RootState:
        """A root's state; one that is not known any more is deleted."""
        root = self.root(root_id)
        return RootState.DELETED if root is None else root.state

    def readable(self) -> tuple[Root, ...]:
        """What can be read, the newest first."""
        return tuple(root for root in reversed(self.roots) if root.state in READABLE)

    def in_state(self, state: RootState) -> tuple[Root, ...]:
        """The roots in a state, oldest first."""
        return tuple(root for root in self.roots if root.state is state)


def rotated(table: RootTable, active_id: str, new_id: str, now_s: float) -> RootTable:
    """Retire ``active_id`` and make a new root active; nothing when it was retired already."""
    if table.active.id != active_id:
        return table
    moved = _moved(table, active_id, RootState.RETIRED, now_s)
    return msgspec.structs.replace(moved, roots=(*moved.roots, Root(new_id, RootState.ACTIVE, now_s)))


def expired(table: RootTable, root_id: str, now_s: float) -> RootTable:
    """A retired root expires; nothing when it did already."""
    return _moved(table, root_id, RootState.EXPIRED, now_s)


def deleted(table: RootTable, root_id: str, now_s: float) -> RootTable:
    """An expired root, whose chunks are gone, is deleted; nothing when it was already."""
    return _moved(table, root_id, RootState.DELETED, now_s)


def forgotten(table: RootTable, before_s: float) -> RootTable:
    """Without the roots that were deleted before then, and the oldest when there are too many."""
    gone = table.in_state(RootState.DELETED)
    old = {root.id for root in gone if root.since_s < before_s} | {
        root.id for root in gone[: max(0, len(gone) - DELETED_KEPT_MAX)]
    }
    kept = tuple(root for root in table.roots if root.id not in old)
    return table if not old else msgspec.structs.replace(table, roots=kept)


def leased(table: RootTable, holder: str, now_s: float, lease_s: float) -> RootTable:
    """Give or prolong the lease, unless somebody else holds it: then nothing."""
    lease = table.lease
    if lease is not None and lease.holder != holder and lease.until_s > now_s:
        return table
    return msgspec.structs.replace(table, lease=Lease(holder, now_s + lease_s))


def unleased(table: RootTable, holder: str) -> RootTable:
    """Give the lease back."""
    if table.lease is None or table.lease.holder != holder:
        return table
    return msgspec.structs.replace(table, lease=None)


def _moved(table: RootTable, root_id: str, to: RootState, now_s: float) -> RootTable:
    root = table.root(root_id)
    if root is None:
        if to is RootState.DELETED:
            return table
        raise IllegalTransition(f"root {root_id} is not known and cannot become {to}")
    if root.state is to:
        return table
    if _NEXT.get(root.state) is not to:
        raise IllegalTransition(f"root {root_id} is {root.state} and cannot become {to}")
    moved = Root(root_id, to, now_s)
    return msgspec.structs.replace(
        table, roots=tuple(moved if other.id == root_id else other for other in table.roots)
    )
