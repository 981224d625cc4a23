"""Sealed values: only the right key, row and bytes open them; master keys are made once and kept private."""

import base64
import stat
from pathlib import Path

import pytest

from stoker.store.master_keys import load_master_keys
from stoker.store.sealing import MasterKeyError, SealBroken, Sealer

OLD, NEW = b"o" * 32, b"n" * 32


def test_what_is_sealed_opens_and_shows_nothing() -> None:
    sealer = Sealer([NEW])
    sealed = sealer.seal(b"a secret value", "row 1")
    assert b"secret" not in sealed
    assert sealer.open(sealed, "row 1") == b"a secret value"
    assert sealer.seal(b"a secret value", "row 1") != sealed


def test_a_value_moved_to_another_row_does_not_open() -> None:
    sealer = Sealer([NEW])
    with pytest.raises(SealBroken):
        sealer.open(sealer.seal(b"x", "row 1"), "row 2")


@pytest.mark.parametrize("place", [0, 1, 5, 17, -1])
def test_a_damaged_value_does_not_open(place: int) -> None:
    sealer = Sealer([NEW])
    sealed = bytearray(sealer.seal(b"value", "row"))
    sealed[place] ^= 1
    with pytest.raises(SealBroken):
        sealer.open(bytes(sealed), "row")


def test_keys_rotate() -> None:
    sealed = Sealer([OLD]).seal(b"x", "row")
    rotated = Sealer([NEW, OLD])
    assert rotated.open(sealed, "row") == b"x"
    assert rotated.needs_resealing(sealed)
    assert not rotated.needs_resealing(rotated.seal(b"x", "row"))
    with pytest.raises(SealBroken, match="which is not here"):
        Sealer([NEW]).open(sealed, "row")


def test_derived_keys_differ_by_purpose_and_stay_the_same() -> None:
    assert Sealer([NEW]).derive("a") == Sealer([NEW]).derive("a")
    assert len({Sealer([NEW]).derive("a"), Sealer([NEW]).derive("b"), Sealer([OLD]).derive("a"), NEW}) == 4


def test_the_key_file_is_made_once_and_private(tmp_path: Path) -> None:
    file = tmp_path / "data" / "master.key"
    made = load_master_keys(file)
    assert load_master_keys(file) == made
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [entry.name for entry in file.parent.iterdir()] == ["master.key"]


def test_a_key_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "master.key"
    load_master_keys(file)
    file.chmod(0o640)
    with pytest.raises(MasterKeyError, match="must be 600"):
        load_master_keys(file)


def test_a_setting_takes_the_files_place(tmp_path: Path) -> None:
    setting = f"{base64.b64encode(NEW).decode()} {base64.b64encode(OLD).decode()}"
    assert load_master_keys(tmp_path / "master.key", setting) == [NEW, OLD]
    assert not (tmp_path / "master.key").exists()


@pytest.mark.parametrize("setting", ["not base64!", base64.b64encode(b"short").decode()])
def test_a_malformed_setting_is_refused(tmp_path: Path, setting: str) -> None:
    with pytest.raises(MasterKeyError):
        load_master_keys(tmp_path / "master.key", setting)
