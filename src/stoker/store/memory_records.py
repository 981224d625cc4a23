"""A fake of the records port for tests, beside the fake of the functions whose records it cascades."""

from collections.abc import Sequence

from stoker.services.functions import FunctionKey
from stoker.services.records import (
    ANY_REVISION,
    PAGE_SIZE_MAX,
    Change,
    FunctionThere,
    NobodyRefers,
    Put,
    Record,
    RecordChanged,
    RecordExists,
    RecordKey,
    RecordMissing,
    RecordThere,
    Requirement,
    RequirementUnmet,
)
from stoker.store.memory import Failing, MemoryFunctionMetadata


class MemoryRecords(Failing):
    """Records in a dictionary."""

    def __init__(self, metadata: MemoryFunctionMetadata) -> None:
        super().__init__()
        self._metadata = metadata
        self._records: dict[RecordKey, Record] = {}
        metadata.deleted.append(self._function_deleted)
        metadata.is_referred_to = self._is_referred_to
        metadata.write_records = self._write

    async def get(self, key: RecordKey) -> Record | None:
        self._check()
        return self._records.get(key)

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
        self._check()
        found = [record for record in self._of(kind, account, region) if owner in (None, record.key.owner)]
        return _page(found, after, limit, descending=descending)

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
        self._check()
        found = [record for record in self._of(kind, account, region) if lookup in record.lookups]
        return _page(found, after, limit)

    async def every(self, kind: str) -> list[Record]:
        self._check()
        return [record for key, record in sorted(self._records.items()) if key.kind == kind]

    async def write(self, changes: Sequence[Change], requires: Sequence[Requirement] = ()) -> None:
        self._check()
        self._write(changes, requires)

    def _write(self, changes: Sequence[Change], requires: Sequence[Requirement]) -> None:
        for requirement in requires:
            if not self._holds(requirement):
                raise RequirementUnmet(requirement)
        before = dict(self._records)
        try:
            for change in changes:
                self._change(change)
        except Exception:
            self._records = before
            raise

    def _of(self, kind: str, account: str, region: str) -> list[Record]:
        where = (kind, account, region)
        return [
            record for key, record in self._records.items() if (key.kind, key.account, key.region) == where
        ]

    def _change(self, change: Change) -> None:
        key = change.record.key if isinstance(change, Put) else change.key
        stored = self._records.get(key)
        if not isinstance(change, Put):
            if stored is None:
                raise RecordMissing(str(key))
            if change.expected not in (ANY_REVISION, stored.revision_id):
                raise RecordChanged(str(key))
            del self._records[key]
            return
        if change.expected is None and stored is not None:
            raise RecordExists(str(key))
        if change.expected not in (None, ANY_REVISION):
            if stored is None:
                raise RecordMissing(str(key))
            if stored.revision_id != change.expected:
                raise RecordChanged(str(key))
        if change.record.function is not None:
            needed = FunctionThere(FunctionKey(key.account, key.region, change.record.function))
            if not self._holds(needed):
                raise RequirementUnmet(needed)
        self._records[key] = change.record

    def _holds(self, requirement: Requirement) -> bool:
        if isinstance(requirement, RecordThere):
            return requirement.key in self._records
        if isinstance(requirement, NobodyRefers):
            found = self._of(requirement.kind, requirement.account, requirement.region)
            return not any(requirement.lookup in record.lookups for record in found)
        return self._metadata.is_there(requirement.key, requirement.version)

    def _is_referred_to(self, key: FunctionKey, kind: str, lookup: str) -> bool:
        return not self._holds(NobodyRefers(kind, key.account, key.region, lookup))

    def _function_deleted(self, key: FunctionKey) -> None:
        place = (key.account, key.region, key.name)
        self._records = {
            at: record
            for at, record in self._records.items()
            if (at.account, at.region, record.function) != place
        }


def _page(
    found: list[Record], after: tuple[str, str] | None, limit: int, *, descending: bool = False
) -> list[Record]:
    found.sort(key=lambda record: (record.key.owner, record.key.name), reverse=descending)
    if after is not None:
        places = [(record.key.owner, record.key.name) for record in found]
        found = [
            record
            for record, place in zip(found, places, strict=True)
            if (place < after if descending else place > after)
        ]
    return found[: min(limit, PAGE_SIZE_MAX)]
