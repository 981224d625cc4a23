"""A packer that hostile input has taken over can do little, and the service survives whatever it answers."""

import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from stoker.packaging import landlock
from stoker.packaging.packers import PACKER_COMMAND, PackerPool, PackingFailed
from tests.security.archives.zips import archive


def _may_raise_limits() -> bool:
    """CAP_SYS_RESOURCE, which the service never has but a root that runs tests may."""
    status = Path("/proc/self/status").read_text()
    effective = int(status.partition("CapEff:")[2].split()[0], 16)
    return bool(effective & 1 << 24)


UNFILTERED = "seccomp.restrict_to = lambda rules: True\n"
"""What the other walls hold by themselves."""


def confined(code: str, folder: Path | None = None) -> str:
    """What ``code`` prints in a process that confined itself as a packer does, but for the system call filter."""
    argument = None if folder is None else str(folder)
    script = (
        f"from stoker.packaging.confinement import *\n{UNFILTERED}missing = confine({argument!r})\n"
        + textwrap.dedent(code)
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", script], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_it_cannot_reach_the_hosts_network() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    output = confined(
        f"""
        import socket
        try:
            socket.create_connection(("127.0.0.1", {listener.getsockname()[1]}), 2)
            print("connected")
        except OSError as problem:
            print("network namespace" in missing, problem)
        """
    )
    listener.close()
    if output == "connected":
        pytest.skip("this host gives unprivileged processes no network namespace")
    assert output.startswith("False")


def test_it_cannot_gain_privileges_or_dump() -> None:
    status = confined("print(open('/proc/self/status').read())")
    assert "NoNewPrivs:\t1" in status


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("try:\n    bytearray(2 * 1024**3)\nexcept MemoryError:\n    print('MemoryError')", "MemoryError"),
        (
            "import os, resource\nprint(resource.getrlimit(resource.RLIMIT_NOFILE)[1] <= 64)",
            "True",
        ),
        (
            "import resource\n"
            "try:\n    resource.setrlimit(resource.RLIMIT_FSIZE, (2**40, 2**40))\n    print('raised')\n"
            "except (ValueError, OSError):\n    print('fixed')",
            "raised" if _may_raise_limits() else "fixed",
        ),
        ("import resource\nprint(resource.getrlimit(resource.RLIMIT_CORE))", "(0, 0)"),
    ],
)
def test_its_limits_hold(code: str, expected: str) -> None:
    assert confined(code) == expected


ESCAPES = {
    "read": "open(other)",
    "list": "os.listdir(os.path.dirname(other))",
    "overwrite": "open(other, 'w')",
    "create beside": "open(other + '.new', 'w')",
    "remove": "os.unlink(other)",
    "read even below": "open(inside)",
    "remove even below": "os.unlink(inside)",
    "move out": "os.rename(inside, other)",
    "link in": "os.link(other, folder + '/link')",
    "pipe": "os.mkfifo(folder + '/pipe')",
    "execute": "os.execv('/bin/true', ['true'])",
    "signal the service": "os.kill(os.getppid(), 0)",
}


@pytest.mark.parametrize("name", ESCAPES)
def test_it_reaches_no_file_but_what_it_makes(tmp_path: Path, name: str) -> None:
    if landlock.version() == 0:
        pytest.skip("this kernel has no Landlock")
    if name == "signal the service" and landlock.version() < 6:
        pytest.skip("this kernel's Landlock does not know signals")
    folder = tmp_path / "staging"
    folder.mkdir()
    (folder / "inside").write_text("x")
    other = tmp_path / "master.key"
    other.write_text("secret")
    output = confined(
        f"""
        import os
        folder, other, inside = {str(folder)!r}, {str(other)!r}, {str(folder / "inside")!r}
        os.mkdir(folder + "/made")
        os.close(os.open(folder + "/made/file", os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        os.symlink("/etc/passwd", folder + "/made/link")
        try:
            {ESCAPES[name]}
            print("escaped")
        except OSError as problem:
            print(type(problem).__name__, missing)
        """,
        folder,
    )
    assert output in ("PermissionError []", "OSError []")
    assert other.read_text() == "secret"
    assert sorted(os.listdir(tmp_path)) == ["master.key", "staging"]
    assert os.readlink(folder / "made" / "link") == "/etc/passwd"


async def test_the_real_packer_is_confined_to_its_folder(tmp_path: Path) -> None:
    if landlock.version() == 0:
        pytest.skip("this kernel has no Landlock")
    pool = PackerPool(tmp_path / "staging")
    (tmp_path / "outside").mkdir()
    await pool.start()
    assert "landlock" not in pool.missing
    archived = tmp_path / "a.zip"
    archived.write_bytes(archive(("f", b"x")))
    descriptor = os.open(archived, os.O_RDONLY)
    directory = os.open(tmp_path / "outside", os.O_RDONLY)
    with pytest.raises(PackingFailed, match="Permission denied"):
        await pool.unpack(descriptor, directory, 100)
    os.close(descriptor)
    os.close(directory)
    await pool.close()
    assert list((tmp_path / "outside").iterdir()) == []


HOSTILE = {
    "garbage": "s.send(b'\\xff' * 100)",
    "too much": "s.send(b'x' * 100_000)",
    "wrong type": "s.send(msgpack({'type': 'Ready', 'missing': 5}))",
    "unasked answer": "s.send(msgpack({'type': 'Hashed', 'sha256': 'x', 'size_bytes': 1}))",
    "nothing": "sys.exit(0)",
    "death": "os.kill(os.getpid(), 9)",
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_whatever_it_answers_is_an_error_and_no_process_stays(tmp_path: Path, name: str) -> None:
    script = tmp_path / "hostile.py"
    script.write_text(
        "import os, socket, sys, msgspec\n"
        "msgpack = msgspec.msgpack.encode\n"
        "s = socket.socket(fileno=0)\n"
        "s.send(msgpack({'type': 'Ready', 'missing': []}))\n"
        "s.recv(4096)\n" + HOSTILE[name] + "\n"
        "s.recv(1)\n"
    )
    pool = PackerPool(command=[sys.executable, str(script)], packers=1)
    descriptor = os.open(script, os.O_RDONLY)
    directory = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(PackingFailed):
        await pool.unpack(descriptor, directory, 100)
    os.close(descriptor)
    os.close(directory)
    await pool.close()
    running = subprocess.run(["pgrep", "-f", str(script)], capture_output=True, check=False)
    assert running.stdout == b""


async def test_a_packer_that_its_filter_ended_is_told_from_one_that_died(tmp_path: Path) -> None:
    script = tmp_path / "taken_over.py"
    script.write_text(
        "import os, socket, msgspec\n"
        "s = socket.socket(fileno=0)\n"
        "s.send(msgspec.msgpack.encode({'type': 'Ready', 'missing': []}))\n"
        "s.recv(4096)\n"
        "os.kill(os.getpid(), 31)\n"
    )
    pool = PackerPool(command=[sys.executable, str(script)], packers=1)
    with script.open() as opened, pytest.raises(PackingFailed, match="may have taken it over"):
        await pool.hash(opened.fileno())
    await pool.close()


async def test_a_packer_that_does_not_start_is_an_error() -> None:
    for command in (["/nonexistent"], [sys.executable, "-c", "pass"]):
        with pytest.raises(PackingFailed):
            await PackerPool(command=command).start()


async def test_the_real_packer_says_what_is_missing() -> None:
    pool = PackerPool()
    await pool.start()
    may_be_missing = {"network namespace", "no-new-privileges", "landlock", "seccomp"}
    assert {"landlock"} <= set(pool.missing) <= may_be_missing
    await pool.close()


def test_the_packer_ends_with_its_socket() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    process = subprocess.Popen(PACKER_COMMAND, stdin=theirs)
    theirs.close()
    assert ours.recv(4096)
    ours.close()
    assert process.wait(10) == 0
