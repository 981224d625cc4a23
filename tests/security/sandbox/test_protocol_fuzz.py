"""The jail against a hostile peer: random records, wrong descriptors, wrong uids. It refuses and serves on."""

import contextlib
import os
import random
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stoker.sandbox.container_protocol import VERSION
from tests.integration.sandbox.running_jail import RunningJail, look, missing, run, shell

REQUEST = struct.Struct("<IHHQQQQIIIIQIIQII")
MAGIC = 0x4B4C4A53
GOOD = [MAGIC, VERSION, 2, 7, 0, 256 << 20, 512 << 20, 100_000, 0, 64, 256, 0, 0, 0, 0, 0, 0]
ROUNDS = 400


@pytest.fixture(scope="module")
def jail() -> Iterator[RunningJail]:
    if missing():
        pytest.skip(missing())
    running = RunningJail()
    running.start()
    yield running
    running.stop()


def connect(jail: RunningJail) -> socket.socket:
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    peer.settimeout(10)
    for _ in range(500):
        with contextlib.suppress(FileNotFoundError, ConnectionRefusedError, BlockingIOError):
            peer.connect(str(jail.socket_path))
            return peer
        time.sleep(0.02)
    raise AssertionError("no jail")


def record(**changes: int) -> bytes:
    names = [
        "magic",
        "version",
        "operation",
        "id",
        "sandbox",
        "memory",
        "tmp",
        "quota",
        "weight",
        "pids",
        "files",
        "cpu_group",
        "mounts",
        "flags",
        "zygote",
        "uid",
        "gid",
    ]
    return REQUEST.pack(*(changes.get(name, value) for name, value in zip(names, GOOD, strict=True)))


def exchange(peer: socket.socket, data: bytes, fds: list[int]) -> bytes:
    """The answer, its descriptors closed; empty when the jail hung up."""
    try:
        socket.send_fds(peer, [data], fds)
        answer, received, _, _ = socket.recv_fds(peer, 200, 16)
    except (BrokenPipeError, ConnectionResetError):
        return b""
    for fd in received:
        os.close(fd)
    return answer


HELLO = record(operation=1)

MALFORMED = {
    "magic": {"magic": 1},
    "version": {"version": 1},
    "operation": {"operation": 99},
    "memory": {"memory": 0},
    "tmp": {"tmp": 1 << 60},
    "quota": {"quota": 5},
    "weight": {"weight": 2},
    "pids": {"pids": 0},
    "files": {"files": 1 << 30},
    "mount bits": {"mounts": 1 << 9},
    "mounts without descriptors": {"mounts": 1},
    "flags": {"flags": 8},
    "handle at creation": {"sandbox": 5},
    "a zygote of a zygote": {"flags": 2, "zygote": 5},
    "an image without its file": {"operation": 7},
    "a VM without files": {"operation": 12},
    "a VM that forks": {"operation": 12, "flags": 2},
    "more files, but none": {"operation": 13, "sandbox": 5},
    "a handle for a new volume": {"operation": 8, "sandbox": 5},
    "a zygote where none forks": {"operation": 6, "zygote": 5},
}


@pytest.mark.parametrize("changes", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_record_ends_the_connection(changes: dict[str, int], jail: RunningJail) -> None:
    with connect(jail) as peer:
        assert len(exchange(peer, HELLO, [])) == 120
        assert exchange(peer, record(**changes), []) == b""


def test_nothing_before_hello(jail: RunningJail) -> None:
    with connect(jail) as peer:
        assert exchange(peer, record(), []) == b""


def test_surplus_descriptors_are_refused_and_closed(jail: RunningJail) -> None:
    assert jail.process
    with connect(jail) as peer, open("/dev/null") as null:
        exchange(peer, HELLO, [])
        before = len(os.listdir(f"/proc/{jail.process.pid}/fd"))
        assert exchange(peer, record(), [null.fileno()] * 100) == b""
    with connect(jail) as peer:
        exchange(peer, HELLO, [])
        assert len(os.listdir(f"/proc/{jail.process.pid}/fd")) <= before


def test_only_folders_are_mounted(jail: RunningJail) -> None:
    with connect(jail) as peer, open("/etc/passwd") as file:
        exchange(peer, HELLO, [])
        answer = exchange(peer, record(mounts=1), [file.fileno()])
        assert struct.unpack_from("<i", answer, 16)[0] == -20  # ENOTDIR
        assert answer[56:].startswith(b"cloning folders\0")


def test_only_readable_files_are_images(jail: RunningJail, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(1 << 20))
    with connect(jail) as peer:
        exchange(peer, HELLO, [])
        for name, flags, error in (
            (tmp_path, os.O_RDONLY, 22),
            ("/dev/null", os.O_RDONLY, 22),
            (tmp_path / "file", os.O_PATH, 22),
            (tmp_path / "file", os.O_WRONLY, 22),
            (tmp_path / "file", os.O_RDONLY, 22),  # zeros: what the kernel says of its superblock
        ):
            fd = os.open(name, flags)
            answer = exchange(peer, record(operation=7), [fd])
            os.close(fd)
            assert struct.unpack_from("<i", answer, 16)[0] == -error, (name, flags)


def test_handles_that_name_nothing(jail: RunningJail) -> None:
    with connect(jail) as peer:
        exchange(peer, HELLO, [])
        for operation in (4, 5, 9, 10, 11):
            for handle in (1, 4095, 4096, 2**32 - 1, 2**64 - 1):
                answer = exchange(peer, record(operation=operation, sandbox=handle), [])
                assert struct.unpack_from("<i", answer, 16)[0] == -3  # ESRCH


async def test_random_records_and_descriptors(jail: RunningJail) -> None:
    """Seeded, so that a failure can be repeated."""
    dice = random.Random(20)
    pool = [os.open("/tmp", os.O_PATH), os.open("/dev/null", os.O_RDONLY), *os.pipe()]
    peer = connect(jail)
    exchange(peer, HELLO, [])
    assert jail.process
    for _ in range(ROUNDS):
        fields = dict(zip(["operation", "sandbox", "memory", "mounts", "flags"], (0,) * 5, strict=True))
        fields = {
            name: dice.choice([0, 1, 2, 3, 7, 8, 9, 2**16 - 1, dice.getrandbits(16)]) for name in fields
        }
        data = dice.choice(
            [record(**fields), dice.randbytes(64), dice.randbytes(dice.randrange(200)), record()]
        )
        if not exchange(peer, data, dice.choices(pool, k=dice.choice([0, 0, 1, 2, 4, 6]))):
            peer.close()
            peer = connect(jail)
            exchange(peer, HELLO, [])
        assert jail.process.poll() is None
    peer.close()
    for fd in pool:
        os.close(fd)
    driver = await jail.driver()
    assert (await run(driver, shell("echo fine"))).output == "fine\n"
    assert not look(jail.folder).foreign
    await driver.close()


STRANGER = """
import os, socket, sys
os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
peer = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); peer.connect(sys.argv[1])
try: peer.send(bytes.fromhex(sys.argv[2])); print(len(peer.recv(200)))
except OSError: print("closed")
"""


def test_another_uid_is_not_served(jail: RunningJail) -> None:
    connect(jail).close()
    command = [sys.executable, "-c", STRANGER, str(jail.socket_path), HELLO.hex()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tempfile.gettempdir())
    assert done.stdout.strip() in ("0", "closed")
