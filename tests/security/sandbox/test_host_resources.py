"""What the kernel counts for the whole host or for each user: one sandbox cannot use it up for the others."""

import asyncio
import ctypes
import os
import platform
from pathlib import Path

import pytest

from stoker.sandbox.container import ContainerDriver
from stoker.sandbox.driver import SandboxLimits
from tests.integration.sandbox.running_jail import RunningJail, create, python, read_line, run
from tests.security.sandbox.test_privilege import CALL

LIBC = ctypes.CDLL(None, use_errno=True)
SYS_TIMER_CREATE = {"x86_64": 222, "aarch64": 107}
PAGE_BYTES = os.sysconf("SC_PAGESIZE")
X86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers are x86_64's")

INOTIFY = """
import ctypes, time
libc = ctypes.CDLL(None); count = 0
while count < 900 and libc.inotify_init1(0) >= 0: count += 1
print(count, flush=True); time.sleep(30)
"""


async def test_inotify_instances_are_the_sandboxs_own(driver: ContainerDriver) -> None:
    """Counted for the owner of the user namespace as well: were that root, none would be left for the host's."""
    hogs = [await create(driver) for _ in range(2)]
    for hog in hogs:
        await hog.launch(python(INOTIFY))
    assert [int(await read_line(hog.output)) > 0 for hog in hogs] == [True, True]
    ours = LIBC.inotify_init1(os.O_CLOEXEC)
    assert ours >= 0, os.strerror(ctypes.get_errno())
    os.close(ours)
    for hog in hogs:
        await hog.destroy()


SIGNALS = """
import ctypes, os, signal, time
libc = ctypes.CDLL(None); count = 0
signal.pthread_sigmask(signal.SIG_BLOCK, [40])
while libc.sigqueue(os.getpid(), 40, None) == 0: count += 1
print(count, flush=True); time.sleep(30)
"""


async def test_queued_signals_are_the_sandboxs_own(driver: ContainerDriver) -> None:
    hog = await create(driver)
    await hog.launch(python(SIGNALS))
    assert int(await read_line(hog.output)) > 1000
    timer = ctypes.c_void_p()  # takes one of the same count
    number = SYS_TIMER_CREATE[platform.machine()]
    assert LIBC.syscall(number, 1, None, ctypes.byref(timer)) == 0, os.strerror(ctypes.get_errno())
    LIBC.syscall(number + 4, timer)  # timer_delete
    await hog.destroy()


BUFFERS = """
import os, socket, time
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); sender.setblocking(False)
for _ in range(3):
    if os.fork() == 0:
        kept = []
        for _ in range(800):
            receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
            receiver.bind(("127.0.0.1", 0)); kept.append(receiver)
            try:
                for _ in range(8): sender.sendto(bytes(60000), receiver.getsockname())
            except OSError: pass
        print("full", end="", flush=True); time.sleep(30); os._exit(0)
for _ in range(3): os.wait()
"""


async def test_socket_buffers_are_bounded(driver: ContainerDriver) -> None:
    """cgroup v1 does not count them as memory: 2,400 sockets once held 960 MB for a function of 128 MB."""
    hog = await create(driver, SandboxLimits(memory_mb=128, cpu_quota=1.0))
    before = await _settled_udp_bytes()
    await hog.launch(python(BUFFERS))
    printed = ""
    while printed.count("full") < 3:  # one read may bring the words of several
        printed += await read_line(hog.output)
    held = _udp_bytes() - before
    assert 1 << 20 < held < 128 << 20
    await hog.destroy()


async def _settled_udp_bytes() -> int:
    """The kernel takes earlier sandboxes' networks apart behind."""
    for _ in range(50):
        now = _udp_bytes()
        await asyncio.sleep(0.1)
        if _udp_bytes() == now:
            return now
    return _udp_bytes()


def _udp_bytes() -> int:
    line = next(
        line for line in Path("/proc/net/sockstat").read_text().splitlines() if line.startswith("UDP:")
    )
    return int(line.split()[-1]) * PAGE_BYTES


@X86
async def test_calls_that_reach_past_the_sandbox(driver: ContainerDriver) -> None:
    """Asynchronous I/O contexts, huge pages and the wish to hibernate are the whole host's."""
    code = CALL + (
        "context = ctypes.c_long(0)\n"
        "print('io_setup', call(206, 60000, ctypes.byref(context)))\n"
        "print('memfd_secret', call(447, 0))\n"
        "print('huge mapping', call(9, 0, 2 << 20, 3, 0x40022, -1, 0))\n"
        "print('huge memory file', call(319, b'x', 4))\n"
        "print('modify_ldt', call(154, 0, 0, 0))\n"
        "print('mapping', call(9, 0, 4096, 3, 0x22, -1, 0), 'memory file', call(319, b'x', 1))"
    )
    outcome = await run(driver, python(code))
    assert outcome.output.splitlines() == [
        "io_setup ENOSYS",
        "memfd_secret ENOSYS",
        "huge mapping ENOMEM",
        "huge memory file ENOMEM",
        "modify_ldt ENOSYS",
        "mapping REACHED memory file REACHED",
    ]


SOCKETS = """
import socket
for family in (socket.AF_INET, socket.AF_INET6):
    for kind in range(1, 11):
        for protocol in (0, 6, 17, 33, 132, 136, 262):
            try: socket.socket(family, kind, protocol).close()
            except OSError as error: kept = error.errno in (93, 97)
            else: kept = kind <= 2 and protocol in (0, 6, 17, 262)
            if not kept: print(family, kind, protocol)
print("done")
"""


async def test_no_socket_makes_the_host_load_a_module(driver: ContainerDriver) -> None:
    """Every type but stream and datagram ends at the filter; past it DCCP's module, say, would be loaded."""
    assert (await run(driver, python(SOCKETS))).output == "done\n"


def test_all_sandboxes_together_leave_process_numbers(jail: RunningJail, driver: ContainerDriver) -> None:
    status = (jail.folder / "state").stat()
    name = f"stoker.{status.st_dev:x}-{status.st_ino:x}"
    limits = [
        Path(root, "pids.max")
        for root, _, files in os.walk("/sys/fs/cgroup")
        if root.endswith(name) and "pids.max" in files
    ]
    if not limits:
        pytest.skip("there is no pids controller on this host")
    assert [
        int(limit.read_text()) <= int(Path("/proc/sys/kernel/pid_max").read_text()) // 2 for limit in limits
    ] == [True]


async def test_a_crash_runs_no_program_of_the_host(driver: ContainerDriver) -> None:
    """For a limit of 0 the kernel still runs what core_pattern names, as root and outside; for 1 byte it does not."""
    outcome = await run(driver, python("import resource; print(resource.getrlimit(resource.RLIMIT_CORE))"))
    assert outcome.output == "(1, 1)\n"
