"""Whoever controls the service's process and speaks the jail's protocol gains nothing of root's, and breaks nothing."""

import asyncio
import contextlib
import os
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stoker.sandbox.container_protocol import Handle
from stoker.sandbox.driver import MountPoint
from tests.integration.sandbox.running_jail import (
    RunningJail,
    create,
    look,
    missing,
    python,
    read_line,
    run,
    shell,
)
from tests.security.sandbox.test_protocol_fuzz import HELLO, connect, exchange, record

NOBODY = 65534


@pytest.fixture(scope="module")
def jail() -> Iterator[RunningJail]:
    if missing():
        pytest.skip(missing())
    running = RunningJail("--no-egress", "--no-cgroup-v2")
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def nobodys() -> Iterator[RunningJail]:
    """Serves an unprivileged uid."""
    if missing():
        pytest.skip(missing())
    running = RunningJail(peer_uid=NOBODY)
    running.start()
    connect(running).close()
    yield running
    running.stop()


ATTACK = """
import ctypes, os, signal, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
peer = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); peer.settimeout(10); peer.connect(sys.argv[1])
def ask(request, fds=()):
    socket.send_fds(peer, [bytes.fromhex(request)], list(fds))
    return socket.recv_fds(peer, 200, 16)[:2]
def attempt(name, call):
    try: call(); print("REACHED", name)
    except OSError as error: print("refused", name)
def checked(result):
    if result < 0: raise OSError(ctypes.get_errno(), "")
ask(sys.argv[2])
answer, fds = ask(sys.argv[3])
assert int.from_bytes(answer[16:20], "little", signed=True) == 0, answer
pidfd, pid = fds[0], None
for line in open(f"/proc/self/fdinfo/{pidfd}"):
    if line.startswith("Pid:"): pid = int(line.split()[1])
for namespace in (0x10000000, 0x20000, 0x40000000, 0x20000000):
    attempt(f"setns {namespace:x}", lambda: checked(libc.setns(pidfd, namespace)))
attempt("pidfd_getfd", lambda: checked(libc.syscall(438, pidfd, 3, 0)))
attempt("signal", lambda: signal.pidfd_send_signal(pidfd, signal.SIGKILL))
attempt("root", lambda: os.listdir(f"/proc/{pid}/root"))
attempt("mem", lambda: open(f"/proc/{pid}/mem", "rb"))
attempt("fd", lambda: os.listdir(f"/proc/{pid}/fd"))
for fd in fds:
    attempt(f"up from {fd}", lambda: os.open("..", os.O_RDONLY, dir_fd=fd))
attempt("trace the jail", lambda: checked(libc.ptrace(16, int(sys.argv[5]), 0, 0)))
attempt("the jail's state", lambda: os.listdir(sys.argv[4]))
print("done")
"""


def test_what_the_jail_hands_out_opens_nothing_else(nobodys: RunningJail) -> None:
    assert nobodys.process
    command = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs"]
    done = subprocess.run(
        [
            *command,
            "/usr/bin/env",
            "python3",
            "-I",
            "-c",
            ATTACK,
            nobodys.socket_path,
            HELLO.hex(),
            record().hex(),
            nobodys.folder / "state",
            str(nobodys.process.pid),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        cwd="/",
    )
    lines = done.stdout.splitlines()
    assert lines, done.stderr
    assert lines.pop() == "done", done.stdout + done.stderr
    assert len(lines) > 15
    assert [line for line in lines if not line.startswith("refused")] == []


def test_a_folder_of_root_is_as_closed_inside_as_outside(tmp_path: Path) -> None:
    """The jail clones whatever folder it is given a descriptor of; that must not lend root's eyes to a function."""
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    (private / "secret").write_text("secret")
    tmp_path.chmod(0o755)

    async def look_inside() -> str:
        driver = await jail.driver()
        try:
            launch = shell("ls /var/task; cat /var/task/secret")
            return (await run(driver, launch, mounts={MountPoint.TASK: private})).output
        finally:
            await driver.close()

    jail = RunningJail()
    jail.start()
    try:
        output = asyncio.run(look_inside())
    finally:
        jail.stop()
    assert "Permission denied" in output
    assert "secret" not in output.replace("/var/task/secret", "")


def test_many_takeovers_at_once_lose_no_connection_slot(jail: RunningJail) -> None:
    """Events of a connection that an earlier one of the same batch dropped were once counted twice."""
    for _ in range(30):
        peers = [connect(jail) for _ in range(6)]
        for peer in peers:
            peer.send(HELLO)
            peer.send(HELLO)
        for peer in peers:
            with contextlib.suppress(OSError):
                peer.recv(200)
            peer.close()
    time.sleep(0.1)
    kept = [connect(jail) for _ in range(20)]
    time.sleep(0.2)
    alive = 0
    for peer in kept:
        peer.setblocking(False)
        try:
            alive += peer.recv(1) != b""
        except BlockingIOError:
            alive += 1
        except OSError:
            pass
        peer.close()
    assert alive == 8, "CONNECTIONS_MAX"


async def test_a_sandbox_frozen_again_while_it_is_destroyed_still_ends(jail: RunningJail) -> None:
    """On cgroup v1 a frozen process takes no signal, and the service keeps the descriptor that freezes."""
    peer = connect(jail)
    exchange(peer, HELLO, [])
    socket.send_fds(peer, [record()], [])
    answer, fds, _, _ = socket.recv_fds(peer, 200, 16)
    mask = struct.unpack_from("<I", answer, 20)[0]
    handles = dict(zip([handle for handle in Handle if mask & 1 << handle], fds, strict=True))
    if Handle.FREEZE not in handles or Handle.EVENTS in handles:
        pytest.skip("there is no v1 freezer on this host")
    handle = struct.unpack_from("<Q", answer, 24)[0]
    for _ in range(200):
        os.write(handles[Handle.FREEZE], b"FROZEN")
        if b"FROZEN" in os.pread(handles[Handle.FREEZE], 16, 0):
            break
        time.sleep(0.01)
    peer.send(record(operation=5, sandbox=handle))
    deadline = time.monotonic() + 0.3
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            os.write(handles[Handle.FREEZE], b"FROZEN")
    assert struct.unpack_from("<i", peer.recv(200), 16)[0] == 0
    for fd in fds:
        os.close(fd)
    peer.close()
    assert not look(jail.folder).foreign


async def test_the_init_holds_nothing_of_the_jails(jail: RunningJail) -> None:
    """Seen from the host, where nothing is hidden."""
    driver = await jail.driver()
    sandbox = await create(driver)
    await sandbox.launch(python("import os, time; print(os.getpid(), flush=True); time.sleep(30)"))
    await read_line(sandbox.output)
    init = next(
        int(line.split()[1])
        for line in Path(f"/proc/self/fdinfo/{sandbox._pidfd}").read_text().splitlines()
        if line.startswith("Pid:")
    )
    children = [int(pid) for pid in Path(f"/proc/{init}/task/{init}/children").read_text().split()]
    kinds = {pid: _descriptors(pid) for pid in (init, *children)}
    assert children
    assert kinds[init] == {"0 /dev/null", "1 /dev/null", "2 /dev/null", "3 socket", "5 anon_inode"}
    assert all(kinds[pid] == {"0 /dev/null", "1 pipe", "2 pipe", "62 pipe"} for pid in children)
    await sandbox.destroy()
    await driver.close()


def _descriptors(pid: int) -> set[str]:
    return {
        f"{fd} {os.readlink(f'/proc/{pid}/fd/{fd}').split(':')[0]}" for fd in os.listdir(f"/proc/{pid}/fd")
    }


def test_folders_of_dead_jails_go_and_those_of_living_ones_stay(jail: RunningJail) -> None:
    connect(jail).close()
    status = (jail.folder / "state").stat()
    living = f"stoker.{status.st_dev:x}-{status.st_ino:x}"
    dead = RunningJail()
    dead.start()
    connect(dead).close()
    status = (dead.folder / "state").stat()
    name = f"stoker.{status.st_dev:x}-{status.st_ino:x}"
    dead.kill()
    subprocess.run(["rm", "-rf", dead.folder], check=True)
    assert _folders(name), "a killed jail leaves its folders"
    before = _folders(living)
    other = RunningJail()
    other.start()
    connect(other).close()
    other.stop()
    assert not _folders(name)
    assert before
    assert _folders(living) == before


def _folders(name: str) -> list[str]:
    return [root for root, _, _ in os.walk("/sys/fs/cgroup") if Path(root).name == name]


async def test_the_jail_still_dies_with_its_parent_after_it_borrowed_an_id() -> None:
    """A change of ids makes the kernel forget that wish; a jail without a supervisor would serve for ever."""
    if missing():
        pytest.skip(missing())
    jail = RunningJail()
    jail.prefix = ["sh", "-c", 'setpriv --pdeathsig KILL "$@" & wait', "sh"]
    jail.start()
    driver = await jail.driver()
    assert (await run(driver, shell("echo fine"))).output == "fine\n"
    assert jail.process
    pid = int(Path(f"/proc/{jail.process.pid}/task/{jail.process.pid}/children").read_text())
    jail.kill()
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists() or ") Z" in Path(f"/proc/{pid}/stat").read_text():
            break
        await asyncio.sleep(0.02)
    else:
        raise AssertionError("the jail lives on")
    await driver.close()
    jail.prefix = []
    jail.start()  # removes what the killed one left
    await (await jail.driver()).close()
    jail.stop()
