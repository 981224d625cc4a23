"""Access keys: the root's, stored sealed or given by settings, and functions' own, which need no storage.

A session's secret and key id are derived from its token by a key that never leaves this process; the token
carries whom it stands for and when it ends. So ``lookup`` works after a restart, for sandboxes that live on.
"""

import base64
import binascii
import hashlib
import hmac
import secrets

import msgspec
from sqlalchemy import Connection, insert, select

from stoker.core.clock import Clock
from stoker.services.credentials import Credential
from stoker.store.database import Database
from stoker.store.schema import access_keys
from stoker.store.sealing import Sealer

SESSION_LIFETIME_S = 14 * 3600
"""As long as a worker's lease, so that no sandbox outlives its keys."""

TOKEN_MAX_LENGTH = 4096

_TAG_BYTES = 32
_SECRET_LENGTH = 40
_KEY_ID_LENGTH = 16


class _Session(msgspec.Struct, frozen=True, array_like=True):
    """What a session token says; authenticated, not secret."""

    principal_arn: str
    account: str
    expires_s: int
    nonce: bytes


class StoredCredentials:
    """The Credentials port; every key is in memory once ``start`` returned."""

    def __init__(self, database: Database, sealer: Sealer, clock: Clock) -> None:
        self._database = database
        self._sealer = sealer
        self._clock = clock
        self._session_key = sealer.derive("session credentials")
        self._keys: dict[str, Credential] = {}
        self._root: Credential | None = None

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
        self._keys[root.access_key_id] = root

    @property
    def root(self) -> Credential:
        """The account's root access key."""
        if self._root is None:
            raise RuntimeError("credentials are used before they were started")
        return self._root

    def lookup(self, access_key_id: str, session_token: str | None) -> Credential | None:
        if session_token is None:
            return self._keys.get(access_key_id)
        if len(session_token) > TOKEN_MAX_LENGTH:
            return None
        return self._session(access_key_id, session_token)

    def issue_session(
        self, *, account: str, role_arn: str, session_name: str, lifetime_s: int = SESSION_LIFETIME_S
    ) -> Credential:
        """Temporary keys for a function: what its role's session would be on AWS."""
        role = role_arn.rpartition("/")[2]
        session = _Session(
            principal_arn=f"arn:aws:sts::{account}:assumed-role/{role}/{session_name}",
            account=account,
            expires_s=int(self._clock.now_s()) + lifetime_s,
            nonce=secrets.token_bytes(8),
        )
        body = msgspec.msgpack.encode(session)
        return self._credential(session, body, self._tag(b"token", body))

    def _session(self, access_key_id: str, token: str) -> Credential | None:
        try:
            raw = base64.b64decode(token, validate=True)
            body, tag = raw[:-_TAG_BYTES], raw[-_TAG_BYTES:]
            if not hmac.compare_digest(tag, self._tag(b"token", body)):
                return None
            session = msgspec.msgpack.decode(body, type=_Session)
        except (binascii.Error, ValueError, msgspec.DecodeError):
            return None
        if session.expires_s <= self._clock.now_s():
            return None
        found = self._credential(session, body, tag)
        return found if hmac.compare_digest(found.access_key_id.encode(), access_key_id.encode()) else None

    def _credential(self, session: _Session, body: bytes, tag: bytes) -> Credential:
        key_id = base64.b32encode(self._tag(b"key id", body))[:_KEY_ID_LENGTH].decode()
        return Credential(
            access_key_id="ASIA" + key_id,
            secret=base64.b64encode(self._tag(b"secret", body))[:_SECRET_LENGTH].decode(),
            account=session.account,
            principal_arn=session.principal_arn,
            session_token=base64.b64encode(body + tag).decode(),
        )

    def _tag(self, purpose: bytes, body: bytes) -> bytes:
        return hmac.new(self._session_key, purpose + b"\0" + body, hashlib.sha256).digest()

    async def _stored_root(self, account: str, root_arn: str) -> Credential:
        key_id = "AKIA" + base64.b32encode(secrets.token_bytes(10)).decode()
        secret = base64.b64encode(secrets.token_bytes(30)).decode()
        new_sealed = self._sealer.seal(secret.encode(), _seal_row(key_id))
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
        plain = self._sealer.open(sealed, _seal_row(stored_id)).decode()
        return Credential(access_key_id=stored_id, secret=plain, account=account, principal_arn=root_arn)


def _seal_row(access_key_id: str) -> str:
    return f"access key {access_key_id}"
