"""Documents in SQL: the Records port on a Database. It does not know what they hold."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    Select,
    and_,
    bindparam,
    delete,
    insert,
    select,
    tuple_,
    update,
)
from sqlalchemy.exc import IntegrityError

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
    Remove,
    Requirement,
    RequirementUnmet,
)
from stoker.store.database import Database, Query
from stoker.store.schema import functions, record_lookups, records, versions

_COLUMNS = ("kind", "account", "region", "owner", "name")

_RECORD = Query(
    select(records.c.revision_id, records.c.document, records.c.function, records.c.lookups).where(
        and_(*(records.c[name] == bindparam(name) for name in _COLUMNS))
    )
)


class SqlRecords:
    """The port's docstrings hold; each method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, key: RecordKey) -> Record | None:
        found = await self._database.rows(_RECORD, **_columns(key))
        return _made(key, *found[0]) if found else None

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
        query = select(records).where(_of(records, kind, account, region))
        if owner is not None:
            query = query.where(records.c.owner == owner)
        return await self._fetch(query, after, limit, descending=descending)

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
        same = and_(*(records.c[name] == record_lookups.c[name] for name in _COLUMNS))
        query = (
            select(records)
            .join(record_lookups, same)
            .where(_of(record_lookups, kind, account, region), record_lookups.c.lookup == lookup)
        )
        return await self._fetch(query, after, limit)

    async def every(self, kind: str) -> list[Record]:
        query = select(records).where(records.c.kind == kind)
        return await self._database.read(lambda connection: _records(connection, query))

    async def write(self, changes: Sequence[Change], requires: Sequence[Requirement] = ()) -> None:
        await self._database.write(lambda connection: write_records(connection, changes, requires))

    async def _fetch(
        self, query: Select[Any], after: tuple[str, str] | None, limit: int, *, descending: bool = False
    ) -> list[Record]:
        place = tuple_(records.c.owner, records.c.name)
        if after is not None:
            query = query.where(place < after if descending else place > after)
        order = (records.c.owner, records.c.name)
        query = query.order_by(*(column.desc() for column in order) if descending else order)
        query = query.limit(min(limit, PAGE_SIZE_MAX))
        return await self._database.read(lambda connection: _records(connection, query))


def write_records(
    connection: Connection, changes: Sequence[Change], requires: Sequence[Requirement] = ()
) -> None:
    """As ``Records.write``, within a transaction of the caller's."""
    for requirement in requires:
        if not requirement_holds(connection, requirement):
            raise RequirementUnmet(requirement)
    for change in changes:
        if isinstance(change, Put):
            _put(connection, change)
        else:
            _remove(connection, change)


def _of(table: Any, kind: str, account: str, region: str) -> ColumnElement[bool]:
    return and_(table.c.kind == kind, table.c.account == account, table.c.region == region)


def _is(table: Any, key: RecordKey) -> ColumnElement[bool]:
    return and_(*(table.c[name] == getattr(key, name) for name in _COLUMNS))


def _columns(key: RecordKey) -> dict[str, Any]:
    return {name: getattr(key, name) for name in _COLUMNS}


def _records(connection: Connection, query: Select[Any]) -> list[Record]:
    return [_record(row) for row in connection.execute(query).mappings()]


def _record(row: RowMapping) -> Record:
    key = RecordKey(*(row[name] for name in _COLUMNS))
    return _made(key, row["revision_id"], row["document"], row["function"], row["lookups"])


def _made(key: RecordKey, revision_id: str, document: bytes, function: str | None, lookups: str) -> Record:
    return Record(
        key=key,
        revision_id=revision_id,
        document=document,
        function=function,
        lookups=tuple(lookups.split("\n")) if lookups else (),
    )


def _row(record: Record) -> dict[str, Any]:
    return {
        **_columns(record.key),
        "revision_id": record.revision_id,
        "document": record.document,
        "function": record.function,
        "lookups": "\n".join(record.lookups),
    }


def _put(connection: Connection, change: Put) -> None:
    record, expected = change.record, change.expected
    stored = connection.execute(
        select(records.c.revision_id).where(_is(records, record.key))
    ).scalar_one_or_none()
    if expected is None and stored is not None:
        raise RecordExists(str(record.key))
    if expected not in (None, ANY_REVISION, stored):
        raise RecordMissing(str(record.key)) if stored is None else RecordChanged(str(record.key))
    _check_function(connection, record)
    if stored is None:
        try:
            connection.execute(insert(records), _row(record))
        except IntegrityError as problem:
            raise RecordExists(str(record.key)) from problem
    else:
        connection.execute(update(records).where(_is(records, record.key)).values(_row(record)))
        connection.execute(delete(record_lookups).where(_is(record_lookups, record.key)))
    rows = [{**_columns(record.key), "lookup": lookup} for lookup in dict.fromkeys(record.lookups)]
    if rows:
        connection.execute(insert(record_lookups), rows)


def _check_function(connection: Connection, record: Record) -> None:
    if record.function is None:
        return
    needed = FunctionThere(FunctionKey(record.key.account, record.key.region, record.function))
    if not requirement_holds(connection, needed):
        raise RequirementUnmet(needed)


def _remove(connection: Connection, change: Remove) -> None:
    this = _is(records, change.key)
    stored = connection.execute(select(records.c.revision_id).where(this)).scalar_one_or_none()
    if stored is None:
        raise RecordMissing(str(change.key))
    if change.expected not in (ANY_REVISION, stored):
        raise RecordChanged(str(change.key))
    connection.execute(delete(records).where(this))


def requirement_holds(connection: Connection, requirement: Requirement) -> bool:
    """Whether a requirement holds, as the transaction sees it."""
    if isinstance(requirement, NobodyRefers):
        kind, account, region = requirement.kind, requirement.account, requirement.region
        referring = select(record_lookups.c.name).where(
            _of(record_lookups, kind, account, region), record_lookups.c.lookup == requirement.lookup
        )
        return connection.execute(referring.limit(1)).first() is None
    if isinstance(requirement, RecordThere):
        return (
            connection.execute(select(records.c.name).where(_is(records, requirement.key))).first()
            is not None
        )
    return _function_there(connection, requirement)


def _function_there(connection: Connection, requirement: FunctionThere) -> bool:
    key = requirement.key
    table = functions if requirement.version is None else versions
    query = select(table.c.name).where(
        table.c.account == key.account, table.c.region == key.region, table.c.name == key.name
    )
    if requirement.version is not None:
        query = query.where(versions.c.version == requirement.version)
    return connection.execute(query).first() is not None
