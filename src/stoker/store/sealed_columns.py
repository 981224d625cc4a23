"""Sealed columns of the metadata database as rotation sees them: counted by key, sealed again row by row."""

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Column, Connection, LargeBinary, Table, func, select, tuple_, update

from stoker.store.database import Database
from stoker.store.schema import access_keys, versions
from stoker.store.sealing import KEY_ID_BYTES, SealBroken, Sealer

BATCH_ROWS = 100
"""Rows that one transaction seals again, so that others have their turn."""

Place = tuple[Any, ...]


class SealedColumn:
    """The Sealed port over one column. ``row_name`` is what a value was sealed for, from the primary key."""

    def __init__(
        self, database: Database, sealer: Sealer, kind: str, column: Column[Any], row_name: Callable[..., str]
    ) -> None:
        self.kind = kind
        self._database = database
        self._sealer = sealer
        self._column = column
        self._table: Table = column.table
        self._key: Sequence[Column[Any]] = tuple(self._table.primary_key.columns)
        self._row_name = row_name
        self._key_id = func.substr(column, 2, KEY_ID_BYTES, type_=LargeBinary)

    async def counts(self) -> dict[bytes, int]:
        query = select(self._key_id, func.count()).where(self._column.is_not(None)).group_by(self._key_id)
        found = await self._database.read(lambda connection: connection.execute(query).all())
        return {bytes(key_id): count for key_id, count in found}

    async def reseal(self) -> tuple[int, list[str]]:
        done, broken = 0, list[str]()
        after: Place | None = None
        while page := await self._page(after):
            after = page[-1][0]
            changed: list[tuple[Place, bytes, bytes]] = []
            for place, sealed in page:
                name = self._row_name(*place)
                try:
                    plain = self._sealer.open(sealed, name)
                except SealBroken as problem:
                    broken.append(str(problem))
                else:
                    changed.append((place, sealed, self._sealer.seal(plain, name)))
            done += await self._replace(changed)
        return done, broken

    async def _page(self, after: Place | None) -> list[tuple[Place, bytes]]:
        """The next rows under another key than the active one."""
        query = select(*self._key, self._column).where(self._key_id != self._sealer.key_ids[0])
        if after is not None:
            query = query.where(tuple_(*self._key) > after)
        query = query.order_by(*self._key).limit(BATCH_ROWS)
        found = await self._database.read(lambda connection: connection.execute(query).all())
        return [(tuple(place), bytes(sealed)) for *place, sealed in found]

    async def _replace(self, changed: Sequence[tuple[Place, bytes, bytes]]) -> int:
        """Rows that were written meanwhile are left alone: they are under the active key already."""

        def transaction(connection: Connection) -> int:
            done = 0
            for place, old, new in changed:
                same = [column == value for column, value in zip(self._key, place, strict=True)]
                statement = update(self._table).where(*same, self._column == old)
                done += connection.execute(statement.values({self._column.name: new})).rowcount
            return done

        return await self._database.write(transaction) if changed else 0


def sealed_environments(database: Database, sealer: Sealer) -> SealedColumn:
    """The environment variables of function versions."""
    column = versions.c.environment_sealed
    return SealedColumn(database, sealer, "environment variables", column, environment_row)


def sealed_root_keys(database: Database, sealer: Sealer) -> SealedColumn:
    """The secrets of accounts' root access keys."""
    return SealedColumn(database, sealer, "root access keys", access_keys.c.secret_sealed, access_key_row)


def environment_row(account: str, region: str, name: str, version: str) -> str:
    """What the environment of a version is sealed for."""
    return f"environment arn:aws:lambda:{region}:{account}:function:{name}:{version}"


def access_key_row(access_key_id: str) -> str:
    """What the secret of an access key is sealed for."""
    return f"access key {access_key_id}"
