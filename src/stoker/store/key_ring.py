"""Access keys in memory: those it was given, and functions' own, which need no storage.

A session's secret and key id are derived from its token by a key that never leaves the service's processes;
the token carries whom it stands for and when it ends. So ``lookup`` works after a restart, for sandboxes that
live on.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Iterable, Sequence

import msgspec

from stoker.core.clock import Clock
from stoker.services.credentials import Credential

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
    policy: str = ""
    bound_to: str = ""


class KeyRing:
    """The Credentials and SessionIssuer ports over what is in memory."""

    def __init__(self, session_keys: Sequence[bytes], clock: Clock, keys: Iterable[Credential] = ()) -> None:
        self._session_keys = tuple(session_keys)
        self._clock = clock
        self._keys = {key.access_key_id: key for key in keys}

    def hold(self, key: Credential) -> None:
        """Accept ``key`` from now on."""
        self._keys[key.access_key_id] = key

    def drop(self, access_key_id: str) -> None:
        """Accept a key no longer."""
        self._keys.pop(access_key_id, None)

    def replace(self, keys: Iterable[Credential]) -> None:
        """Accept these keys and no others: what another process of the service says."""
        self._keys = {key.access_key_id: key for key in keys}

    @property
    def keys(self) -> tuple[Credential, ...]:
        """Every key that was given, for another process of the service."""
        return tuple(self._keys.values())

    @property
    def session_keys(self) -> tuple[bytes, ...]:
        """What sessions are derived from, new ones from the first; for another process of the service."""
        return self._session_keys

    def use_session_keys(self, session_keys: Sequence[bytes]) -> None:
        """Issue sessions by the first of these keys from now on, and accept those of any."""
        self._session_keys = tuple(session_keys)

    def lookup(self, access_key_id: str, session_token: str | None) -> Credential | None:
        if session_token is None:
            return self._keys.get(access_key_id)
        if len(session_token) > TOKEN_MAX_LENGTH:
            return None
        return self._session(access_key_id, session_token)

    def issue_session(
        self,
        *,
        account: str,
        role_arn: str,
        session_name: str,
        lifetime_s: int = SESSION_LIFETIME_S,
        session_policy: str = "",
        bound_to: str = "",
    ) -> Credential:
        """Temporary keys for a function: what its role's session would be on AWS."""
        role = role_arn.rpartition("/")[2]
        # A role of another account is none of this one's, whatever its name.
        role_account = role_arn.split(":")[4]
        arn = f"arn:aws:sts::{role_account}:assumed-role/{role}/{session_name}"
        return self._issue(account, arn, lifetime_s, session_policy, bound_to or role_arn)

    def issue_user_session(
        self, *, account: str, user_arn: str, lifetime_s: int, bound_to: str = ""
    ) -> Credential:
        """Temporary keys of a user, or of an account's root."""
        return self._issue(account, user_arn, lifetime_s, "", bound_to or user_arn)

    def _issue(
        self, account: str, principal_arn: str, lifetime_s: int, policy: str, bound_to: str
    ) -> Credential:
        session = _Session(
            principal_arn=principal_arn,
            account=account,
            expires_s=int(self._clock.now_s()) + lifetime_s,
            nonce=secrets.token_bytes(8),
            policy=policy,
            bound_to=bound_to,
        )
        body = msgspec.msgpack.encode(session)
        key = self._session_keys[0]
        return _credential(key, session, body, _tag(key, b"token", body))

    def _session(self, access_key_id: str, token: str) -> Credential | None:
        try:
            raw = base64.b64decode(token, validate=True)
            body, tag = raw[:-_TAG_BYTES], raw[-_TAG_BYTES:]
            key = next(
                (each for each in self._session_keys if hmac.compare_digest(tag, _tag(each, b"token", body))),
                None,
            )
            if key is None:
                return None
            session = msgspec.msgpack.decode(body, type=_Session)
        except (binascii.Error, ValueError, msgspec.DecodeError):
            return None
        if session.expires_s <= self._clock.now_s():
            return None
        found = _credential(key, session, body, tag)
        return found if hmac.compare_digest(found.access_key_id.encode(), access_key_id.encode()) else None


def _credential(key: bytes, session: _Session, body: bytes, tag: bytes) -> Credential:
    key_id = base64.b32encode(_tag(key, b"key id", body))[:_KEY_ID_LENGTH].decode()
    return Credential(
        access_key_id="ASIA" + key_id,
        secret=base64.b64encode(_tag(key, b"secret", body))[:_SECRET_LENGTH].decode(),
        account=session.account,
        principal_arn=session.principal_arn,
        session_token=base64.b64encode(body + tag).decode(),
        session_policy=session.policy,
        bound_to=session.bound_to or session.principal_arn,
    )


def _tag(key: bytes, purpose: bytes, body: bytes) -> bytes:
    return hmac.new(key, purpose + b"\0" + body, hashlib.sha256).digest()
