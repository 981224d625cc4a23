"""Resources that are kept as documents: aliases, layers, policies, mappings and whatever else has a name.

``control`` writes them, ``frontend`` and ``events`` read them, ``store`` keeps them without knowing what they
hold. Functions and their versions have a port of their own (``services.functions``).
"""

from collections.abc import Sequence
from typing import Any, Final, Generic, Protocol, TypeVar

import msgspec

from stoker.core.errors import StokerError
from stoker.services.functions import FunctionKey

T = TypeVar("T")

ANY_REVISION: Final = "*"
"""As an expected revision: whatever is stored, or nothing."""

PAGE_SIZE_MAX: Final = 1000
"""Records that one call returns."""


class RecordKey(msgspec.Struct, frozen=True, order=True):
    """What names a record. ``owner`` is what it belongs to (a function, a layer); empty: the account."""

    kind: str
    account: str
    region: str
    owner: str
    name: str


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One resource. Records are listed by (owner, name), compared as bytes of UTF-8."""

    key: RecordKey
    revision_id: str
    document: bytes
    function: str | None = None
    """The function, of the same account and region, with which the record goes away."""
    lookups: tuple[str, ...] = ()
    """Values under which it is found too, such as the ARNs it refers to; ``referring`` lists by them."""


class Put(msgspec.Struct, frozen=True):
    """Store a record. ``expected``: None, it must be new; else the revision it replaces."""

    record: Record
    expected: str | None = None


class Remove(msgspec.Struct, frozen=True):
    """Delete a record of the revision ``expected``."""

    key: RecordKey
    expected: str = ANY_REVISION


class FunctionThere(msgspec.Struct, frozen=True):
    """The function exists; with ``version``, that version of it."""

    key: FunctionKey
    version: str | None = None


class RecordThere(msgspec.Struct, frozen=True):
    """The record exists."""

    key: RecordKey


class NobodyRefers(msgspec.Struct, frozen=True):
    """No record of the kind has the value among its lookups."""

    kind: str
    account: str
    region: str
    lookup: str


Change = Put | Remove
Requirement = FunctionThere | RecordThere | NobodyRefers


class RecordExists(StokerError):
    """Another record has that key; nothing was written."""


class RecordMissing(StokerError):
    """No record has that key; nothing was written."""


class RecordChanged(StokerError):
    """The stored revision is not the one the caller expected; nothing was written."""


class RequirementUnmet(StokerError):
    """A requirement of a write did not hold; nothing was written."""

    def __init__(self, requirement: Requirement) -> None:
        super().__init__(repr(requirement))
        self.requirement = requirement


class Records(Protocol):
    """Where records are kept. Every write that returned survives ``kill -9``."""

    async def get(self, key: RecordKey) -> Record | None: ...

    async def page(
        self,
        kind: str,
        account: str,
        region: str,
        *,
        owner: str | None = None,
        after: tuple[str, str] | None = None,
        descending: bool = False,
        limit: int = PAGE_SIZE_MAX,
    ) -> list[Record]:
        """Records of a kind in the order of (owner, name), those behind ``after``; of one owner or of all."""
        ...

    async def referring(
        self,
        kind: str,
        account: str,
        region: str,
        lookup: str,
        *,
        after: tuple[str, str] | None = None,
        limit: int = PAGE_SIZE_MAX,
    ) -> list[Record]:
        """Records of a kind that have ``lookup`` among their lookups, in the order of (owner, name)."""
        ...

    async def every(self, kind: str) -> list[Record]:
        """All records of a kind, of every account and region: for what is read whole at a start."""
        ...

    async def write(self, changes: Sequence[Change], requires: Sequence[Requirement] = ()) -> None:
        """Make all changes in one transaction, or none.

        Raises:
            RequirementUnmet, RecordExists, RecordMissing, RecordChanged: nothing was written. A Put whose
                ``function`` is not there is a RequirementUnmet as well.
        """
        ...


class Entry(msgspec.Struct, Generic[T], frozen=True):
    """A record with its document decoded."""

    key: RecordKey
    revision_id: str
    value: T


class Shelf(Generic[T]):
    """The records of one kind, as values of one type."""

    def __init__(self, records: Records, kind: str, document: type[T]) -> None:
        self._records = records
        self._kind = kind
        self._decoder: msgspec.json.Decoder[T] = msgspec.json.Decoder(document)

    def key(self, account: str, region: str, owner: str, name: str) -> RecordKey:
        """The key of a record of this kind."""
        return RecordKey(self._kind, account, region, owner, name)

    async def get(self, key: RecordKey) -> Entry[T] | None:
        """The entry, or None."""
        record = await self._records.get(key)
        return None if record is None else self.decode(record)

    async def page(self, account: str, region: str, **options: Any) -> list[Entry[T]]:
        """As ``Records.page``."""
        found = await self._records.page(self._kind, account, region, **options)
        return [self.decode(record) for record in found]

    async def referring(self, account: str, region: str, lookup: str, **options: Any) -> list[Entry[T]]:
        """As ``Records.referring``."""
        found = await self._records.referring(self._kind, account, region, lookup, **options)
        return [self.decode(record) for record in found]

    async def every(self) -> list[Entry[T]]:
        """As ``Records.every``."""
        return [self.decode(record) for record in await self._records.every(self._kind)]

    def record(
        self,
        key: RecordKey,
        value: T,
        revision_id: str,
        *,
        function: str | None = None,
        lookups: tuple[str, ...] = (),
    ) -> Record:
        """The record that keeps ``value``."""
        document = msgspec.json.encode(value)
        return Record(key=key, revision_id=revision_id, document=document, function=function, lookups=lookups)

    async def write(self, *changes: Change, requires: Sequence[Requirement] = ()) -> None:
        """As ``Records.write``."""
        await self._records.write(changes, requires)

    def decode(self, record: Record) -> Entry[T]:
        """A record of this kind as an entry."""
        return Entry(record.key, record.revision_id, self._decoder.decode(record.document))
