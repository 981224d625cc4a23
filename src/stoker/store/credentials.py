"""Access keys of an account on SQL: the root's, stored sealed or given by settings."""

import base64
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from sqlalchemy import Connection, insert, select

from stoker.core.clock import Clock
from stoker.services.credentials import Credential
from stoker.store.database import Database
from stoker.store.key_ring import KeyRing
from stoker.store.schema import access_keys
from stoker.store.sealed_columns import access_key_row
from stoker.store.sealing import Sealer, derive

SESSIONS: Final = "session credentials"
"""What sessions' keys are derived for."""


class StoredCredentials(KeyRing):
    """The Credentials port; every key is in memory once ``start`` returned."""

    def __init__(self, database: Database, sealer: Sealer, clock: Clock) -> None:
        super().__init__(sealer.derive(SESSIONS), clock)
        self._database = database
        self._sealer = sealer
        self._root: Credential | None = None
        self._tell_session_keys: Callable[[tuple[bytes, ...]], Awaitable[None]] | None = None

    async def start(self, account: str, *, given: tuple[str, str] | None = None) -> None:
        """Load the root access key of ``account``, or make it at the first start.

        ``given`` (key id, secret) takes its place instead; the stored one is then not valid.

        Raises:
            SealBroken: the stored secret is under another master key.
        """
        root_arn = f"arn:aws:iam::{account}:root"
        if given is not None:
            root = Credential(
                access_key_id=given[0], secret=given[1], account=account, principal_arn=root_arn
            )
        else:
            root = await self._stored_root(account, root_arn)
        self._root = root
        self.hold(root)

    async def use_master_keys(self, keys: Sequence[bytes]) -> None:
        """Issue sessions under the first of these master keys, once every process accepts them."""
        session_keys = tuple(derive(key, SESSIONS) for key in keys)
        if self._tell_session_keys is not None:
            await self._tell_session_keys(session_keys)
        self.use_session_keys(session_keys)

    def on_session_keys(self, callback: Callable[[tuple[bytes, ...]], Awaitable[None]]) -> None:
        """Await ``callback`` with new session keys before the first session is made with them."""
        self._tell_session_keys = callback

    @property
    def root(self) -> Credential:
        """The account's root access key."""
        if self._root is None:
            raise RuntimeError("credentials are used before they were started")
        return self._root

    async def _stored_root(self, account: str, root_arn: str) -> Credential:
        key_id = "AKIA" + base64.b32encode(secrets.token_bytes(10)).decode()
        secret = base64.b64encode(secrets.token_bytes(30)).decode()
        new_sealed = self._sealer.seal(secret.encode(), access_key_row(key_id))
        row = {
            "access_key_id": key_id,
            "account": account,
            "principal_arn": root_arn,
            "secret_sealed": new_sealed,
            "created_at_s": self._clock.now_s(),
        }
        query = select(access_keys).where(
            access_keys.c.account == account, access_keys.c.principal_arn == root_arn
        )

        def transaction(connection: Connection) -> tuple[str, bytes]:
            stored = connection.execute(query).mappings().first()
            if stored is None:
                connection.execute(insert(access_keys), row)
                return key_id, new_sealed
            return stored["access_key_id"], stored["secret_sealed"]

        stored_id, sealed = await self._database.write(transaction)
        plain = self._sealer.open(sealed, access_key_row(stored_id)).decode()
        return Credential(access_key_id=stored_id, secret=plain, account=account, principal_arn=root_arn)
