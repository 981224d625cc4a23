"""A real Firecracker behind its real jailer, started by stoker-jail: verified from outside, and gone afterwards."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from stoker.sandbox.container_connection import JailConnection
from stoker.sandbox.container_protocol import Handle, Operation
from stoker.sandbox.firecracker import records as fc
from stoker.sandbox.firecracker.faults import VmmRefused, VmmUnreachable
from tests.firecracker import missing_for_vms, vm_jail
from tests.integration.firecracker.jailed import LIMITS, connect, gone, kernel_file, start_vm
from tests.integration.sandbox.running_jail import RunningJail, look

pytestmark = pytest.mark.skipif(bool(missing_for_vms()), reason=missing_for_vms() or "nothing")

ID_BASE = 0x20000000
REPEATS = 50


@pytest.fixture
def jail() -> Iterator[RunningJail]:
    running = vm_jail()
    running.start()
    yield running
    assert not look(running.folder).foreign
    running.stop()


@pytest.fixture
async def connection(jail: RunningJail) -> AsyncIterator[JailConnection]:
    made = await connect(jail)
    yield made
    made.close()


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[int]:
    with kernel_file(tmp_path) as fd:
        yield fd


def status(path: Path) -> dict[str, str]:
    lines = (line.partition(":") for line in path.read_text().splitlines())
    return {name: value.strip() for name, _, value in lines}


async def test_what_the_vmm_is_seen_from_outside(connection: JailConnection, kernel: int) -> None:
    vm = await start_vm(connection, [kernel])
    await vm.boot()
    for task in sorted(vm.proc.glob("task/*")):
        seen = status(task / "status")
        uids, gids = set(seen["Uid"].split()), set(seen["Gid"].split())
        assert len(uids) == 1
        assert uids == gids
        assert (int(uids.pop()) - ID_BASE) % 65536 == 993
        assert seen["Groups"] == ""
        assert {seen[name] for name in ("CapInh", "CapPrm", "CapEff")} == {"0" * 16}
        assert seen["Seccomp"] == "2", seen["Name"]
        assert seen["NSpid"].split()[1:] != []
    assert len(list(vm.proc.glob("task/*"))) >= 3  # the VMM, its API, one vCPU
    for kind in ("mnt", "net", "ipc", "uts", "pid"):
        assert os.readlink(vm.proc / "ns" / kind) != os.readlink(f"/proc/self/ns/{kind}"), kind
    assert "/stoker." in (vm.proc / "cgroup").read_text()
    limits = (vm.proc / "limits").read_text()
    assert "Max file size             209715200            209715200" in limits
    assert "Max open files            256                  256" in limits
    assert (vm.proc / "environ").read_bytes().strip(b"\0") == b""
    await vm.destroy()
    await gone(vm.pid)


async def test_its_root_holds_nothing_else(connection: JailConnection, kernel: int) -> None:
    vm = await start_vm(connection, [kernel])
    root = vm.proc / "root"
    names = {name for name in os.listdir(root) if not name.startswith("f")}
    assert names == {"dev", "run", "sockets"}
    assert {path.name for path in (root / "dev").iterdir()} <= {"kvm", "net", "urandom", "userfaultfd"}
    mounts = [line.split() for line in (vm.proc / "mountinfo").read_text().splitlines()]
    assert [line[4] for line in mounts] == ["/", "/f0"]
    assert mounts[1][5].startswith("ro,nosuid,nodev,noexec")
    targets = {os.readlink(fd) for fd in (vm.proc / "fd").iterdir()}
    kinds = {target.partition(":")[0].rstrip("0123456789") for target in targets}
    assert kinds <= {"/null", "pipe", "anon_inode", "socket", "/dev/kvm", "/dev/null"}, targets
    await vm.destroy()


async def test_every_vm_has_ids_and_namespaces_of_its_own(connection: JailConnection, kernel: int) -> None:
    vms = [await start_vm(connection, [kernel]) for _ in range(3)]
    assert len({status(vm.proc / "status")["Uid"].split()[0] for vm in vms}) == 3
    for kind in ("mnt", "net", "pid"):
        assert len({os.readlink(vm.proc / "ns" / kind) for vm in vms}) == 3
    await asyncio.gather(*(vm.destroy() for vm in vms))


async def test_files_are_what_their_descriptors_allow(
    connection: JailConnection, kernel: int, tmp_path: Path
) -> None:
    (tmp_path / "scratch").write_bytes(bytes(1 << 20))
    (tmp_path / "scratch").chmod(0o666)
    with (tmp_path / "scratch").open("r+b") as scratch, (tmp_path / "scratch").open("rb") as shut:
        vm = await start_vm(connection, [kernel, scratch.fileno(), shut.fileno()])
        writable = fc.Drive(drive_id="a", is_root_device=False, path_on_host="/f1", is_read_only=False)
        await vm.api.put_drive(writable)
        refused = fc.Drive(drive_id="b", is_root_device=False, path_on_host="/f2", is_read_only=False)
        with pytest.raises(VmmRefused):
            await vm.api.put_drive(refused)
        with pytest.raises(VmmRefused):  # nothing of the host is there
            await vm.api.put_drive(
                fc.Drive(drive_id="c", is_root_device=False, path_on_host="/etc/hostname", is_read_only=True)
            )
    await vm.destroy()


async def test_files_can_come_later(connection: JailConnection, kernel: int, tmp_path: Path) -> None:
    for name in ("empty", "code"):
        (tmp_path / name).write_bytes(bytes(4096))
    with (tmp_path / "empty").open("rb") as empty, (tmp_path / "code").open("rb") as code:
        vm = await start_vm(connection, [kernel, empty.fileno()])
        await vm.api.put_drive(
            fc.Drive(drive_id="task", is_root_device=False, path_on_host="/f1", is_read_only=True)
        )
        await vm.boot()
        answer = await connection.request(
            Operation.VM_FILES, sandbox=vm.answer.sandbox, files=[code.fileno()]
        )
        assert (answer.status, answer.count) == (0, 2)
        await vm.api.patch_drive(fc.DriveUpdate(drive_id="task", path_on_host="/f2"))
        more = [code.fileno()] * 10
        statuses = [
            (await connection.request(Operation.VM_FILES, sandbox=vm.answer.sandbox, files=more)).status
            for _ in range(3)
        ]
        assert statuses[:2] == [0, 0]
        assert statuses[2] < 0  # every place is taken
    await vm.destroy()


async def test_folders_and_devices_are_no_files(connection: JailConnection, kernel: int) -> None:
    for path in ("/", "/dev/null"):
        fd = os.open(path, os.O_RDONLY)
        answer = await connection.request(Operation.VM, limits=LIMITS, files=[kernel, fd])
        os.close(fd)
        assert (answer.status, answer.stage) == (-22, "cloning files")


async def test_a_snapshot_is_taken_and_restored(
    connection: JailConnection, kernel: int, tmp_path: Path
) -> None:
    names = ("state", "memory")
    for name in names:
        (tmp_path / name).touch()
        (tmp_path / name).chmod(0o666)
    with (tmp_path / "state").open("r+b") as state, (tmp_path / "memory").open("r+b") as memory:
        first = await start_vm(connection, [kernel, state.fileno(), memory.fileno()])
        await first.boot()
        await first.api.pause()
        await first.api.create_snapshot(fc.SnapshotCreate(snapshot_path="/f1", mem_file_path="/f2"))
        assert (await first.api.describe()).state is fc.InstanceState.PAUSED
        await first.destroy()
    assert (tmp_path / "memory").stat().st_size == 128 << 20
    with (tmp_path / "state").open("rb") as state, (tmp_path / "memory").open("rb") as memory:
        again = await start_vm(connection, [state.fileno(), memory.fileno()])
        backend = fc.MemoryBackend(backend_type=fc.BackendType.FILE, backend_path="/f1")
        await again.api.load_snapshot(
            fc.SnapshotLoad(snapshot_path="/f0", mem_backend=backend, resume_vm=True)
        )
        assert (await again.api.describe()).state is fc.InstanceState.RUNNING
        await again.destroy()


async def test_an_ordinary_service_reaches_the_sockets_and_nobody_else(tmp_path: Path) -> None:
    jail = vm_jail(peer_uid=65534)
    jail.start()
    code = f"""
import asyncio, os
from ipaddress import IPv4Address
from pathlib import Path
from tests.integration.firecracker.jailed import connect, start_vm
class Jail:
    socket_path = Path({str(jail.socket_path)!r})
async def main():
    connection = await connect(Jail())
    fd = os.open("/etc/passwd", os.O_RDONLY)
    vm = await start_vm(connection, [fd])
    print((await vm.api.describe()).state)
    import socket
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(vm.sockets / "v_5000"))
    print(oct(os.stat(vm.sockets).st_mode), os.stat(vm.sockets).st_gid)
    await vm.destroy()
asyncio.run(main())
"""
    try:
        said = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", code],
            user=65534,
            group=65534,
            extra_groups=[],
            capture_output=True,
            text=True,
            check=False,
            cwd=Path(__file__).parents[3],
            env={"PYTHONPATH": ".:src", "PATH": "/usr/bin", "PYTHONDONTWRITEBYTECODE": "1"},
        )
        assert said.stdout.splitlines() == ["Not started", "0o42770 65534"], said.stderr
    finally:
        jail.stop()


async def test_programs_that_others_can_change_are_refused(tmp_path: Path) -> None:
    folder = Path("/var/tmp/stoker-test-firecracker-1.12.1")
    loose = tmp_path / "firecracker"
    shutil.copy(folder / "firecracker", loose)
    loose.chmod(0o777)
    jail = RunningJail("--no-egress", "--firecracker", str(loose), "--jailer", str(folder / "jailer"))
    jail.start()
    connection = await connect(jail)
    fd = os.open("/etc/hostname", os.O_RDONLY)
    answer = await connection.request(Operation.VM, limits=LIMITS, files=[fd])
    os.close(fd)
    assert answer.status == -95
    assert "programs that only root can change" in jail.log()
    connection.close()
    jail.stop()


# --- the network -------------------------------------------------------------------------------------------------


def _guest(vm_pid: int, code: str) -> str:
    """Runs this Python as if it were the guest: ``tap`` is its end of the cable."""
    head = """
import fcntl, os, socket, struct, select, time
tap = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(tap, 0x400454CA, struct.pack("16sH22s", b"tap0", 0x5002, b""))
MAC = b"\\x06\\x00\\x00\\x00\\x00\\x01"
def send(frame): os.write(tap, bytes(10) + frame)
def receive(wanted, seconds=3.0):
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if select.select([tap], [], [], left)[0]:
            frame = os.read(tap, 4096)[10:]
            if wanted(frame): return frame
    return b""
def total(data):
    data += b"\\0" * (len(data) % 2)
    value = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while value >> 16: value = (value & 0xffff) + (value >> 16)
    return ~value & 0xffff
"""
    done = subprocess.run(
        ["nsenter", "-t", str(vm_pid), "-n", sys.executable, "-c", head + code],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return done.stdout.strip()


GUEST = """
def arp(target):
    ask = b"\\xff" * 6 + MAC + b"\\x08\\x06" + struct.pack("!HHBBH", 1, 0x800, 6, 4, 1)
    send(ask + MAC + ADDRESS + bytes(6) + target)
    answer = receive(lambda f: f[12:14] == b"\\x08\\x06" and f[20:22] == b"\\0\\x02" and f[28:32] == target)
    return answer[22:28]
way = arp(GATEWAY)
def answer_arp(frame):
    if frame[12:14] == b"\\x08\\x06" and frame[20:22] == b"\\0\\x01" and frame[38:42] == ADDRESS:
        back = frame[6:12] + MAC + b"\\x08\\x06" + struct.pack("!HHBBH", 1, 0x800, 6, 4, 2)
        send(back + MAC + ADDRESS + frame[22:28] + frame[28:32])
def tcp(target, port):
    part = struct.pack("!HHIIBBHHH", 40000, port, 1, 0, 0x50, 2, 1024, 0, 0)
    pseudo = ADDRESS + target + struct.pack("!BBH", 0, 6, len(part))
    part = part[:16] + struct.pack("!H", total(pseudo + part)) + part[18:]
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 40, 1, 0, 64, 6, 0, ADDRESS, target)
    head = head[:10] + struct.pack("!H", total(head)) + head[12:]
    send(way + MAC + b"\\x08\\x00" + head + part)
    def wanted(frame):
        answer_arp(frame)
        return frame[12:14] == b"\\x08\\x00" and frame[26:30] == target and frame[23] == 6
    answer = receive(wanted)
    return "reset" if answer and answer[47] & 4 else "open" if answer else "nothing"
"""


async def test_a_guest_has_its_address_and_reaches_neither_metadata_nor_host(kernel: int) -> None:
    jail = vm_jail("--egress-range=169.254.64.0/18")
    jail.start()
    connection = await connect(jail)
    try:
        features = (await connection.request(Operation.HELLO)).features
        if "EGRESS_READY" not in str(features) and not features & 0x10:
            pytest.skip("nftables and NAT, which egress needs")
        vm = await start_vm(connection, [kernel], egress=True)
        address, gateway = vm.answer.address, vm.answer.gateway
        own = f"ADDRESS, GATEWAY = socket.inet_aton({address!r}), socket.inet_aton({gateway!r})\n"
        tries = "print(len(way), *(tcp(socket.inet_aton(a), p) for a, p in TRIES))"
        where = [("169.254.169.254", 80), (gateway, 22), ("10.0.0.1", 80), ("169.254.64.77", 80)]
        said = await asyncio.to_thread(_guest, vm.pid, own + GUEST + f"TRIES = {where!r}\n" + tries)
        assert said == "6 reset reset reset reset"
        await vm.destroy()
    finally:
        connection.close()
        jail.stop()


# --- nothing is left -----------------------------------------------------------------------------------------------


async def test_vms_up_and_down_leave_nothing(
    jail: RunningJail, connection: JailConnection, kernel: int
) -> None:
    before, descriptors = look(jail.folder), len(os.listdir("/proc/self/fd"))
    held = _descriptors(jail)
    for turn in range(REPEATS // 5):
        vms = await asyncio.gather(*(start_vm(connection, [kernel]) for _ in range(5)))
        if turn % 2:
            await asyncio.gather(*(vm.boot() for vm in vms))
        await asyncio.gather(*(vm.destroy() for vm in vms))
    assert (await connection.request(Operation.COUNT)).count == 0
    assert look(jail.folder)._replace(links=before.links) == before  # others have links too
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert _descriptors(jail) == held
    assert os.listdir(jail.folder / "state" / "vm") == []


def _descriptors(jail: RunningJail) -> int:
    assert jail.process
    return len(os.listdir(f"/proc/{jail.process.pid}/fd"))


@pytest.mark.parametrize("state", ["api up", "running", "paused"])
@pytest.mark.parametrize("victim", ["vmm", "jail", "service"])
async def test_kill_9_leaves_nothing(kernel: int, victim: str, state: str) -> None:
    jail = vm_jail("--egress-range=169.254.64.0/18")
    jail.start()
    connection = await connect(jail)
    vm = await start_vm(connection, [kernel], egress=True)
    link = Path("/sys/class/net") / _link_of(vm.answer.address)
    assert link.exists()
    if state != "api up":
        await vm.boot()
    if state == "paused":
        await vm.api.pause()
    if victim == "vmm":
        os.kill(vm.pid, signal.SIGKILL)
        await _readable(vm.answer.handles[Handle.PIDFD])
        with pytest.raises(VmmUnreachable):
            await vm.api.describe()
        await vm.destroy()
    elif victim == "service":
        connection.close()
    else:
        jail.kill()
        connection.close()
        jail.start()
        connection = await connect(jail)
    await gone(vm.pid)
    if victim != "vmm":
        await vm.api.close()
        vm.close()
    connection.close()
    deadline_s = time.monotonic() + 5
    while time.monotonic() < deadline_s and (look(jail.folder).cgroups or link.exists()):
        await asyncio.sleep(0.05)
    world = look(jail.folder)
    assert (world.cgroups, world.foreign) == (frozenset(), frozenset())
    assert not link.exists()
    assert os.listdir(jail.folder / "state" / "vm") == []
    jail.stop()


def _link_of(address: str) -> str:
    """An eighth of the range for each instance; its first address is the gateway's."""
    offset = int(IPv4Address(address)) - int(IPv4Address("169.254.64.0"))
    return f"stk{offset // 2048}-{offset % 2048 - 2}"


async def _readable(fd: int) -> None:
    ready = asyncio.Event()
    asyncio.get_running_loop().add_reader(fd, ready.set)
    await asyncio.wait_for(ready.wait(), 5)
    asyncio.get_running_loop().remove_reader(fd)
