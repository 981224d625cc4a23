"""The table of roots in the object store: each change is a new object, put only if nobody was faster.

Authenticated under a data key of its own, from which every root's salt is derived: who has the store alone
can neither guess content by its chunks' names nor make the collector delete.
"""

import hashlib
import hmac
import secrets
from collections.abc import Callable

import msgspec

from stoker.core.clock import Clock
from stoker.core.errors import StokerError
from stoker.packaging.chunks.layout import TABLE, table_key
from stoker.packaging.chunks.roots import Root, RootState, RootTable
from stoker.services.keys import DataKeys, WrappedKey
from stoker.services.object_store import ObjectMissing, ObjectStore

CHANGES_TRIED_MAX = 50
"""How often a change is made again because somebody else was faster."""

REVISIONS_KEPT = 20

_CONTEXT = {"artifact": "roots"}
_MAC_BYTES = 32
_TABLE_MAX_BYTES = 256 * 1024


class RootTableDamaged(StokerError):
    """The table of roots does not authenticate; nothing is read, written or deleted by it."""


class RootTableBusy(StokerError):
    """Others changed the table each time; try again."""


class KeptRoots:
    """Reads and changes the table; keeps nothing but the plain data key."""

    def __init__(self, store: ObjectStore, keys: DataKeys, clock: Clock) -> None:
        self._store = store
        self._keys = keys
        self._clock = clock
        self._plain: tuple[bytes, bytes] | None = None

    async def read(self) -> RootTable:
        """The table as it is now; the first one is made when there is none.

        Raises:
            RootTableDamaged, ObjectStoreUnavailable, KeyUnavailable, KeyRefused
        """
        return (await self._read())[0]

    async def exist(self) -> bool:
        """Whether anything was ever stored. Raises ObjectStoreUnavailable."""
        return bool(await self._revisions())

    async def salt(self, table: RootTable, root_id: str) -> bytes:
        """A root's salt."""
        return _derive(await self._table_key(table.wrapped_key), f"salt {root_id}")

    async def change(self, change: Callable[[RootTable], RootTable]) -> RootTable:
        """Apply ``change`` to the table as it is by then; it may be called again, and returns its argument
        when nothing is left to do. The table that holds the change, durable.

        Raises:
            RootTableBusy, and as ``read``.
        """
        for _ in range(CHANGES_TRIED_MAX):
            table, revisions = await self._read()
            changed = change(table)
            if changed is table:
                return table
            changed = msgspec.structs.replace(changed, revision=table.revision + 1)
            if await self._put(changed):
                await self._drop_old(revisions)
                return changed
        raise RootTableBusy("the table of roots changes again and again")

    async def wrapped_key(self) -> WrappedKey:
        """The table's own data key. Raises as ``read``."""
        return WrappedKey(name=TABLE, wrapped=(await self.read()).wrapped_key, context=_CONTEXT)

    async def replace_wrapped(self, key: WrappedKey, wrapped: bytes) -> None:
        """Have the table name its key wrapped anew. Raises as ``change``."""

        def rewrapped(current: RootTable) -> RootTable:
            if current.wrapped_key != key.wrapped:
                return current
            return msgspec.structs.replace(current, wrapped_key=wrapped)

        await self.change(rewrapped)

    async def _read(self) -> tuple[RootTable, list[int]]:
        for _ in range(CHANGES_TRIED_MAX):
            revisions = await self._revisions()
            if not revisions:
                await self._put(await self._first())
                continue
            try:
                content = await self._store.get(table_key(revisions[-1]))
            except ObjectMissing:  # it was the last and is so no more, and old ones are dropped
                continue
            table = await self._opened(content)
            if table.revision != revisions[-1]:
                raise RootTableDamaged(f"revision {revisions[-1]} of the table of roots is another one")
            return table, revisions
        raise RootTableBusy("the table of roots changes again and again")

    async def _revisions(self) -> list[int]:
        names = [entry.key.removeprefix(TABLE) async for entry in self._store.list_objects(TABLE)]
        return sorted(int(name) for name in names if name.isdecimal())

    async def _first(self) -> RootTable:
        _, wrapped = await self._keys.generate(_CONTEXT)
        root = Root(secrets.token_hex(16), RootState.ACTIVE, self._clock.now_s())
        return RootTable(revision=1, wrapped_key=wrapped, roots=(root,))

    async def _put(self, table: RootTable) -> bool:
        """Whether it is the table now. A revision whose number was free again after others had been dropped
        is not: a higher one is always there then."""
        body = msgspec.json.encode(table)
        mac = _mac(await self._table_key(table.wrapped_key), body)
        put = await self._store.put_new(table_key(table.revision), mac + body)
        return put and (await self._revisions())[-1] == table.revision

    async def _opened(self, content: bytes) -> RootTable:
        mac, body = content[:_MAC_BYTES], content[_MAC_BYTES:]
        if len(content) > _TABLE_MAX_BYTES:
            raise RootTableDamaged("the table of roots is too big")
        try:
            table = msgspec.json.decode(body, type=RootTable)
        except msgspec.DecodeError as problem:
            raise RootTableDamaged("the table of roots cannot be read") from problem
        if not hmac.compare_digest(mac, _mac(await self._table_key(table.wrapped_key), body)):
            raise RootTableDamaged("the table of roots was changed")
        if len(table.in_state(RootState.ACTIVE)) != 1:
            raise RootTableDamaged("the table of roots names no active root, or several")
        return table

    async def _drop_old(self, revisions: list[int]) -> None:
        for revision in revisions[:-REVISIONS_KEPT]:
            await self._store.delete(table_key(revision))

    async def _table_key(self, wrapped: bytes) -> bytes:
        if self._plain is None or self._plain[0] != wrapped:
            self._plain = (wrapped, await self._keys.unwrap(wrapped, _CONTEXT))
        return self._plain[1]


def _derive(key: bytes, purpose: str) -> bytes:
    return hmac.digest(key, purpose.encode(), hashlib.sha256)


def _mac(key: bytes, body: bytes) -> bytes:
    return hmac.digest(_derive(key, "table"), body, hashlib.sha256)
