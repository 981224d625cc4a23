"""The firecracker driver over the real jail, jailer and Firecracker, up to a VM that runs.

What no test here shows: that a guest boots, mounts and runs a process. A guest kernel needs hardware virtualisation
of its own; ``PretendGuest`` says the guest's words instead. bench/microvm shows the rest on a host that has it.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from stoker.core.errors import LaunchRefused, SandboxCreateError, SandboxDied, SandboxError
from stoker.packaging.guest.image_cache import VmImages
from stoker.sandbox.container_launch import ReportKind
from stoker.sandbox.driver import Exit, Launch, MountPoint, SandboxLimits, SandboxSpec
from stoker.sandbox.firecracker import watchdog
from stoker.sandbox.firecracker.driver import FirecrackerDriver
from stoker.sandbox.firecracker.files import GuestFiles
from stoker.sandbox.firecracker.sandbox import FirecrackerSandbox
from stoker.sandbox.firecracker.snapshots import SnapshotBroken, SnapshotKey, SnapshotStore, host_key
from stoker.sandbox.guarded import GuardedDriver
from stoker.sandbox.guest.contract import PORT_OUTPUT, PORT_TELEMETRY, Answer, Order
from tests.firecracker import VERSION, halting_kernel, missing_for_vms, vm_jail
from tests.integration.firecracker.jailed import gone
from tests.integration.firecracker.pretend_guest import PretendGuest
from tests.integration.sandbox.running_jail import RunningJail, look

pytestmark = pytest.mark.skipif(bool(missing_for_vms()), reason=missing_for_vms() or "nothing")

LIMITS = SandboxLimits(memory_mb=128, cpu_quota=0.07, tmp_mb=64)
LAUNCH = Launch(("/bin/true",), {"A": "b"})


class Stage:
    """A driver with a guest's files."""

    def __init__(self, jail: RunningJail, driver: FirecrackerDriver, folder: Path) -> None:
        self.jail, self.driver, self.folder = jail, driver, folder
        self._made = 0

    def spec(self, **fields: Any) -> SandboxSpec:
        self._made += 1
        return SandboxSpec(sandbox_id=f"vm{self._made}", limits=LIMITS, **fields)

    async def up(self, **fields: Any) -> tuple[FirecrackerSandbox, PretendGuest]:
        guest = PretendGuest(self.driver)
        return await self.driver.create(self.spec(**fields)), guest

    def image(self, name: str) -> Path:
        (self.folder / name).write_bytes(name.encode().ljust(4096, b"\0"))
        return self.folder / name


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    jail = vm_jail()
    jail.start()
    (tmp_path / "vmlinux").write_bytes(halting_kernel())
    for name in ("initrd", "root"):
        (tmp_path / name).write_bytes(bytes(4096))
    guest = GuestFiles(tmp_path / "vmlinux", tmp_path / "initrd", tmp_path / "root", "1")
    container = await jail.driver()
    images = VmImages(tmp_path / "images")
    await images.start()
    driver = FirecrackerDriver(
        container, guest, tmp_path / "vms", pack=images.pack, scratch=images.scratch, version=VERSION
    )
    assert (await driver.start()).name == "firecracker"
    before = look(jail.folder)._replace(links=frozenset())
    descriptors = len(os.listdir("/proc/self/fd"))
    yield Stage(jail, driver, tmp_path)
    await driver.close()
    assert look(jail.folder)._replace(links=frozenset()) == before
    assert len(os.listdir("/proc/self/fd")) <= descriptors
    jail.stop()


async def test_a_vm_is_what_the_guest_expects(stage: Stage) -> None:
    task = stage.image("code")
    sandbox, guest = await stage.up(mounts={MountPoint.TASK: task})
    made = await sandbox.vmm.api.configuration()
    names = ["root", "scratch", "task", "opt", "runtime", "lang", "code_cache"]
    assert [drive["drive_id"] for drive in made["drives"]] == names
    assert [drive["is_read_only"] for drive in made["drives"]] == [name != "scratch" for name in names]
    assert made["machine-config"]["vcpu_count"] == 1
    assert made["machine-config"]["mem_size_mib"] == 192
    assert made["machine-config"]["smt"] is False
    assert "stoker.link=vsock" in made["boot-source"]["boot_args"]
    assert "ttyS0" not in made["boot-source"]["boot_args"]
    assert made["balloon"]["deflate_on_oom"] is True
    assert made["entropy"]["rate_limiter"]["bandwidth"]["size"] > 0
    assert made["network-interfaces"] == []
    assert guest.names() == ["ENTROPY", "CLOCK", "LIMITS", "MOUNT"]
    assert guest.orders[-1][1] == 0b111  # root, scratch, task
    assert (Path(f"/proc/{sandbox.vmm.pid}/root/f4").read_bytes()).startswith(b"code\0")
    assert list((stage.folder / "vms").glob("scratch-*")) == []
    layers = sandbox.layers()
    assert (layers["kernel"], layers["vmm_pid"]) == ("6.1.0-pretend", str(sandbox.vmm.pid))
    assert "capabilities 0000000000000000" in layers["jail"]
    assert layers["seccomp"].startswith("seccomp filter")
    await sandbox.destroy()
    await guest.stop()


async def test_launch_output_and_exit(stage: Stage) -> None:
    sandbox, guest = await stage.up()
    await sandbox.launch(LAUNCH)
    assert guest.names()[-1] == "LAUNCH"
    assert b"/bin/true\0A=b\0" in guest.orders[-1][2]
    guest.write(PORT_OUTPUT, b"out")
    guest.write(PORT_TELEMETRY, b"frame")
    guest.memory(40 << 20, 42 << 20, 0)
    guest.report(ReportKind.EXITED, 3)
    await asyncio.sleep(0.1)
    assert "POWER_OFF" not in guest.names()  # somebody is still to read
    assert os.read(sandbox.output, 100) == b"out"
    assert os.read(sandbox.telemetry, 100) == b"frame"
    await guest.told(Order.POWER_OFF)
    assert (sandbox.memory_current_bytes(), sandbox.memory_peak_bytes()) == (40 << 20, 42 << 20)
    os.kill(sandbox.vmm.pid, signal.SIGKILL)  # what a guest does that powers off
    assert await sandbox.wait() == Exit(status=3, signal=None)
    with pytest.raises(SandboxError):
        await sandbox.launch(LAUNCH)
    await sandbox.destroy()
    await guest.stop()


async def test_a_refused_launch_says_why(stage: Stage) -> None:
    sandbox, guest = await stage.up()
    guest.errors[Order.MOUNT] = 5
    with pytest.raises(SandboxError, match="pretending"):
        await sandbox.mount({MountPoint.OPT: stage.image("opt")})
    launching = asyncio.create_task(sandbox.launch(Launch(("/none",), {})))
    guest._take = lambda *_: guest.report(ReportKind.REFUSED, 2)  # type: ignore[method-assign]
    with pytest.raises(LaunchRefused, match="/none: No such file"):
        await launching
    await sandbox.destroy()
    await guest.stop()


async def test_code_is_mounted_into_a_running_vm(stage: Stage) -> None:
    sandbox, guest = await stage.up()
    await sandbox.mount({MountPoint.TASK: stage.image("task"), MountPoint.OPT: stage.image("opt")})
    assert guest.orders[-1][:2] == (Order.MOUNT, 0b1100)
    drives = {drive["drive_id"]: drive for drive in (await sandbox.vmm.api.configuration())["drives"]}
    root = Path(f"/proc/{sandbox.vmm.pid}/root")
    assert (root / drives["task"]["path_on_host"][1:]).read_bytes().startswith(b"task\0")
    assert (root / drives["opt"]["path_on_host"][1:]).read_bytes().startswith(b"opt\0")
    with pytest.raises(SandboxError, match="taken"):
        await sandbox.mount({MountPoint.TASK: stage.image("task")})
    await sandbox.destroy()
    await guest.stop()


async def test_limits(stage: Stage) -> None:
    sandbox, guest = await stage.up()
    await sandbox.set_limits(SandboxLimits(memory_mb=100, cpu_quota=0.5, tmp_mb=64))
    assert guest.names()[-1] == "LIMITS"
    with pytest.raises(SandboxError, match="cannot have 512 MB"):
        await sandbox.set_limits(SandboxLimits(memory_mb=512, cpu_quota=0.5, tmp_mb=64))
    await sandbox.destroy()
    await guest.stop()


async def test_freezing_stops_the_whole_vmm(stage: Stage) -> None:
    sandbox, guest = await stage.up()
    sandbox.freeze()
    await asyncio.sleep(0.5)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(sandbox.vmm.api.describe(), 0.3)
    sandbox.thaw()
    await asyncio.wait_for(sandbox.vmm.api.describe(), 5)
    sandbox.freeze()
    sandbox.kill()
    assert await asyncio.wait_for(sandbox.wait(), 5) == Exit(status=None, signal=signal.SIGKILL)
    await sandbox.destroy()
    await guest.stop()


async def test_a_dead_vmm_is_said_so(stage: Stage) -> None:
    sandbox, guest = await stage.up()
    pid = sandbox.vmm.pid
    os.kill(pid, signal.SIGKILL)
    assert await asyncio.wait_for(sandbox.wait(), 5) == Exit(status=None, signal=signal.SIGKILL)
    with pytest.raises(SandboxDied):
        await sandbox.mount({MountPoint.TASK: stage.image("task")})
    await sandbox.destroy()
    await sandbox.destroy()
    await gone(pid)
    await guest.stop()


async def test_a_guest_that_says_nothing_is_given_up(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stoker.sandbox.firecracker.driver.BOOT_S", 0.3)
    with pytest.raises(SandboxCreateError, match=r"said nothing within 0\.3 s"):
        await stage.driver.create(stage.spec())
    assert stage.driver.sandboxes == set()


async def test_a_kernel_that_is_none_is_refused(stage: Stage) -> None:
    (stage.folder / "vmlinux").write_bytes(b"nothing")
    with pytest.raises(SandboxCreateError, match="kernel"):
        await stage.driver.create(stage.spec())
    assert stage.driver.sandboxes == set()


@pytest.mark.parametrize("hello", [b"x" * 88, b"short"])
async def test_a_guest_of_another_build_is_refused(stage: Stage, hello: bytes) -> None:
    guest = PretendGuest(stage.driver, hello=hello)
    with pytest.raises(SandboxCreateError):
        await stage.driver.create(stage.spec())
    await guest.stop()


async def test_a_guest_that_breaks_the_contract_ends(stage: Stage) -> None:
    sandbox, guest = await stage.up()
    guest.say(Answer.REPORT, b"nonsense")
    assert (await asyncio.wait_for(sandbox.wait(), 5)).signal == signal.SIGKILL
    await sandbox.destroy()
    await guest.stop()


async def test_a_hanging_vmm_is_killed(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(watchdog, "ANSWER_WITHIN_S", 0.3)
    sandbox, guest = await stage.up()
    await asyncio.sleep(0.3)  # it looks, and all is well
    os.kill(sandbox.vmm.pid, signal.SIGSTOP)
    assert (await asyncio.wait_for(sandbox.wait(), 5)).signal == signal.SIGKILL
    assert sandbox.why_killed
    await sandbox.destroy()
    assert stage.driver.statistics().hung == 1
    await guest.stop()


async def test_links_that_a_vmm_plants_lead_nowhere(stage: Stage) -> None:
    """As a VMM that its guest took over could: it owns the folder of its sockets."""
    sandbox, guest = await stage.up()
    sockets = Path(f"/proc/{sandbox.vmm.pid}/root/sockets")
    for name in ("api.sock", "metrics", "v_9001"):
        (sockets / name).unlink()
        (sockets / name).symlink_to(stage.jail.socket_path)
    assert (await sandbox.vmm.api.describe()).state == "Running"
    await sandbox.mount({MountPoint.TASK: stage.image("task")})
    sandbox.freeze()
    sandbox.thaw()
    await sandbox.destroy()
    await guest.stop()


async def test_the_vmms_metrics_are_read(stage: Stage) -> None:
    sandbox, guest = await stage.up()
    await sandbox.vmm.api.flush_metrics()
    for _ in range(100):
        if sandbox.metrics.counters.lines:
            break
        await asyncio.sleep(0.01)
    assert sandbox.metrics.counters.lines >= 1
    assert sandbox.metrics.counters.dropped_lines == 0
    assert sandbox.metrics.counters.seccomp_faults == 0
    assert stage.driver.statistics().running == 1
    await sandbox.destroy()
    assert stage.driver.statistics().running == 0
    await guest.stop()


async def test_a_folder_becomes_an_image(stage: Stage) -> None:
    (stage.folder / "code").mkdir()
    (stage.folder / "code" / "lambda_function.py").write_text("handler = 1")
    sandbox, guest = await stage.up(mounts={MountPoint.TASK: stage.folder / "code"})
    image = Path(f"/proc/{sandbox.vmm.pid}/root/f4").read_bytes()
    assert image[1024:1028] == b"\xe2\xe1\xf5\xe0"  # EROFS
    assert b"lambda_function.py" in image
    await sandbox.mount({MountPoint.OPT: stage.folder / "code"})
    await sandbox.destroy()
    await guest.stop()


@pytest.mark.parametrize("what", ["missing", "link"])
async def test_only_images_become_block_devices(stage: Stage, what: str, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    with pytest.raises(SandboxCreateError):
        await stage.driver.create(stage.spec(mounts={MountPoint.TASK: tmp_path / what}))
    assert stage.driver.sandboxes == set()


def _key() -> SnapshotKey:
    kernel, model = host_key()
    return SnapshotKey("python3.12", 128, 64, "1", "1.12.1", kernel, model)


async def test_a_pool_is_restored_from_a_snapshot(stage: Stage) -> None:
    store = SnapshotStore(stage.folder / "snapshots")
    store.open()
    first, guest = await stage.up()
    await first.launch(LAUNCH)
    taking = asyncio.create_task(store.take(first, _key()))
    await guest.told(Order.HOLD)
    guest.say(Answer.HELD, b"")
    await taking
    await guest.stop()
    assert store.has(_key())
    entropy = [body for order, _, body in guest.orders if order is Order.ENTROPY]
    with store.opened(_key()) as files:
        for _ in range(2):
            again = PretendGuest(stage.driver, launched=True)
            restored = await stage.driver.restore(stage.spec(), files)
            assert again.names() == ["ENTROPY", "CLOCK", "LIMITS", "HOLD"]
            assert again.orders[-1][1] == 0
            entropy.append(again.orders[0][2])
            with pytest.raises(SandboxError):
                await restored.launch(LAUNCH)  # its process came with it
            await restored.mount({MountPoint.TASK: stage.image("task")})
            await restored.destroy()
            await again.stop()
    assert len(set(entropy)) == 3


async def test_a_snapshot_that_was_changed_is_never_used(stage: Stage) -> None:
    store = SnapshotStore(stage.folder / "snapshots")
    store.open()
    sandbox, guest = await stage.up()
    await store.write(sandbox, _key())
    await guest.stop()
    memory = stage.folder / "snapshots" / _key().name() / "memory"
    assert memory.stat().st_mode & 0o777 == 0o444
    with store.opened(_key()):
        pass
    with memory.open("r+b") as file:
        file.seek(1 << 20)
        file.write(b"changed")
    with pytest.raises(SnapshotBroken), store.opened(_key()):
        pass
    assert not store.has(_key())


async def test_guarded(stage: Stage) -> None:
    guest = PretendGuest(stage.driver)
    sandbox = await GuardedDriver(stage.driver).create(stage.spec())
    guest.errors[Order.MOUNT] = 5
    with pytest.raises(SandboxError):
        await sandbox.mount({MountPoint.OPT: stage.image("opt")})
    assert (await asyncio.wait_for(sandbox.wait(), 5)).signal == signal.SIGKILL
    with pytest.raises(SandboxDied):
        await sandbox.launch(LAUNCH)
    await sandbox.destroy()
    await guest.stop()


async def test_a_cancelled_create_leaves_nothing(stage: Stage) -> None:
    creating = asyncio.create_task(stage.driver.create(stage.spec()))
    while not stage.driver.sandboxes:
        await asyncio.sleep(0.002)
    guest = PretendGuest(stage.driver)
    guest._known.clear()
    creating.cancel()
    with pytest.raises(asyncio.CancelledError):
        await creating
    for _ in range(500):
        if not stage.driver.sandboxes:
            break
        await asyncio.sleep(0.01)
    assert stage.driver.sandboxes == set()
    await guest.stop()
