"""Streams whose records lie in shards: reading them, and keeping how far each shard was processed.

``aws`` reads, ``store`` keeps, ``events`` decides. A record is named by its sequence number, which grows.
"""

import enum
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

from stoker.core.errors import StokerError
from stoker.services.queue import Delivery
from stoker.services.sources import SourceFailed


class Start(enum.Enum):
    """Where in a shard reading begins; the values are what is stored."""

    OLDEST = "oldest"
    LATEST = "latest"
    SINCE = "since"
    """At the first record that arrived at a time or later. A source may give earlier ones too."""
    AFTER = "after"
    """Behind the record of a sequence number."""


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """A place in a shard."""

    start: Start
    since_s: float = 0.0
    sequence_number: str = ""


class Shard(msgspec.Struct, frozen=True, kw_only=True):
    """A shard as the source lists it. ``closed``: no record is added any more."""

    shard_id: str
    parents: tuple[str, ...] = ()
    closed: bool = False


class StreamRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One record. Records of one ``order_key`` are processed one behind the other."""

    sequence_number: str
    order_key: str
    arrived_at_s: float
    size_bytes: int
    """About what it takes of a payload."""
    event: dict[str, Any]
    """The element of Records, all but who invokes."""


class StreamRead(msgspec.Struct, frozen=True, kw_only=True):
    """One read. ``iterator``: for the next; None: the shard is closed and everything was read."""

    records: Sequence[StreamRecord]
    iterator: str | None
    behind: bool = False
    """More records lie behind these."""


class SourceThrottled(SourceFailed):
    """Too many reads; again later."""


class SourceGone(SourceFailed):
    """The stream, or the shard, is not there."""


class SourceDenied(SourceFailed):
    """Who reads may not."""


class IteratorExpired(SourceFailed):
    """The iterator is too old; a new one goes on."""


class PositionGone(SourceFailed):
    """The records at the position were trimmed, or never were in this stream."""


class StreamSource(Protocol):
    """Streams of one kind by their ARNs. Everything raises SourceFailed or one of its kinds."""

    async def shards(self, arn: str) -> list[Shard]:
        """All shards that hold records or may get some."""
        ...

    async def iterator(self, arn: str, shard_id: str, position: Position) -> str:
        """What reading at a position begins with."""
        ...

    async def read(self, arn: str, shard_id: str, iterator: str, *, limit: int) -> StreamRead:
        """Up to ``limit`` records, in their order; never waits for some."""
        ...

    async def retention_s(self, arn: str) -> float:
        """How long the stream keeps a record."""
        ...

    async def close(self) -> None:
        """Nothing more is read."""
        ...


class OpenWindow(msgspec.Struct, frozen=True):
    """A tumbling window that has not ended: when it began, and the JSON state that the function gave."""

    start_s: float
    state: msgspec.Raw
    early: bool = False
    """The state became too large; the next invocation says so and begins afresh."""


class LaneProgress(msgspec.Struct, frozen=True):
    """How far the records of one lane (a share of a shard's order keys) are done."""

    done: str = ""
    """The sequence number up to which, itself included; empty: nothing is."""
    window: OpenWindow | None = None


class ShardProgress(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of a shard. ``position``: where reading it began."""

    position: Position
    lanes: tuple[LaneProgress, ...] = ()
    ended: bool = False


class ShardLease(msgspec.Struct, frozen=True):
    """The right to process a shard. ``term`` grows with each: writes of earlier holders are refused."""

    mapping: str
    shard_id: str
    term: int
    progress: ShardProgress


class LeaseLost(StokerError):
    """Somebody else holds the shard, or its mapping is gone; nothing was written."""


class StreamCheckpoints(Protocol):
    """Every write that returned survives ``kill -9``."""

    async def shards(self, mapping: str) -> dict[str, ShardProgress]:
        """What is kept of a mapping's shards; empty before the first."""
        ...

    async def add(self, mapping: str, shards: Mapping[str, ShardProgress]) -> None:
        """Begin to keep shards, in one transaction; those that are kept already stay as they are."""
        ...

    async def drop(self, mapping: str, shards: Sequence[str]) -> None:
        """Keep nothing more of shards."""
        ...

    async def lease(
        self, mapping: str, shard_id: str, *, owner: str, now_s: float, until_s: float
    ) -> ShardLease | None:
        """Take a shard; None: it is taken, by the same owner too, or not kept."""
        ...

    async def renew(self, owner: str, until_s: float) -> None:
        """Prolong everything that an owner holds."""
        ...

    async def advance(
        self, lease: ShardLease, progress: ShardProgress, deliveries: Sequence[Delivery] = ()
    ) -> None:
        """Keep the progress and have the deliveries sent, or neither.

        Raises:
            LeaseLost: nothing was written.
        """
        ...

    async def release(self, lease: ShardLease) -> None:
        """Give a shard back; harmless when it is lost."""
        ...

    async def forget(self, mapping: str) -> None:
        """Keep nothing more of a mapping."""
        ...

    async def mappings(self) -> frozenset[str]:
        """Those of which something is kept."""
        ...
