"""Guests are the same bytes each time they are built, and a changed byte is found before a VM boots."""

import shutil
from pathlib import Path

import pytest

from stoker.packaging.guest.guests import Guests, GuestUnusable
from tests.guests import BIN, guests_data, kernel, missing_for_vms

INITRAMFS_BYTES_MAX = 2_000_000


def test_a_second_build_is_the_same(tmp_path: Path) -> None:
    if missing_for_vms():
        pytest.skip(missing_for_vms())
    first = Guests(guests_data()).verified()
    again = Guests(tmp_path).build(
        kernel(), kernel_name="again", init=BIN / "stoker-guest", function_init=BIN / "stoker-init"
    )
    assert again.version == first.version
    assert again.digests == first.digests
    assert again.sizes["initramfs"] < INITRAMFS_BYTES_MAX
    assert Guests(tmp_path).lock().current == again.version


def test_a_changed_byte_is_found(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_text("x")
    program = tmp_path / "program"
    program.write_bytes(b"program")
    guests = Guests(tmp_path)
    with pytest.raises(GuestUnusable, match="there is no guest"):
        guests.verified()
    guest = guests.build(
        b"\x7fELF kernel", kernel_name="k", init=program, function_init=program, root=tmp_path / "tree"
    )
    assert guests.verified() == guest
    kernel_file = guests.folder(guest.version) / "kernel"
    kernel_file.write_bytes(b"\x7fELF kernel!")
    with pytest.raises(GuestUnusable, match="kernel is not what was built"):
        guests.verified()
    assert guests.build(
        b"\x7fELF kernel", kernel_name="k", init=program, function_init=program, root=tmp_path / "tree"
    )
    assert guests.verified() == guest
    shutil.rmtree(guests.folder(guest.version))
    with pytest.raises(GuestUnusable, match="No such file"):
        guests.verified()
