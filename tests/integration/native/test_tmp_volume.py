"""/tmp volumes of every kind: limits that hold against writers and floods of files, and nothing left behind."""

import ctypes
import errno
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.native.jailparts import (
    CLONE_NEWNS,
    LIBC,
    MS_PRIVATE,
    MS_REC,
    Room,
    build_library,
    checked,
    missing_programs,
    mount,
    unshare,
)

MISSING = missing_programs("mkfs.btrfs", "mkfs.ext4", "cc")
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="mounts file systems on loop devices: needs root"),
    pytest.mark.skipif(bool(MISSING), reason=f"missing on this host: {MISSING}"),
    pytest.mark.skipif(not Path("/dev/loop-control").exists(), reason="this host has no loop devices"),
]
BTRFS, EXT4, TMPFS = 1, 2, 3
MB = 1 << 20
UID = 54321
MOVE_MOUNT = {"x86_64": 429, "aarch64": 429}[os.uname().machine]
MOVE_MOUNT_F_EMPTY_PATH, AT_FDCWD = 4, -100
FULL = {errno.EDQUOT, errno.ENOSPC}


class Jail:
    """Runs in a room: takes volumes as the jail does and mounts each at a folder per slot."""

    def __init__(self, library: Path, folder: Path) -> None:
        self._path, self._folder = library, folder

    def enter(self) -> None:
        unshare(CLONE_NEWNS)
        mount("none", "/", MS_REC | MS_PRIVATE)
        self._library = ctypes.CDLL(str(self._path), use_errno=True)
        self._library.tmp_volume_error.restype = ctypes.c_char_p

    def _ok(self, result: int) -> int:
        if result < 0:
            raise RuntimeError(f"{self._library.tmp_volume_error().decode()} [{errno.errorcode[-result]}]")
        return result

    def open(self, kind: int, capacity_mb: int) -> int:
        state = str(self._folder / "state").encode()
        return self._ok(self._library.tmp_volume_open_kind(state, ctypes.c_uint64(capacity_mb * MB), kind))

    def open_best(self, capacity_mb: int, rootless: int) -> int:
        state = str(self._folder / "state").encode()
        return self._ok(self._library.tmp_volume_open(state, ctypes.c_uint64(capacity_mb * MB), rootless))

    def take(self, slot: int, size_mb: int) -> float:
        """Milliseconds it took."""
        target = self._folder / f"tmp{slot}"
        target.mkdir(exist_ok=True)
        began = time.perf_counter()
        fd = self._ok(self._library.tmp_volume_take(slot, UID, UID, ctypes.c_uint64(size_mb * MB)))
        took = (time.perf_counter() - began) * 1000
        checked(LIBC.syscall(MOVE_MOUNT, fd, b"", AT_FDCWD, str(target).encode(), MOVE_MOUNT_F_EMPTY_PATH))
        os.close(fd)
        return took

    def give(self, slot: int) -> float:
        checked(LIBC.umount2(str(self._folder / f"tmp{slot}").encode(), 2))
        began = time.perf_counter()
        self._library.tmp_volume_give(slot)
        return (time.perf_counter() - began) * 1000

    def resize(self, slot: int, size_mb: int) -> int:
        return self._ok(self._library.tmp_volume_resize(slot, ctypes.c_uint64(size_mb * MB)))

    def idle(self) -> int:
        """Ticks until nothing is left to do; how many it took."""
        count = 0
        while self._library.tmp_volume_pending():
            self._library.tmp_volume_tick()
            count += 1
            assert count < 10_000
        return count

    def close(self) -> bool:
        self._library.tmp_volume_close()
        return True

    def fill(self, slot: int, most_mb: int, sync: bool) -> list[int]:
        """(bytes written until refused, errno or 0), as the sandbox's user."""
        return self._as_user(slot, lambda: _fill("big", most_mb, sync))

    def flood(self, slot: int, most: int) -> list[int]:
        return self._as_user(slot, lambda: _flood(most))

    def remove(self, slot: int, name: str) -> list[int]:
        return self._as_user(slot, lambda: (os.unlink(name), [0, 0])[1])

    def setuid_program(self, slot: int) -> list[int]:
        """The euid a set-uid copy of `id` runs with, started by the sandbox's user."""
        program = self._folder / f"tmp{slot}" / "id"
        shutil.copy(shutil.which("id") or "/usr/bin/id", program)
        program.chmod(0o4755)
        done = subprocess.run(
            [program, "-u"], user=UID, group=UID, check=True, capture_output=True, text=True
        )
        return [int(done.stdout), 0]

    def device(self, slot: int) -> str:
        node = self._folder / f"tmp{slot}" / "null"
        os.mknod(node, 0o20666, os.makedev(1, 3))
        try:
            node.open("rb").close()
        except PermissionError:
            return "refused"
        return "opened"

    def look(self, slot: int) -> list[Any]:
        status = os.stat(self._folder / f"tmp{slot}")
        return [
            status.st_uid,
            status.st_gid,
            status.st_mode & 0o7777,
            os.listdir(self._folder / f"tmp{slot}"),
        ]

    def _as_user(self, slot: int, work: Any) -> list[int]:
        os.chdir(self._folder / f"tmp{slot}")
        os.setresgid(UID, UID, 0)
        os.setresuid(UID, UID, 0)
        try:
            return work()
        finally:
            os.setresuid(0, 0, 0)
            os.setresgid(0, 0, 0)
            os.chdir("/")

    def room(self) -> Room:
        names = [name for name in vars(Jail) if name[0] != "_" and name not in ("enter", "room")]
        return Room(self.enter, {name: getattr(self, name) for name in names})


def _fill(name: str, most_mb: int, sync: bool) -> list[int]:
    written, block = 0, os.urandom(MB)
    try:
        with open(name, "wb", buffering=0) as file:
            while written < most_mb * MB:
                written += file.write(block)
                if sync and written % (16 * MB) == 0:
                    os.fsync(file.fileno())
            os.fsync(file.fileno())
    except OSError as error:
        return [written, error.errno or 0]
    return [written, 0]


def _flood(most: int) -> list[int]:
    for number in range(most):
        try:
            os.close(os.open(f"file-with-a-longer-name-{number}", os.O_CREAT | os.O_WRONLY))
        except OSError as error:
            return [number, error.errno or 0]
    return [most, 0]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    parts = ["tmp_volume", "tmp_mount", "tmp_btrfs", "tmp_ext4", "tmp_tmpfs", "system_tool"]
    return build_library(parts, tmp_path_factory.mktemp("lib"))


@pytest.fixture
def jail(library: Path, tmp_path: Path) -> Iterator[Room]:
    tmp_path.chmod(0o755)
    for folder in tmp_path.parents:
        if folder.owner() == "root" and folder != Path("/tmp"):
            folder.chmod(folder.stat().st_mode | 0o011)
    room = Jail(library, tmp_path).room()
    yield room
    try:
        room.ask("close")
    finally:
        room.close()
        tmp_path.chmod(0o700)


@pytest.fixture(params=[BTRFS, EXT4, TMPFS], ids=["btrfs", "ext4", "tmpfs"])
def opened(jail: Room, request: pytest.FixtureRequest) -> tuple[Room, int]:
    assert jail.ask("open", request.param, 3000) == request.param
    return jail, request.param


def holds_sys_resource() -> bool:
    status = Path("/proc/self/status").read_text()
    return bool(int(status.split("CapEff:")[1].split()[0], 16) >> 24 & 1)


def loop_backing() -> list[str]:
    found: list[str] = []
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            found.append(path.read_text().strip())
        except OSError:
            continue
    return found


def wait_until_gone(folder: Path) -> list[str]:
    deadline = time.monotonic() + 10
    left = [name for name in loop_backing() if str(folder) in name]
    while left and time.monotonic() < deadline:
        time.sleep(0.05)
        left = [name for name in loop_backing() if str(folder) in name]
    return left


@pytest.mark.parametrize("sync", [False, True], ids=["buffered", "fsync"])
def test_a_writer_is_stopped_at_the_limit(opened: tuple[Room, int], sync: bool) -> None:
    jail, _ = opened
    jail.ask("take", 1, 512)
    written, error = jail.ask("fill", 1, 700, sync)
    assert error in FULL
    assert 500 * MB <= written <= 520 * MB, written / MB


def test_what_a_function_deletes_it_may_write_again(opened: tuple[Room, int]) -> None:
    jail, _ = opened
    jail.ask("take", 1, 512)
    assert jail.ask("fill", 1, 450, True) == [450 * MB, 0]
    jail.ask("remove", 1, "big")
    assert jail.ask("fill", 1, 450, True) == [450 * MB, 0]


def test_a_flood_of_empty_files_ends(opened: tuple[Room, int]) -> None:
    jail, _ = opened
    jail.ask("take", 1, 16)
    made, error = jail.ask("flood", 1, 300_000)
    assert error in FULL
    assert made >= 1000


def test_the_folder_belongs_to_the_sandbox_alone(opened: tuple[Room, int]) -> None:
    jail, _ = opened
    jail.ask("take", 1, 512)
    assert jail.ask("look", 1) == [UID, UID, 0o700, []]
    assert jail.ask("setuid_program", 1) == [UID, 0]
    assert jail.ask("device", 1) == "refused"


def test_a_volume_is_never_seen_by_the_next_sandbox(opened: tuple[Room, int]) -> None:
    jail, _ = opened
    for _ in range(12):  # more than there are spares
        jail.ask("take", 1, 512)
        assert jail.ask("look", 1)[3] == []
        jail.ask("fill", 1, 1, True)
        jail.ask("give", 1)
    jail.ask("idle")
    jail.ask("take", 1, 512)
    assert jail.ask("look", 1)[3] == []


def test_two_sandboxes_share_nothing(opened: tuple[Room, int]) -> None:
    jail, _ = opened
    jail.ask("take", 1, 512)
    jail.ask("take", 2, 512)
    jail.ask("fill", 1, 600, False)
    assert jail.ask("look", 2)[3] == []
    assert jail.ask("fill", 2, 100, True) == [100 * MB, 0]


def test_a_taken_volume_grows(opened: tuple[Room, int]) -> None:
    jail, kind = opened
    jail.ask("take", 1, 512)
    assert jail.ask("fill", 1, 600, False)[1] in FULL
    if kind == EXT4 and not holds_sys_resource():
        with pytest.raises(RuntimeError, match=r"CAP_SYS_RESOURCE.*EPERM"):
            jail.ask("resize", 1, 800)
        return
    jail.ask("resize", 1, 800)
    assert jail.ask("fill", 1, 780, False) == [780 * MB, 0]
    assert jail.ask("fill", 1, 900, False)[1] in FULL


def test_a_spare_becomes_a_larger_volume(opened: tuple[Room, int]) -> None:
    jail, _ = opened
    jail.ask("idle")
    jail.ask("take", 1, 700)
    written, error = jail.ask("fill", 1, 900, False)
    assert error in FULL
    assert 690 * MB <= written <= 720 * MB, written / MB


def test_misuse_is_refused_with_words(opened: tuple[Room, int]) -> None:
    jail, _ = opened
    jail.ask("take", 1, 512)
    with pytest.raises(RuntimeError, match=r"slot 1 was not given back.*EBUSY"):
        jail.ask("take", 1, 512)
    with pytest.raises(RuntimeError, match=r"slot 2 was not taken.*EINVAL"):
        jail.ask("resize", 2, 600)
    with pytest.raises(RuntimeError, match="EINVAL"):
        jail.ask("take", 3, 20_000)
    with pytest.raises(RuntimeError, match="EALREADY"):
        jail.ask("open", TMPFS, 1000)


def test_deleted_volumes_give_the_disk_back(jail: Room, tmp_path: Path) -> None:
    jail.ask("open", BTRFS, 1000)
    for slot in range(4):  # together more than the pool
        jail.ask("take", slot, 512)
        deadline = time.monotonic() + 20
        while jail.ask("fill", slot, 400, True) != [400 * MB, 0]:
            assert time.monotonic() < deadline, f"the space did not come back, round {slot}"
            time.sleep(0.2)
        jail.ask("give", slot)
        jail.ask("idle")


def test_ext4_promises_no_more_than_it_was_given(jail: Room) -> None:
    jail.ask("open", EXT4, 1100)
    jail.ask("take", 1, 512)
    jail.ask("take", 2, 512)
    with pytest.raises(RuntimeError, match=r"promised already.*ENOSPC"):
        jail.ask("take", 3, 512)
    jail.ask("give", 2)
    jail.ask("idle")
    jail.ask("take", 3, 512)


def test_the_best_kind_is_chosen_and_rootless_takes_memory(jail: Room) -> None:
    release = tuple(int(part) for part in re.findall(r"\d+", os.uname().release)[:2])
    has_btrfs = "btrfs" in Path("/proc/filesystems").read_text() and release >= (6, 7)
    assert jail.ask("open_best", 1000, 0) == (BTRFS if has_btrfs else EXT4)
    jail.ask("close")
    assert jail.ask("open_best", 1000, 1) == TMPFS


def test_a_folder_of_somebody_else_is_refused(jail: Room, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    os.chown(tmp_path / "state", 1234, 1234)
    with pytest.raises(RuntimeError, match=r"belongs to uid 1234.*EPERM"):
        jail.ask("open", BTRFS, 1000)


@pytest.mark.parametrize("kind", [BTRFS, EXT4], ids=["btrfs", "ext4"])
def test_a_killed_jail_leaves_nothing(library: Path, tmp_path: Path, kind: int) -> None:
    room = Jail(library, tmp_path).room()
    room.ask("open", kind, 2000)
    room.ask("take", 1, 512)
    room.ask("idle")
    assert any(str(tmp_path) in name for name in loop_backing())
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text(), "the pool shows on the host"
    os.kill(room.pid, signal.SIGKILL)
    room.close()
    assert wait_until_gone(tmp_path) == []
    assert not list((tmp_path / "state").glob("*.img"))
    again = Jail(library, tmp_path).room()
    again.ask("open", kind, 2000)
    again.ask("take", 1, 512)
    again.ask("close")
    again.close()
    assert wait_until_gone(tmp_path) == []


def test_taking_a_spare_costs_a_cold_start_nothing(opened: tuple[Room, int]) -> None:
    jail, _ = opened
    times: list[float] = []
    for _ in range(10):
        jail.ask("idle")
        times.append(jail.ask("take", 1, 512))
        jail.ask("give", 1)
    assert sorted(times)[5] < 2.0, times
