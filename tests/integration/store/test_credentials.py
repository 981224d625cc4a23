"""Access keys across restarts: the root's is stored sealed, sessions are stored nowhere."""

import base64
from pathlib import Path

import msgspec
import pytest

from stoker.core.clock import ManualClock
from stoker.store.credentials import StoredCredentials
from stoker.store.opening import open_metadata_database
from stoker.store.sealing import SealBroken, Sealer

ACCOUNT = "123456789012"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/service/worker"


async def started(
    data: Path,
    *,
    key: bytes = b"k" * 32,
    clock: ManualClock | None = None,
    given: tuple[str, str] | None = None,
) -> StoredCredentials:
    database = await open_metadata_database(data)
    made = StoredCredentials(database, Sealer([key]), clock or ManualClock())
    try:
        await made.start(ACCOUNT, given=given)
    finally:
        await database.close()
    return made


async def test_the_root_key_is_made_once(tmp_path: Path) -> None:
    first = (await started(tmp_path)).root
    second = await started(tmp_path)
    assert second.root == first
    assert second.lookup(first.access_key_id, None) == first
    assert first.access_key_id.startswith("AKIA")
    assert len(first.access_key_id) == 20
    assert len(first.secret) == 40
    assert first.principal_arn == f"arn:aws:iam::{ACCOUNT}:root"
    assert second.lookup("AKIA" + "A" * 16, None) is None


async def test_the_secret_is_nowhere_in_the_files(tmp_path: Path) -> None:
    secret = (await started(tmp_path)).root.secret.encode()
    assert all(secret not in file.read_bytes() for file in tmp_path.iterdir())


async def test_another_master_key_says_so(tmp_path: Path) -> None:
    await started(tmp_path)
    with pytest.raises(SealBroken, match="which is not here"):
        await started(tmp_path, key=b"z" * 32)


async def test_a_given_key_replaces_the_stored_one(tmp_path: Path) -> None:
    stored = (await started(tmp_path)).root
    given = await started(tmp_path, given=("AKIAGIVEN", "secret"))
    assert given.root.access_key_id == "AKIAGIVEN"
    assert given.lookup(stored.access_key_id, None) is None


async def test_a_session_is_valid_after_a_restart_until_it_ends(tmp_path: Path) -> None:
    clock = ManualClock()
    session = (await started(tmp_path, clock=clock)).issue_session(
        account=ACCOUNT, role_arn=ROLE, session_name="my-function", lifetime_s=900
    )
    assert session.access_key_id.startswith("ASIA")
    assert session.principal_arn == f"arn:aws:sts::{ACCOUNT}:assumed-role/worker/my-function"
    again = await started(tmp_path, clock=clock)
    assert again.lookup(session.access_key_id, session.session_token) == session
    clock.advance(899)
    assert again.lookup(session.access_key_id, session.session_token) == session
    clock.advance(1)
    assert again.lookup(session.access_key_id, session.session_token) is None


async def test_sessions_cannot_be_forged(tmp_path: Path) -> None:
    credentials = await started(tmp_path)
    one, other = [
        credentials.issue_session(account=ACCOUNT, role_arn=ROLE, session_name=name) for name in ("a", "b")
    ]
    token = one.session_token or ""
    assert credentials.lookup(other.access_key_id, token) is None
    assert credentials.lookup(one.access_key_id, None) is None
    raw = bytearray(base64.b64decode(token))
    for place in range(len(raw)):
        raw[place] ^= 1
        assert credentials.lookup(one.access_key_id, base64.b64encode(raw).decode()) is None
        raw[place] ^= 1
    for malformed in ("", "=", "ü", "A" * 5000, base64.b64encode(msgspec.msgpack.encode([1])).decode()):
        assert credentials.lookup(one.access_key_id, malformed) is None
    elsewhere = StoredCredentials(None, Sealer([b"z" * 32]), ManualClock())  # type: ignore[arg-type]
    assert elsewhere.lookup(one.access_key_id, token) is None
