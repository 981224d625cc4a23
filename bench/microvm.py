"""``python -m bench.microvm``: what a host with hardware virtualisation shows of micro-VMs, against their goals.

Everything up to a running VMM is measured on any host with /dev/kvm. Whether code of a guest runs at all is tried
with a kernel of a few instructions; a nested KVM may run that and no ordinary kernel. What could not be tried, for
want of a guest's files or because the guest does not come up, is listed as unverified.
Needs root, firecracker and jailer (--firecracker, --jailer; without them those of the tests).
"""

import argparse
import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import uvloop

from bench.percentiles import median
from stoker.core.errors import SandboxCreateError
from stoker.packaging.guest.image_cache import VmImages
from stoker.sandbox.container_connection import JailConnection
from stoker.sandbox.driver import SandboxLimits, SandboxSpec
from stoker.sandbox.firecracker import records as fc
from stoker.sandbox.firecracker.driver import FirecrackerDriver
from stoker.sandbox.firecracker.files import GuestFiles
from stoker.sandbox.firecracker.machine import machine_of
from stoker.sandbox.firecracker.snapshots import SnapshotKey, SnapshotStore, host_key
from stoker.sandbox.firecracker.vmm import JailedVmm
from tests.firecracker import FOLDER, halting_kernel, missing_for_vms, speaking_kernel
from tests.integration.firecracker.jailed import connect
from tests.integration.sandbox.running_jail import RunningJail

LIMITS = SandboxLimits(memory_mb=128, cpu_quota=1.0, tmp_mb=128)
GUEST_SAYS_WITHIN_S = 1.0


class Row(msgspec.Struct, frozen=True):
    """One line of the table. ``value`` None: unverified, ``why`` says for want of what."""

    what: str
    value: float | None
    unit: str = "ms"
    goal: str = ""
    met: bool | None = None
    n: int = 0
    why: str = ""


def under(what: str, values: Sequence[float], goal: float, unit: str = "ms") -> Row:
    """A median that should be below its goal."""
    middle = median(values)
    return Row(what, round(middle, 2), unit, f"under {goal:g} {unit}", middle < goal, len(values))


def unverified(what: str, goal: str, why: str) -> Row:
    """What this host, or this call, cannot show."""
    return Row(what, None, "", goal, None, 0, why)


class Bench:
    """One jail, and VMMs of it without any driver."""

    def __init__(self, jail: RunningJail, connection: JailConnection, folder: Path, n: int) -> None:
        self.jail, self.connection, self.folder, self.n = jail, connection, folder, n

    async def vmm(self, *files: Path) -> JailedVmm:
        """Started, its API answering."""
        fds = [os.open(path, os.O_RDWR if path.suffix == ".rw" else os.O_RDONLY) for path in files]
        try:
            limits = machine_of(LIMITS).vmm_limits
            return await JailedVmm.start(self.connection, limits, fds, egress=False, version=(1, 12, 0))
        finally:
            for fd in fds:
                os.close(fd)

    async def boot(self, vmm: JailedVmm, arguments: str = "") -> None:
        """Configured with the first file as its kernel, and started."""
        machine = machine_of(LIMITS)
        await vmm.api.put_machine_config(
            fc.MachineConfig(vcpu_count=machine.vcpus, mem_size_mib=machine.guest_memory_mib)
        )
        await vmm.api.put_boot_source(fc.BootSource(kernel_image_path="/f0", boot_args=arguments or None))
        await vmm.api.start()

    async def drop(self, vmm: JailedVmm) -> None:
        """Ended, and its descriptors with it."""
        await vmm.destroy()
        for fd in vmm.handles.values():
            os.close(fd)

    def file(self, name: str, content: bytes = b"") -> Path:
        """A file that every VMM may read, and write if its name ends in .rw."""
        path = self.folder / name
        path.write_bytes(content)
        path.chmod(0o666)
        return path


def elapsed_ms(since_s: float) -> float:
    return (time.perf_counter() - since_s) * 1000


async def guest_runs(bench: Bench) -> bool:
    """Whether code of a guest is executed at all: it says one letter to its serial port."""
    vmm = await bench.vmm(bench.file("speaks", speaking_kernel()))
    vmm.words()
    await bench.boot(vmm, "console=ttyS0")
    deadline_s = time.perf_counter() + GUEST_SAYS_WITHIN_S
    said = ""
    while "!" not in said and time.perf_counter() < deadline_s:
        await asyncio.sleep(0.01)
        said += vmm.words()
    await bench.drop(vmm)
    return "!" in said


def _overhead_mib(pid: int, guest_mib: int) -> float:
    """What is resident of a VMM outside its guest's memory, which is one mapping of just that size."""
    total_kib, skip = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if line.startswith("Size:"):
            skip = int(line.split()[1]) == guest_mib * 1024
        elif line.startswith("Rss:") and not skip:
            total_kib += int(line.split()[1])
    return total_kib / 1024


async def vmm_rows(bench: Bench) -> list[Row]:
    """What needs no guest."""
    kernel = bench.file("halts", halting_kernel())
    up, started, down, overhead, spent = [], [], [], [], []
    for _ in range(bench.n):
        begun_s, cpu_s = time.perf_counter(), _cpu_s(bench)
        vmm = await bench.vmm(kernel)
        up.append(elapsed_ms(begun_s))
        begun_s = time.perf_counter()
        await bench.boot(vmm)
        started.append(elapsed_ms(begun_s))
        overhead.append(_overhead_mib(vmm.pid, machine_of(LIMITS).guest_memory_mib))
        spent.append(_cpu_s(bench) - cpu_s + _process_cpu_s(vmm.pid))
        begun_s = time.perf_counter()
        await bench.drop(vmm)
        down.append(elapsed_ms(begun_s))
    rate = len(spent) / sum(spent)  # processes are counted in hundredths of a second: only the sum says it
    return [
        under("asked for a VM until its API answers (jail, jailer, VMM)", up, 60),
        Row("configured and started (InstanceStart answered)", round(median(started), 2), n=len(started)),
        Row("ended, and nothing left", round(median(down), 2), n=len(down)),
        under("memory of the VMM beside its guest's", overhead, 5, "MiB"),
        Row("VMMs made, for each second of CPU", round(rate, 1), "/s", "over 5 /s", rate > 5, len(spent)),
    ]


def _cpu_s(bench: Bench) -> float:
    assert bench.jail.process
    mine = time.process_time()
    return mine + _process_cpu_s(bench.jail.process.pid)


def _process_cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def restore_rows(bench: Bench) -> list[Row]:
    """A snapshot of a VM, loaded and resumed by fresh VMMs."""
    kernel, state, memory = (
        bench.file("halts", halting_kernel()),
        bench.file("state.rw"),
        bench.file("memory.rw"),
    )
    first = await bench.vmm(kernel, state, memory)
    await bench.boot(first)
    await first.api.pause()
    await first.api.create_snapshot(fc.SnapshotCreate(snapshot_path="/f1", mem_file_path="/f2"))
    await bench.drop(first)
    backend = fc.MemoryBackend(backend_type=fc.BackendType.FILE, backend_path="/f1")
    loaded = []
    for _ in range(bench.n):
        vmm = await bench.vmm(state, memory)
        begun_s = time.perf_counter()
        await vmm.api.load_snapshot(fc.SnapshotLoad(snapshot_path="/f0", mem_backend=backend, resume_vm=True))
        loaded.append(elapsed_ms(begun_s))
        await bench.drop(vmm)
    return [under("snapshot loaded and resumed", loaded, 8)]


UNVERIFIED = (
    ("boot to init (InstanceStart to the guest's hello)", "under 125 ms"),
    ("restored, until the guest's hello", ""),
    ("VMs made and up, for each second of one core", "over 5 /s"),
)


async def guest_rows(bench: Bench, guest: GuestFiles, version: fc.Version) -> list[Row]:
    """The whole way, through the driver."""
    bench.connection.close()
    container = await bench.jail.driver()
    images = VmImages(bench.folder / "images")
    await images.start()
    driver = FirecrackerDriver(
        container, guest, bench.folder / "vms", pack=images.pack, scratch=images.scratch, version=version
    )
    await driver.start()
    boots, whole, restores = [], [], []
    for number in range(bench.n):
        begun_s = time.perf_counter()
        sandbox = await driver.create(SandboxSpec(sandbox_id=f"b{number}", limits=LIMITS))
        whole.append(elapsed_ms(begun_s))
        hello = await sandbox.streams.control.hello()
        boots.append(hello.uptime_s * 1000)
        await sandbox.destroy()
    store = SnapshotStore(bench.folder / "snapshots")
    store.open()
    key = SnapshotKey("none", 128, 128, guest.version, str(version), *host_key())
    await store.write(await driver.create(SandboxSpec(sandbox_id="base", limits=LIMITS)), key)
    with store.opened(key) as files:
        for number in range(bench.n):
            begun_s = time.perf_counter()
            restored = await driver.restore(SandboxSpec(sandbox_id=f"r{number}", limits=LIMITS), files)
            restores.append(elapsed_ms(begun_s))
            await restored.destroy()
    await driver.close()
    rate = 1000 / median(whole)
    return [
        under(UNVERIFIED[0][0], boots, 125),
        Row(UNVERIFIED[1][0], round(median(restores), 2), n=len(restores)),
        Row(UNVERIFIED[2][0], round(rate, 1), "/s", "over 5 /s", rate > 5, len(whole)),
    ]


async def measure(arguments: argparse.Namespace, folder: Path) -> list[Row]:
    """Every row, in the table's order."""
    programs = ("--firecracker", str(arguments.firecracker), "--jailer", str(arguments.jailer))
    jail = RunningJail("--no-egress", *programs)
    jail.start()
    connection = await connect(jail)
    try:
        bench = Bench(jail, connection, folder, arguments.n)
        vmm = await bench.vmm(bench.file("any"))
        version = await vmm.api.get_version()
        await bench.drop(vmm)
        rows = [*await vmm_rows(bench), *await restore_rows(bench)]
        runs = await guest_runs(bench)
        rows.append(Row("a few instructions of a guest run here", float(runs), "", "yes", runs, 1))
        if not runs:
            why = "this host's KVM runs no guest: hardware virtualisation of its own is needed"
        elif not (arguments.kernel and arguments.initrd and arguments.root):
            why = "--kernel, --initrd and --root, which stoker guest build makes"
        else:
            guest = GuestFiles(arguments.kernel, arguments.initrd, arguments.root, "bench")
            try:
                return [*rows, *await guest_rows(bench, guest, version)]
            except SandboxCreateError as problem:
                why = str(problem)
        return [*rows, *(unverified(what, goal, why) for what, goal in UNVERIFIED)]
    finally:
        connection.close()
        jail.stop()


def table(rows: Sequence[Row]) -> str:
    """Markdown, as docs/microvms.md has it."""
    lines = ["| what | here | goal | |", "| --- | --- | --- | --- |"]
    for row in rows:
        if row.value is None:
            lines.append(f"| {row.what} | unverified: {row.why} | {row.goal} | |")
            continue
        value = f"{row.value:g} {row.unit}".strip() if row.unit else ("yes" if row.value else "no")
        verdict = {True: "met", False: "missed", None: ""}[row.met]
        lines.append(f"| {row.what} | {value} (n = {row.n}) | {row.goal} | {verdict} |")
    return "\n".join(lines)


def main() -> int:
    """0 when every goal that could be tried was met, 1 when one was missed, 2 when nothing could be tried."""
    parser = argparse.ArgumentParser(prog="bench.microvm", description=__doc__)
    for name in ("firecracker", "jailer"):
        parser.add_argument(f"--{name}", type=Path, default=FOLDER / name)
    for name in ("kernel", "initrd", "root"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("-n", type=int, default=20, help="how often each is measured")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if missing := missing_for_vms():
        sys.stderr.write(f"nothing can be measured here: {missing}\n")
        return 2
    folder = Path(tempfile.mkdtemp(prefix="stoker-bench-microvm-", dir="/var/tmp"))
    try:
        rows = uvloop.run(measure(arguments, folder))
    finally:
        shutil.rmtree(folder)
    sys.stdout.write((json.dumps(msgspec.to_builtins(rows)) if arguments.json else table(rows)) + "\n")
    return int(any(row.met is False for row in rows))


if __name__ == "__main__":
    sys.exit(main())
