"""Rotation of the master key on every database: nothing is lost, nothing is left, old keys go only then."""

import asyncio
import base64
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, select, text, update

from stoker.core.clock import ManualClock
from stoker.services.functions import FunctionKey, FunctionRecord, FunctionVersion, LogSettings, Status
from stoker.services.keys import KeyUnavailable, RetirementRefused, WrappedKey
from stoker.store.credentials import StoredCredentials
from stoker.store.data_keys import MasterDataKeys
from stoker.store.database import Database
from stoker.store.master_keys import MasterKeys, load_master_keys
from stoker.store.metadata import SqlFunctionMetadata
from stoker.store.records import SqlRecords
from stoker.store.rotation import SESSIONS_END_S, WRITES_END_S, KeyRotation, WrappedDataKeys
from stoker.store.schema import versions
from stoker.store.sealed_columns import BATCH_ROWS, sealed_environments, sealed_root_keys
from stoker.store.sealing import MasterKeyError, Sealer
from stoker.store.user_keys import UserKeys
from tests.contract.databases import open_store

ACCOUNT, REGION = "000000000000", "us-east-1"
USER = f"arn:aws:iam::{ACCOUNT}:user/u"
FUNCTIONS = BATCH_ROWS + 5


class Shelf:
    """Wrapped data keys, in memory."""

    def __init__(self) -> None:
        self.keys: dict[str, tuple[bytes, dict[str, str]]] = {}
        self.failure: Exception | None = None

    async def wrapped_keys(self) -> AsyncIterator[WrappedKey]:
        for name, (wrapped, context) in list(self.keys.items()):
            yield WrappedKey(name, wrapped, context)

    async def replace_wrapped(self, key: WrappedKey, wrapped: bytes) -> None:
        if self.failure is not None:
            raise self.failure
        if self.keys[key.name][0] == key.wrapped:
            self.keys[key.name] = (wrapped, key.context)


class Store:
    """Everything that is sealed, as after a start with the key file as it is."""

    def __init__(self, database: Database, folder: Path, clock: ManualClock, shelf: Shelf) -> None:
        self.master = MasterKeys(folder / "master.key")
        self.sealer = Sealer(self.master.keys)
        self.data_keys = MasterDataKeys(self.sealer)
        self.metadata = SqlFunctionMetadata(database, self.sealer)
        self.records = SqlRecords(database)
        self.ring = StoredCredentials(database, self.sealer, clock)
        self.users = UserKeys(self.records, self.sealer, self.ring, clock)
        self.shelf = shelf
        sealed = [
            sealed_environments(database, self.sealer),
            sealed_root_keys(database, self.sealer),
            self.users,
            WrappedDataKeys([shelf], self.data_keys),
        ]
        self.rotation = KeyRotation(self.master, self.sealer, sealed, self.records, clock)
        self.rotation.on_changed(self.ring.use_master_keys)

    async def start(self) -> None:
        await self.users.start()
        await self.ring.start(ACCOUNT)
        await self.rotation.start()

    async def fill(self) -> None:
        for number in range(FUNCTIONS):
            await self.metadata.create(FunctionRecord(key=key(number), created_at_s=1.0), version(number))
        await self.users.create_key(ACCOUNT, "u", USER)
        plain, wrapped = await self.data_keys.generate({"account": ACCOUNT, "artifact": "a"})
        self.shelf.keys["a"] = (wrapped, {"account": ACCOUNT, "artifact": "a"})
        assert len(plain) == 32

    async def check(self) -> None:
        """Everything opens."""
        for number in (0, FUNCTIONS - 1):
            found = await self.metadata.version(key(number), "$LATEST")
            assert found is not None
            assert found.environment == {"SECRET": f"value {number}"}
        for wrapped, context in self.shelf.keys.values():
            await self.data_keys.unwrap(wrapped, context)

    async def resealed(self) -> None:
        for _ in range(500):
            if not any(old.sealed for old in (await self.rotation.report()).keys[1:]):
                return
            await asyncio.sleep(0.01)
        raise AssertionError(await self.rotation.report())


def key(number: int) -> FunctionKey:
    return FunctionKey(ACCOUNT, REGION, f"f{number:04}")


def version(number: int) -> FunctionVersion:
    return FunctionVersion(
        key=key(number),
        deployment_id="d",
        revision_id="r",
        last_modified="",
        role="r",
        environment={"SECRET": f"value {number}"},
        code_sha256="c",
        code_size_bytes=1,
        logging=LogSettings(log_group="g"),
        state=Status(value="Active"),
    )


@pytest.fixture(params=["sqlite", "postgres"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    opened = await open_store(request, tmp_path)
    yield opened
    await opened.close()


@pytest.fixture
async def stores(database: Database, tmp_path: Path) -> AsyncIterator[Any]:
    """Starts stores on the same data, as after a restart; each stops the one before."""
    clock, shelf, started = ManualClock(), Shelf(), list[Store]()

    async def restart() -> Store:
        if started:
            await started[-1].rotation.close()
        store = Store(database, tmp_path, clock, shelf)
        await store.start()
        started.append(store)
        return store

    restart.clock = clock  # type: ignore[attr-defined]
    yield restart
    await started[-1].rotation.close()


async def test_everything_is_sealed_again_and_the_old_key_goes(stores: Any, tmp_path: Path) -> None:
    store = await stores()
    await store.fill()
    session = store.ring.issue_session(
        account=ACCOUNT, role_arn=USER.replace("user", "role"), session_name="s"
    )
    root = store.ring.root
    before = await store.rotation.report()
    assert [each.active for each in before.keys] == [True]
    assert before.keys[0].sealed == {
        "environment variables": FUNCTIONS,
        "root access keys": 1,
        "access keys": 1,
        "data keys": 1,
    }
    rotated = await store.rotation.rotate()
    assert [each.active for each in rotated.keys] == [True, False]
    assert rotated.keys[1].key_id == before.keys[0].key_id
    await store.resealed()
    await store.check()
    after = await store.rotation.report()
    assert after.keys[0].sealed == before.keys[0].sealed
    assert after.keys[1].sealed == {}
    with pytest.raises(RetirementRefused, match="under way"):
        await store.rotation.retire()
    stores.clock.advance(WRITES_END_S)
    with pytest.raises(RetirementRefused, match="temporary credentials"):
        await store.rotation.retire()
    assert len(load_master_keys(tmp_path / "master.key")) == 2
    assert store.ring.lookup(session.access_key_id, session.session_token) == session
    retired = await store.rotation.retire(end_sessions=True)
    assert len(retired.keys) == len(load_master_keys(tmp_path / "master.key")) == 1
    assert stat.S_IMODE((tmp_path / "master.key").stat().st_mode) == 0o600
    assert store.ring.lookup(session.access_key_id, session.session_token) is None
    again = await stores()
    await again.check()
    assert again.ring.root == root
    assert (await again.rotation.report()).missing == {}
    with pytest.raises(RetirementRefused, match="one master key only"):
        await again.rotation.retire()


async def test_sessions_end_by_themselves_before_an_old_key_goes(stores: Any) -> None:
    store = await stores()
    old = store.ring.issue_user_session(account=ACCOUNT, user_arn=USER, lifetime_s=36 * 3600)
    await store.rotation.rotate()
    new = store.ring.issue_user_session(account=ACCOUNT, user_arn=USER, lifetime_s=36 * 3600)
    again = await stores()
    for session in (old, new):
        assert again.ring.lookup(session.access_key_id, session.session_token) == session
    stores.clock.advance(SESSIONS_END_S)
    assert len((await again.rotation.retire()).keys) == 1


async def test_a_stop_at_any_step_goes_on_at_the_next_start(stores: Any) -> None:
    store = await stores()
    await store.fill()
    store.master.add()  # as if the process had died right after
    again = await stores()
    await again.resealed()
    await again.check()
    report = await again.rotation.report()
    assert [each.sealed.get("environment variables", 0) for each in report.keys] == [FUNCTIONS, 0]
    assert report.keys[1].replaced_at_s is not None


async def test_what_cannot_be_opened_keeps_the_old_key(
    stores: Any, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await stores()
    await store.fill()

    def damage(connection: Connection) -> None:
        this = versions.c.name == key(1).name
        sealed = bytes(connection.execute(select(versions.c.environment_sealed).where(this)).scalar_one())
        broken = sealed[:-1] + bytes([sealed[-1] ^ 1])
        connection.execute(update(versions).where(this).values(environment_sealed=broken))

    await database.write(damage)
    await store.rotation.rotate()
    stores.clock.advance(SESSIONS_END_S)
    with pytest.raises(Exception, match=r"1 sealed values cannot be opened: environment .*f0001"):
        await store.rotation.retire()
    report = await store.rotation.report()
    assert report.keys[0].sealed["environment variables"] == FUNCTIONS - 1
    assert report.keys[1].sealed == {"environment variables": 1}
    assert "f0001" in report.trouble
    await database.write(
        lambda connection: connection.execute(text("DELETE FROM functions WHERE name = 'f0001'"))
    )
    assert len((await store.rotation.retire()).keys) == 1


async def test_an_object_store_that_is_down_is_tried_again(
    stores: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stoker.store.rotation.RETRY_S", 0.05)
    store = await stores()
    await store.fill()
    store.shelf.failure = KeyUnavailable("the store is down")
    await store.rotation.rotate()
    while store.rotation.statistics().failures < 2:
        await asyncio.sleep(0.01)
    store.shelf.failure = None
    assert (await store.rotation.report()).trouble == "the store is down"
    await store.resealed()
    await store.check()
    assert (await store.rotation.report()).trouble == ""


async def test_a_setting_rotates_by_being_changed(database: Database, tmp_path: Path) -> None:
    old, new = (base64.b64encode(letter * 32).decode() for letter in (b"o", b"n"))
    keys = MasterKeys(tmp_path / "master.key", f"{new} {old}")
    rotation = KeyRotation(keys, Sealer(keys.keys), [], SqlRecords(database), clock := ManualClock())
    await rotation.start()
    with pytest.raises(MasterKeyError, match="STOKER_MASTER_KEY"):
        await rotation.rotate()
    clock.advance(SESSIONS_END_S)
    gone = (await rotation.report()).keys[1].key_id
    with pytest.raises(MasterKeyError, match=f"take the keys {gone} out of it"):
        await rotation.retire()
    await rotation.close()
    assert not (tmp_path / "master.key").exists()


async def test_a_report_holds_no_key(stores: Any, tmp_path: Path) -> None:
    store = await stores()
    await store.rotation.rotate()
    shown = repr(await store.rotation.report())
    for master in load_master_keys(tmp_path / "master.key"):
        assert base64.b64encode(master).decode() not in shown
        assert master.hex() not in shown
