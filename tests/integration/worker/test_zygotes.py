"""Zygotes over real jails: what their children cannot reach, what they are, and what happens when they die."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from stoker.runtimes.catalog import RuntimeCatalog
from stoker.sandbox.container import ContainerDriver
from stoker.sandbox.guarded import GuardedDriver
from stoker.worker import zygotes as zygotes_module
from stoker.worker.zygotes import Zygote
from tests.integration.sandbox.running_jail import RunningJail, missing
from tests.integration.worker.conftest import NATIVE, open_to_sandboxes
from tests.integration.worker.test_agent import RUNTIME
from tests.integration.worker.test_pool import FILLED_WITHIN_S, Pools, processes_in

NAMESPACES = ("mnt", "net", "pid", "user", "ipc", "uts", "cgroup")
SEVEN = "def handler(event, context): return 7"


@pytest.fixture
async def pools(jail_socket: Path, tmp_path: Path, forking: RuntimeCatalog) -> AsyncIterator[Pools]:
    open_to_sandboxes(tmp_path)
    driver = GuardedDriver(ContainerDriver(jail_socket))
    await driver.start()
    pools = Pools(tmp_path, driver, forking, zygotes=True)
    await pools.fill(RUNTIME, 2)
    yield pools
    await pools.agent.close(0)
    await pools.plain.close(0)
    assert pools.agent.statistics.zygotes == 0
    await driver.close()


def zygotes(pools: Pools) -> list[Zygote]:
    pool = pools.agent._pool
    assert pool is not None
    assert pool._zygotes is not None
    return list(pool._zygotes._alive)


def init_of(zygote: Zygote) -> int:
    pidfd = zygote.sandbox._inner._pidfd
    return int(Path(f"/proc/self/fdinfo/{pidfd}").read_text().partition("Pid:\t")[2].split()[0])


def process_of(zygote: Zygote) -> Path:
    """The interpreter, which is the only child of the init in its sandbox."""
    init = init_of(zygote)
    (child,) = Path(f"/proc/{init}/task/{init}/children").read_text().split()
    return Path("/proc", child)


def status(process: Path) -> dict[str, str]:
    lines = (line.partition(":") for line in (process / "status").read_text().splitlines())
    return {name: value.strip() for name, _, value in lines}


def processes_of(uid: str) -> list[str]:
    """All of the host that run as this uid."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if uid in status(process)["Uid"].split():
                found.append(process.name)
        except OSError:
            continue
    return found


async def test_a_zygote_holds_no_privilege(pools: Pools) -> None:
    (zygote,) = zygotes(pools)
    process = process_of(zygote)
    found = status(process)
    assert {found[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert (found["NoNewPrivs"], found["Seccomp"], found["Groups"]) == ("1", "2", "")
    (uid,) = set(found["Uid"].split())
    assert sorted(processes_of(uid)) == sorted([process.name, str(init_of(zygote))])
    assert (process / "mem").stat().st_uid == 0  # not dumpable: nobody but root may look into it
    assert list((process / "root/proc").iterdir()) == []
    for name in ("mnt", "net", "ipc", "uts"):
        assert os.readlink(process / "ns" / name) != os.readlink(f"/proc/self/ns/{name}")
    inside = (process / "net/dev").read_text().splitlines()[2:]
    assert [line.split(":")[0].strip() for line in inside] == ["lo"]
    assert sorted(map(int, os.listdir(process / "fd"))) == [0, 1, 2, 61, 62]
    assert b"AWS_SECRET" not in (process / "environ").read_bytes()


async def test_a_child_is_its_sandboxs_own(pools: Pools) -> None:
    (zygote,) = zygotes(pools)
    children = processes_in(pools)
    assert len(children) == 2
    uids = set()
    for child in children:
        found = status(child)
        init = Path("/proc", found["PPid"])
        assert (init / "comm").read_text() == "init\n"
        for name in NAMESPACES:
            assert os.readlink(child / "ns" / name) == os.readlink(init / "ns" / name)
            if name != "cgroup":  # of which a zygote has none of its own
                assert os.readlink(child / "ns" / name) != os.readlink(process_of(zygote) / "ns" / name)
        assert (child / "cgroup").read_text() == (init / "cgroup").read_text()
        assert found["Uid"] == status(init)["Uid"]
        assert (found["NSpid"].split()[-1], found["NoNewPrivs"], found["Seccomp"]) == ("2", "1", "2")
        assert {found[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
        assert sorted(map(int, os.listdir(child / "fd"))) == [0, 1, 2, 3, 62]
        uids.add(found["Uid"])
    assert len(uids | {status(process_of(zygote))["Uid"]}) == 3


async def test_siblings_share_pages(pools: Pools) -> None:
    """More than half of what a launched process has for itself alone."""
    children = processes_in(pools)
    for child in children:
        kib = {
            line.split(":")[0]: int(line.split()[1])
            for line in (child / "smaps_rollup").read_text().splitlines()[1:]
        }
        assert kib["Private_Dirty"] < kib["Shared_Dirty"]
    for pooled in pools.agent._pool._ready[RUNTIME]:
        sandbox = pooled.environment.sandbox
        # "Max Memory Used" counts the shared pages, what a pool costs does not.
        assert sandbox.memory_peak_bytes() > sandbox.memory_current_bytes() + (1 << 20)


REACH = """
import ctypes, errno, os, signal, socket
LIBC = ctypes.CDLL(None, use_errno=True)
def tried(call, *arguments):
    ctypes.set_errno(0)
    result = call(*arguments)
    return [result, errno.errorcode.get(ctypes.get_errno(), "")]
def opened(path):
    try:
        os.close(os.open(path, os.O_RDONLY))
        return "opened"
    except OSError as problem:
        return errno.errorcode[problem.errno]
def handler(event, context):
    init = LIBC.syscall(434, 1, 0)
    signalled = os.kill(1, signal.SIGUSR1)
    return {
        "setns": [tried(LIBC.setns, init, 0x10000000), tried(LIBC.setns, init, 0x7e020000)],
        "clone3": tried(LIBC.syscall, 435, 0, 0),
        "unshare": tried(LIBC.unshare, 0x10000000),
        "ptrace": [tried(LIBC.ptrace, 16, 1, 0, 0), tried(LIBC.ptrace, 0, 0, 0, 0)],
        "pidfd_getfd": tried(LIBC.syscall, 438, init, 3, 0),
        "setuid": [tried(LIBC.setresuid, uid, uid, uid) for uid in (0, 65534)],
        "pids": sorted(int(name) for name in os.listdir("/proc") if name.isdigit()) == sorted({1, os.getpid()}),
        "init": [opened("/proc/1/mem"), opened("/proc/1/environ"), opened("/proc/1/ns/user"), opened("/proc/1/fd/3")],
        "zygote": [name for name in ("gc", "stoker_zygote", "stoker_runtime.zygote") if name in __import__("sys").modules],
        "module": hasattr(__import__("stoker_runtime"), "zygote"),
        "channel": [tried(LIBC.fcntl, fd, 1)[1] for fd in (61, 60, 63, 100)],
        "parent": os.getppid(),
        "all": [opened(f"/proc/{pid}/mem") for pid in (0, 3, 30000)],
    }
"""


async def test_a_child_reaches_neither_zygote_nor_siblings(pools: Pools) -> None:
    found = (await pools.first(pools.agent, pools.source(RUNTIME, REACH)))[0]
    assert pools.agent.statistics.pool_hits == 1
    refused = [-1, "EPERM"]
    assert found["setns"] == [refused, refused]
    assert found["clone3"] == [-1, "ENOSYS"]
    assert found["unshare"] == refused
    assert found["ptrace"] == [refused, refused]
    assert found["pidfd_getfd"] == refused
    assert found["setuid"] == [refused, refused]
    assert found["pids"] is True
    assert found["init"] == ["EACCES"] * 4
    assert (found["zygote"], found["module"]) == ([], False)
    assert found["channel"] == ["EBADF"] * 4
    assert found["parent"] == 1
    assert found["all"] == ["ENOENT"] * 3


async def test_a_late_call_for_adoption_changes_nothing(pools: Pools) -> None:
    """The signal by which a forked process makes itself known is only heard once."""
    text = (
        "import os, signal, time\n"
        "def handler(event, context):\n"
        "    if os.fork() == 0:\n"
        "        os.kill(1, signal.SIGUSR1)\n"
        "        os._exit(5)\n"
        "    time.sleep(0.1)\n"
        "    os._exit(9)\n"
    )
    died, error, _ = await pools.first(pools.agent, pools.source(RUNTIME, text))
    assert error == "Unhandled"
    assert died["errorMessage"].endswith("Runtime exited with error: exit status 9")


@pytest.mark.parametrize("victim", ["interpreter", "init"])
async def test_a_killed_zygote_is_made_good(
    pools: Pools, victim: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zygotes_module, "RETRY_FIRST_S", 0.5)
    (zygote,) = zygotes(pools)
    (uid,) = set(status(process_of(zygote))["Uid"].split())
    statistics = pools.agent.statistics
    forks = statistics.zygote_forks
    os.kill(int(process_of(zygote).name) if victim == "interpreter" else init_of(zygote), 9)
    async with asyncio.timeout(5):
        while processes_of(uid) or statistics.zygote_failures == 0 or statistics.zygotes:
            await asyncio.sleep(0.01)
    # What it forked before goes on.
    assert (await pools.first(pools.agent, pools.source(RUNTIME, SEVEN)))[0] == 7
    assert statistics.pool_hits == 1
    await asyncio.sleep(0.5)
    await pools.fill(RUNTIME, 2)
    assert (await pools.first(pools.agent, pools.source(RUNTIME, SEVEN)))[0] == 7
    async with asyncio.timeout(FILLED_WITHIN_S):
        while statistics.zygote_forks == forks:
            await asyncio.sleep(0.01)
    assert zygotes(pools)[0] is not zygote
    assert statistics.zygote_failures == 1


async def test_an_interpreter_that_cannot_fork_is_launched(
    jail_socket: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A module that does not load there: another C library, or objects of another layout."""
    open_to_sandboxes(tmp_path)
    folder = tmp_path_factory.mktemp("broken")
    open_to_sandboxes(folder)
    (folder / "module.so").write_bytes(b"\x7fELF nothing")
    catalog = RuntimeCatalog(prepared_dir=folder / "prepared", zygote_module=folder / "module.so")
    driver = GuardedDriver(ContainerDriver(jail_socket))
    await driver.start()
    pools = Pools(tmp_path, driver, catalog, zygotes=True)
    try:
        await pools.fill(RUNTIME, 2)
        assert pools.agent.statistics.zygote_forks == 0
        assert pools.agent.statistics.zygote_failures >= 1
        assert (await pools.first(pools.agent, pools.source(RUNTIME, SEVEN)))[0] == 7
        assert pools.agent.statistics.pool_hits == 1
    finally:
        await pools.agent.close(0)
        await driver.close()


async def test_zygotes_come_back_with_their_jail(tmp_path: Path, forking: RuntimeCatalog) -> None:
    if missing():
        pytest.skip(missing())
    open_to_sandboxes(tmp_path)
    jail = RunningJail("--no-egress", "--id-base", str(0x6D000000), program=NATIVE / "stoker-jail")
    jail.start()
    driver = GuardedDriver(await jail.driver())
    pools = Pools(tmp_path, driver, forking, zygotes=True)
    try:
        await pools.fill(RUNTIME, 2)
        (old,) = zygotes(pools)
        (uid,) = set(status(process_of(old))["Uid"].split())
        jail.kill()
        async with asyncio.timeout(5):
            while processes_of(uid):  # it sees the end of its channel
                await asyncio.sleep(0.01)
        jail.start()
        forks = pools.agent.statistics.zygote_forks
        async with asyncio.timeout(FILLED_WITHIN_S):
            while pools.agent.statistics.zygote_forks < forks + 2:
                await asyncio.sleep(0.01)
        assert old not in zygotes(pools)
        assert (await pools.first(pools.agent, pools.source(RUNTIME, SEVEN)))[0] == 7
    finally:
        await pools.agent.close(0)
        await driver.close()
        jail.stop()
