"""Access keys of users: records whose secrets are sealed, held in memory while they are active."""

import asyncio
import base64
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

import msgspec

from stoker.core.clock import Clock
from stoker.services.credentials import AccessKey, Credential
from stoker.services.records import Put, RecordKey, Records, Remove, Shelf
from stoker.store.key_ring import KeyRing
from stoker.store.sealed_columns import access_key_row
from stoker.store.sealing import SealBroken, Sealer, sealed_under

ACCESS_KEY: Final = "access-key"
"""The kind of their records; owner is the user's name, name the key id."""


class _StoredKey(msgspec.Struct, frozen=True, kw_only=True):
    user_arn: str
    active: bool
    created_at_s: float
    secret_sealed: bytes


class UserKeys:
    """The KeyKeeper and Sealed ports. ``on_changed`` hands the ring to the service's other processes."""

    kind = "access keys"

    def __init__(self, records: Records, sealer: Sealer, ring: KeyRing, clock: Clock) -> None:
        self._shelf = Shelf(records, ACCESS_KEY, _StoredKey)
        self._sealer = sealer
        self._ring = ring
        self._clock = clock
        self._known: dict[tuple[str, str], dict[str, AccessKey]] = {}
        self._changed: Callable[[], Awaitable[None]] | None = None
        self._lock = asyncio.Lock()

    async def start(self) -> None:
        """Load every key.

        Raises:
            SealBroken: a stored secret is under another master key.
        """
        for entry in await self._shelf.every():
            self._note(entry.key, entry.value)

    def on_changed(self, callback: Callable[[], Awaitable[None]]) -> None:
        """Await ``callback`` after each change, before it is answered."""
        self._changed = callback

    def keys_of(self, account: str, user_name: str) -> list[AccessKey]:
        found: Iterable[AccessKey] = self._known.get((account, user_name), {}).values()
        return sorted(found, key=lambda key: (key.created_at_s, key.access_key_id))

    async def create_key(self, account: str, user_name: str, user_arn: str) -> tuple[AccessKey, str]:
        key_id = "AKIA" + base64.b32encode(secrets.token_bytes(10)).decode()
        secret = base64.b64encode(secrets.token_bytes(30)).decode()
        key = self._shelf.key(account, "", user_name, key_id)
        stored = _StoredKey(
            user_arn=user_arn,
            active=True,
            created_at_s=self._clock.now_s(),
            secret_sealed=self._sealer.seal(secret.encode(), access_key_row(key_id)),
        )
        async with self._lock:
            await self._shelf.write(Put(self._shelf.record(key, stored, "1")))
            made = self._note(key, stored)
            await self._tell()
        return made, secret

    async def set_key_active(self, account: str, key: AccessKey, *, active: bool) -> None:
        record_key = self._shelf.key(account, "", key.user_name, key.access_key_id)
        async with self._lock:
            entry = await self._shelf.get(record_key)
            if entry is None:
                return
            changed = msgspec.structs.replace(entry.value, active=active)
            await self._shelf.write(Put(self._shelf.record(record_key, changed, "1"), entry.revision_id))
            self._note(record_key, changed)
            await self._tell()

    async def delete_key(self, account: str, key: AccessKey) -> None:
        async with self._lock:
            await self._shelf.write(Remove(self._shelf.key(account, "", key.user_name, key.access_key_id)))
            self._known.get((account, key.user_name), {}).pop(key.access_key_id, None)
            self._ring.drop(key.access_key_id)
            await self._tell()

    async def counts(self) -> dict[bytes, int]:
        """How many secrets are sealed under which master key."""
        return Counter(sealed_under(entry.value.secret_sealed) for entry in await self._shelf.every())

    async def reseal(self) -> tuple[int, list[str]]:
        """As the Sealed port has it."""
        done, broken = 0, list[str]()
        for found in await self._shelf.every():
            if not self._sealer.needs_resealing(found.value.secret_sealed):
                continue
            async with self._lock:  # it may have gone or changed
                entry = await self._shelf.get(found.key)
                if entry is None:
                    continue
                try:
                    changed = self._resealed(found.key, entry.value)
                except SealBroken as problem:
                    broken.append(str(problem))
                    continue
                await self._shelf.write(Put(self._shelf.record(found.key, changed, "1"), entry.revision_id))
                done += 1
        return done, broken

    def _resealed(self, key: RecordKey, stored: _StoredKey) -> _StoredKey:
        row = access_key_row(key.name)
        secret = self._sealer.open(stored.secret_sealed, row)
        return msgspec.structs.replace(stored, secret_sealed=self._sealer.seal(secret, row))

    async def _tell(self) -> None:
        if self._changed is not None:
            await self._changed()

    def _note(self, key: RecordKey, stored: _StoredKey) -> AccessKey:
        shown = AccessKey(
            access_key_id=key.name,
            user_name=key.owner,
            active=stored.active,
            created_at_s=stored.created_at_s,
        )
        self._known.setdefault((key.account, key.owner), {})[key.name] = shown
        if not stored.active:
            self._ring.drop(key.name)
            return shown
        secret = self._sealer.open(stored.secret_sealed, access_key_row(key.name)).decode()
        self._ring.hold(
            Credential(
                access_key_id=key.name, secret=secret, account=key.account, principal_arn=stored.user_arn
            )
        )
        return shown
