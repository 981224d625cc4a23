"""From inside a sandbox: other sandboxes, the host's files, processes, sockets and network stay out of reach."""

import asyncio
import os
import socket
import tempfile
from pathlib import Path

import pytest

from stoker.sandbox.container import ContainerDriver
from stoker.sandbox.driver import MountPoint
from tests.integration.sandbox.running_jail import RunningJail, create, finish, python, read_all, run, shell

TRIED = """
import sys, os, socket
def attempt(action):
    try:
        action()
    except OSError as problem:
        print("refused", os.strerror(problem.errno) if problem.errno else problem)
    else:
        print("REACHED")
"""


async def test_only_its_own_processes_are_visible(driver: ContainerDriver) -> None:
    other = await create(driver)
    await other.launch(shell("exec sleep 30"))
    seen = await run(
        driver, python("import os; print(sorted(int(p) for p in os.listdir('/proc') if p.isdigit()))")
    )
    await other.destroy()
    assert seen.output.strip() == "[1, 2]"


ALL_SIGNALS = """
import os, time
if os.fork() == 0:
    time.sleep(30)
os.kill(-1, 9); os.kill(1, 9); print("alive")
"""


async def test_a_signal_to_everyone_ends_only_itself(driver: ContainerDriver) -> None:
    other = await create(driver)
    await other.launch(shell("exec sleep 30"))
    ended = await run(driver, python(ALL_SIGNALS))
    assert "alive" in ended.output
    assert other.memory_current_bytes() > 0
    other.kill()
    assert (await other.wait()).signal == 9
    await other.destroy()


async def test_tmp_is_its_own_and_gone_afterwards(driver: ContainerDriver) -> None:
    first = await create(driver)
    await first.launch(shell("echo secret > /tmp/note; ls /tmp; exec sleep 30"))
    await asyncio.sleep(0.2)
    second = await run(driver, shell("ls -A /tmp; cat /tmp/note 2>/dev/null"))
    assert second.output == ""
    first.kill()
    assert "note" in (await finish(first)).output
    third = await run(driver, shell("ls -A /tmp"))
    assert third.output == ""


WRITE = (
    TRIED
    + """
for folder in ("/", "/etc", "/usr", "/usr/local", "/var", "/var/task", "/opt", "/dev", "/var/runtime", "/proc", "/home"):
    attempt(lambda: os.close(os.open(folder + "/x", os.O_CREAT | os.O_WRONLY)))
attempt(lambda: os.chmod("/etc/passwd", 0o666))
attempt(lambda: os.unlink("/etc/passwd"))
attempt(lambda: os.chmod("/dev/null", 0o600))
attempt(lambda: os.utime("/usr/bin/env"))
attempt(lambda: os.mkdir("/dev/shm"))
open("/tmp/x", "w").write("fine"); print("tmp", open("/tmp/x").read())
"""
)


async def test_nothing_but_tmp_is_writable(driver: ContainerDriver, tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text("pass")
    os.chmod(tmp_path, 0o777)
    outcome = await run(driver, python(WRITE), mounts={MountPoint.TASK: tmp_path, MountPoint.OPT: tmp_path})
    lines = outcome.output.splitlines()
    assert lines.pop() == "tmp fine"
    assert len(lines) == 16
    assert all(line.startswith("refused") for line in lines), outcome.output
    assert [path.name for path in tmp_path.iterdir()] == ["code.py"]


async def test_the_host_has_no_other_files_inside(driver: ContainerDriver, jail: RunningJail) -> None:
    with tempfile.NamedTemporaryFile(dir="/var/tmp") as host_file:
        script = TRIED + "for path in sys.argv[1:]: attempt(lambda: os.stat(path))"
        paths = [
            host_file.name,
            str(jail.folder),
            "/root/.bashrc",
            "/etc/shadow",
            "/etc/machine-id",
            "/sys/kernel",
        ]
        outcome = await run(driver, python(script, *paths))
    assert "REACHED" not in outcome.output
    assert len(outcome.output.splitlines()) == len(paths)
    assert (
        await run(driver, shell("ls /sys /run /home /root /mnt /media /srv /boot 2>/dev/null | grep -v :"))
    ).output.strip() == ""


async def test_links_in_code_do_not_lead_outside(driver: ContainerDriver, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "host").symlink_to("/proc/1/root/root")
    (tmp_path / "up").symlink_to("../../../../../../root/.bashrc")
    outcome = await run(
        driver,
        python(
            TRIED
            + "for n in ('host','up'): attempt(lambda: os.listdir('/var/task/'+n) if n=='host' else open('/var/task/'+n))"
        ),
        mounts={MountPoint.TASK: tmp_path},
    )
    assert outcome.output.count("refused") == 2, outcome.output


CONNECT = (
    TRIED
    + """
kind, target = sys.argv[1], sys.argv[2]
def connect():
    if kind == "tcp":
        host, port = target.rsplit(":", 1)
        socket.create_connection((host, int(port)), 2)
    else:
        socket.socket(socket.AF_UNIX, getattr(socket, kind)).connect(target.replace("@", "\\0", 1))
attempt(connect)
"""
)


async def test_the_hosts_loopback_is_another_loopback(driver: ContainerDriver) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        outcome = await run(driver, python(CONNECT, "tcp", f"127.0.0.1:{port}"))
    assert outcome.output.startswith("refused"), outcome.output


async def test_without_egress_there_is_no_way_out(driver: ContainerDriver) -> None:
    outcome = await run(driver, python(CONNECT, "tcp", "192.0.2.1:80"))
    assert "unreachable" in outcome.output
    names = await run(driver, python("import socket; print([name for _, name in socket.if_nameindex()])"))
    assert names.output.strip() == "['lo']"


async def test_abstract_sockets_of_the_host_are_out_of_reach(driver: ContainerDriver) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("\0stoker-test-abstract")
        server.listen()
        outcome = await run(driver, python(CONNECT, "SOCK_STREAM", "@stoker-test-abstract"))
    assert outcome.output.startswith("refused"), outcome.output


async def test_the_jails_socket_is_out_of_reach(driver: ContainerDriver, jail: RunningJail) -> None:
    outcome = await run(driver, python(CONNECT, "SOCK_SEQPACKET", str(jail.socket_path)))
    assert outcome.output.startswith("refused No such file"), outcome.output


async def test_two_sandboxes_have_two_loopbacks(driver: ContainerDriver) -> None:
    listening = await create(driver)
    await listening.launch(
        python("import socket, time; s = socket.create_server(('127.0.0.1', 7777)); time.sleep(20)")
    )
    await asyncio.sleep(0.3)
    outcome = await run(driver, python(CONNECT, "tcp", "127.0.0.1:7777"))
    await listening.destroy()
    assert outcome.output.startswith("refused"), outcome.output


DESCRIPTORS = """
import os
for name in sorted(os.listdir("/proc/self/fd"), key=int):
    try: print(name, os.readlink("/proc/self/fd/" + name).split(":")[0])
    except OSError: pass
"""


async def test_it_inherits_no_descriptor_but_its_own(driver: ContainerDriver) -> None:
    outcome = await run(driver, python(DESCRIPTORS))
    assert outcome.output.split("\n")[:-1] == ["0 /dev/null", "1 pipe", "2 pipe", "62 pipe"], outcome.output


async def test_the_inits_descriptors_are_closed_to_the_function(driver: ContainerDriver) -> None:
    outcome = await run(
        driver,
        python(
            TRIED
            + "attempt(lambda: os.listdir('/proc/1/fd')); attempt(lambda: open('/proc/1/mem')); attempt(lambda: open('/proc/1/environ').read()); attempt(lambda: os.readlink('/proc/1/exe')); attempt(lambda: os.listdir('/proc/1/root'))"
        ),
    )
    assert outcome.output.count("refused") == 5, outcome.output


async def test_frozen_means_nothing_runs(driver: ContainerDriver) -> None:
    sandbox = await create(driver)
    await sandbox.launch(
        python(
            "import os\nif os.fork():\n  os.setsid() if os.getpid() < 0 else 0\nwhile True: os.write(1, b'x' * 100)"
        )
    )
    await asyncio.sleep(0.2)
    sandbox.freeze()
    await asyncio.sleep(0.1)
    drained = 0
    for _ in range(20):
        try:
            drained += len(os.read(sandbox.output, 1 << 20))
        except BlockingIOError:
            break
    await asyncio.sleep(0.2)
    with pytest.raises(BlockingIOError):
        os.read(sandbox.output, 1)
    assert drained > 0
    sandbox.kill()
    await asyncio.wait_for(asyncio.gather(sandbox.wait(), read_all(sandbox.output)), 5)
    await sandbox.destroy()
