"""Functions and their versions in SQL: the FunctionMetadata port on a Database. Environments are sealed."""

import base64
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    Table,
    and_,
    bindparam,
    case,
    cast,
    delete,
    func,
    insert,
    or_,
    select,
    true,
    update,
)
from sqlalchemy import Integer as SqlInteger
from sqlalchemy.exc import IntegrityError

from stoker.services.functions import (
    LATEST,
    VERSIONS_PAGE_MAX,
    FunctionExists,
    FunctionKey,
    FunctionMissing,
    FunctionRecord,
    FunctionVersion,
    Publication,
    Publish,
    ReservationRefused,
    RevisionMismatch,
    VersionInUse,
    is_settled,
)
from stoker.services.images import image_of_code
from stoker.services.records import NobodyRefers, Put, Record, Requirement
from stoker.store.database import Database, Query
from stoker.store.records import requirement_holds, write_records
from stoker.store.schema import functions, version_layers, versions
from stoker.store.sealed_columns import environment_row
from stoker.store.sealing import Sealer

_encode = msgspec.json.Encoder().encode
_decode_version = msgspec.json.Decoder(FunctionVersion).decode
_decode_tags = msgspec.json.Decoder(dict[str, str]).decode

_FUNCTION_COLUMNS = (functions.c.created_at_s, functions.c.tags, functions.c.reserved_concurrency)
_VERSION_COLUMNS = (versions.c.document, versions.c.environment_sealed)


def _named(table: Table, *names: str) -> ColumnElement[bool]:
    """Each column is the parameter of its name."""
    return and_(*(table.c[name] == bindparam(name) for name in names))


_VERSION_KEY = ("account", "region", "name", "version")
_REPLACE = update(versions).where(
    *(versions.c[name] == bindparam(f"this_{name}") for name in _VERSION_KEY),
    versions.c.revision_id == bindparam("expected"),
)
_INSERT_FUNCTION, _INSERT_VERSION = insert(functions), insert(versions)

_FUNCTION = Query(select(*_FUNCTION_COLUMNS).where(_named(functions, "account", "region", "name")))
_THIS_VERSION = _named(versions, *_VERSION_KEY)
_VERSION = Query(select(*_VERSION_COLUMNS).where(_THIS_VERSION))
_DESCRIBED = Query(
    select(*_VERSION_COLUMNS, *_FUNCTION_COLUMNS)
    .join_from(
        versions,
        functions,
        and_(*(versions.c[name] == functions.c[name] for name in ("account", "region", "name"))),
    )
    .where(_THIS_VERSION)
)
_LATEST = Query(
    select(*_VERSION_COLUMNS)
    .where(
        _named(versions, "account", "region"),
        versions.c.name > bindparam("after_name"),
        versions.c.version == LATEST,
    )
    .order_by(versions.c.name)
    .limit(bindparam("limit"))
)


class SqlFunctionMetadata:
    """The port's docstrings hold; each method is one transaction."""

    def __init__(self, database: Database, sealer: Sealer) -> None:
        self._database = database
        self._sealer = sealer

    async def create(
        self,
        function: FunctionRecord,
        latest: FunctionVersion,
        first: FunctionVersion | None = None,
        *,
        records: Sequence[Record] = (),
        requires: Sequence[Requirement] = (),
    ) -> None:
        stored = [version for version in (latest, first) if version is not None]
        rows = [self._version_row(version) for version in stored]

        def transaction(connection: Connection) -> None:
            row = {**_function_row(function), "last_version": 0 if first is None else first.number}
            try:
                connection.execute(_INSERT_FUNCTION, row)
            except IntegrityError as problem:
                raise FunctionExists(function.key.arn) from problem
            connection.execute(_INSERT_VERSION, rows)
            _insert_layers(connection, *stored)
            write_records(connection, [Put(record) for record in records], requires)

        await self._database.write(transaction)

    async def publish(self, key: FunctionKey, decide: Publish) -> Publication:
        def transaction(connection: Connection) -> Publication:
            counter = select(functions.c.last_version).where(_is(functions, key))
            last = connection.execute(counter).scalar_one_or_none()
            latest = self._read_version(connection, key, LATEST)
            if last is None or latest is None:
                raise FunctionMissing(key.arn)
            made = decide(latest, self._read_version(connection, key, str(last)), last + 1)
            connection.execute(
                update(versions).where(_is_version(key, LATEST)).values(self._version_row(made.latest))
            )
            if made.published is not None:
                connection.execute(insert(versions), self._version_row(made.published))
                _insert_layers(connection, made.published)
                _change(connection, key, {"last_version": last + 1})
            return made

        return await self._database.write(transaction)

    async def delete_version(self, key: FunctionKey, version: str, *, unless: tuple[str, str]) -> None:
        kind, lookup = unless

        def transaction(connection: Connection) -> None:
            if not requirement_holds(connection, NobodyRefers(kind, key.account, key.region, lookup)):
                raise VersionInUse(f"{key.arn}:{version}")
            if connection.execute(delete(versions).where(_is_version(key, version))).rowcount == 0:
                raise FunctionMissing(f"{key.arn}:{version}")

        await self._database.write(transaction)

    async def function(self, key: FunctionKey) -> FunctionRecord | None:
        found = await self._database.rows(_FUNCTION, **_key_columns(key))
        return _function(key, *found[0]) if found else None

    async def version(self, key: FunctionKey, version: str) -> FunctionVersion | None:
        found = await self._database.rows(_VERSION, **_key_columns(key), version=version)
        return self._opened(*found[0]) if found else None

    async def described(
        self, key: FunctionKey, version: str
    ) -> tuple[FunctionRecord, FunctionVersion] | None:
        found = await self._database.rows(_DESCRIBED, **_key_columns(key), version=version)
        if not found:
            return None
        document, sealed, *function = found[0]
        return _function(key, *function), self._opened(document, sealed)

    async def replace_version(self, version: FunctionVersion, expected_revision_id: str) -> None:
        row = self._version_row(version)
        place = {f"this_{name}": row[name] for name in _VERSION_KEY}
        this = _is_version(version.key, version.version)

        def transaction(connection: Connection) -> None:
            changed = connection.execute(_REPLACE, {**row, **place, "expected": expected_revision_id})
            if changed.rowcount == 1:
                connection.execute(delete(version_layers).where(_is_layer_of(version)))
                _insert_layers(connection, version)
                return
            stored = connection.execute(select(versions.c.revision_id).where(this)).scalar_one_or_none()
            raise FunctionMissing(version.arn) if stored is None else RevisionMismatch(version.arn)

        await self._database.write(transaction)

    async def list_latest(
        self, account: str, region: str, *, after_name: str, limit: int
    ) -> list[FunctionVersion]:
        found = await self._database.rows(
            _LATEST, account=account, region=region, after_name=after_name, limit=limit
        )
        return [self._opened(*row) for row in found]

    async def list_versions(
        self,
        account: str,
        region: str,
        *,
        name: str | None = None,
        after: tuple[str, int] = ("", -1),
        limit: int = VERSIONS_PAGE_MAX,
    ) -> list[FunctionVersion]:
        number = case((versions.c.version == LATEST, 0), else_=cast(versions.c.version, SqlInteger))
        behind = or_(versions.c.name > after[0], and_(versions.c.name == after[0], number > after[1]))
        query = select(versions).where(versions.c.account == account, versions.c.region == region, behind)
        # Said once more on its own, so that the primary key is entered at that name.
        query = query.where(versions.c.name >= after[0] if name is None else versions.c.name == name)
        return await self._versions(query.order_by(versions.c.name, number).limit(limit))

    async def unsettled(self) -> list[FunctionVersion]:
        return await self._versions(select(versions).where(versions.c.settled == 0))

    async def delete(self, key: FunctionKey) -> list[FunctionVersion]:
        def transaction(connection: Connection) -> list[RowMapping]:
            rows = connection.execute(select(versions).where(_is(versions, key))).mappings().all()
            if connection.execute(delete(functions).where(_is(functions, key))).rowcount == 0:
                raise FunctionMissing(key.arn)
            return list(rows)

        return [self._version(row) for row in await self._database.write(transaction)]

    async def set_reserved_concurrency(
        self, key: FunctionKey, value: int | None, *, total_max: int | None = None
    ) -> None:
        def transaction(connection: Connection) -> None:
            if value is not None and total_max is not None:
                others = _reserved(connection, key.account, key.region, but=key)
                if others + value > total_max:
                    raise ReservationRefused(key.arn)
            _change(connection, key, {"reserved_concurrency": value})

        await self._database.write(transaction)

    async def change_tags(self, key: FunctionKey, change: Callable[[dict[str, str]], dict[str, str]]) -> None:
        def transaction(connection: Connection) -> None:
            stored = _read_function(connection, key)
            if stored is None:
                raise FunctionMissing(key.arn)
            _change(connection, key, {"tags": _encode(change(dict(stored.tags)))})

        await self._database.write(transaction)

    async def total_reserved_concurrency(self, account: str, region: str) -> int:
        return await self._database.read(lambda connection: _reserved(connection, account, region))

    async def code_is_used(self, code_sha256: str) -> bool:
        image = image_of_code(code_sha256)
        column = code_sha256 if image is None else _image_column(image[1])
        queries = [
            select(table.c.name)
            .where(table.c.code_sha256 == column, table.c.account == image[0] if image else true())
            .limit(1)
            for table in (versions, version_layers)
        ]
        return await self._database.read(
            lambda connection: any(connection.execute(query).first() is not None for query in queries)
        )

    async def usage(self, account: str, region: str) -> tuple[int, int]:
        here = (versions.c.account == account, versions.c.region == region)
        query = select(
            func.count(versions.c.name.distinct()), func.coalesce(func.sum(versions.c.code_size_bytes), 0)
        ).where(*here)
        row = await self._database.read(lambda connection: connection.execute(query).one())
        return int(row[0]), int(row[1])

    async def _versions(self, query: Any) -> list[FunctionVersion]:
        rows = await self._database.read(lambda connection: connection.execute(query).mappings().all())
        return [self._version(row) for row in rows]

    def _read_version(self, connection: Connection, key: FunctionKey, version: str) -> FunctionVersion | None:
        query = select(versions).where(_is_version(key, version))
        row = connection.execute(query).mappings().one_or_none()
        return None if row is None else self._version(row)

    def _version_row(self, version: FunctionVersion) -> dict[str, Any]:
        sealed = None
        if version.environment is not None:
            sealed = self._sealer.seal(_encode(version.environment), _seal_row(version.key, version.version))
        return {
            **_key_columns(version.key),
            "version": version.version,
            "revision_id": version.revision_id,
            "code_sha256": _own_code(version),
            "code_size_bytes": version.code_size_bytes,
            "settled": int(is_settled(version)),
            "document": _encode(msgspec.structs.replace(version, environment=None)),
            "environment_sealed": sealed,
        }

    def _version(self, row: RowMapping) -> FunctionVersion:
        return self._opened(row["document"], row["environment_sealed"])

    def _opened(self, document: bytes, sealed: bytes | None) -> FunctionVersion:
        version = _decode_version(document)
        if sealed is None:
            return version
        plain = self._sealer.open(sealed, _seal_row(version.key, version.version))
        return msgspec.structs.replace(version, environment=_decode_tags(plain))


def _seal_row(key: FunctionKey, version: str) -> str:
    return environment_row(key.account, key.region, key.name, version)


def _key_columns(key: FunctionKey) -> dict[str, Any]:
    return {"account": key.account, "region": key.region, "name": key.name}


def _is(table: Table, key: FunctionKey) -> ColumnElement[bool]:
    return and_(table.c.account == key.account, table.c.region == key.region, table.c.name == key.name)


def _is_version(key: FunctionKey, version: str) -> ColumnElement[bool]:
    return and_(_is(versions, key), versions.c.version == version)


def _is_layer_of(version: FunctionVersion) -> ColumnElement[bool]:
    return and_(_is(version_layers, version.key), version_layers.c.version == version.version)


def _image_column(digest: str) -> str:
    """An image among CodeSha256: as short as they are."""
    return base64.b64encode(bytes.fromhex(digest.removeprefix("sha256:"))).decode()


def _own_code(version: FunctionVersion) -> str:
    return version.code_name if version.image is None else _image_column(version.image.digest)


def _beside(version: FunctionVersion) -> tuple[str, ...]:
    """What a version names beside its own code: its layers', or the image that it is to have next."""
    return version.layer_codes if version.next_image is None else (_image_column(version.next_image.digest),)


def _insert_layers(connection: Connection, *stored: FunctionVersion) -> None:
    rows = [
        {**_key_columns(version.key), "version": version.version, "code_sha256": code_sha256}
        for version in stored
        for code_sha256 in dict.fromkeys(_beside(version))
    ]
    if rows:
        connection.execute(insert(version_layers), rows)


def _function_row(function: FunctionRecord) -> dict[str, Any]:
    return {
        **_key_columns(function.key),
        "created_at_s": function.created_at_s,
        "reserved_concurrency": function.reserved_concurrency,
        "tags": _encode(function.tags),
    }


def _read_function(connection: Connection, key: FunctionKey) -> FunctionRecord | None:
    row = connection.execute(select(*_FUNCTION_COLUMNS).where(_is(functions, key))).one_or_none()
    return None if row is None else _function(key, *row)


def _function(
    key: FunctionKey, created_at_s: float, tags: bytes, reserved_concurrency: int | None
) -> FunctionRecord:
    return FunctionRecord(
        key=key,
        created_at_s=created_at_s,
        tags=_decode_tags(tags),
        reserved_concurrency=reserved_concurrency,
    )


def _change(connection: Connection, key: FunctionKey, values: dict[str, Any]) -> None:
    if connection.execute(update(functions).where(_is(functions, key)).values(values)).rowcount == 0:
        raise FunctionMissing(key.arn)


def _reserved(connection: Connection, account: str, region: str, but: FunctionKey | None = None) -> int:
    query = select(func.coalesce(func.sum(functions.c.reserved_concurrency), 0)).where(
        functions.c.account == account, functions.c.region == region
    )
    if but is not None:
        query = query.where(functions.c.name != but.name)
    return int(connection.execute(query).scalar_one())
