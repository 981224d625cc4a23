"""Every call of the API's client against the real Firecracker, with what it refuses and how it says so."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from stoker.sandbox.container_connection import JailConnection
from stoker.sandbox.firecracker import machine
from stoker.sandbox.firecracker import records as fc
from stoker.sandbox.firecracker.faults import TooOld, VmmRefused
from tests.firecracker import VERSION, missing_for_vms, vm_jail
from tests.integration.firecracker.jailed import Vm, connect, kernel_file, start_vm

pytestmark = pytest.mark.skipif(bool(missing_for_vms()), reason=missing_for_vms() or "nothing")


@pytest.fixture
async def connection() -> AsyncIterator[JailConnection]:
    jail = vm_jail("--egress-range=169.254.64.0/18")
    jail.start()
    made = await connect(jail)
    yield made
    made.close()
    jail.stop()


@pytest.fixture
async def vm(connection: JailConnection, tmp_path: Path) -> AsyncIterator[Vm]:
    for name in ("scratch", "state", "memory"):
        (tmp_path / name).write_bytes(bytes(1 << 20))
        (tmp_path / name).chmod(0o666)
    with kernel_file(tmp_path) as kernel:
        files = [os.open(tmp_path / name, os.O_RDWR) for name in ("scratch", "state", "memory")]
        made = await start_vm(connection, [kernel, *files], egress=True)
        for fd in files:
            os.close(fd)
        yield made
        await made.destroy()


RATE = fc.RateLimiter(
    bandwidth=fc.TokenBucket(size=1 << 20, refill_time=100, one_time_burst=1 << 21),
    ops=fc.TokenBucket(size=100, refill_time=100),
)


async def test_before_the_start(vm: Vm) -> None:
    api = vm.api
    assert await api.get_version() == VERSION
    assert (await api.describe()).state is fc.InstanceState.NOT_STARTED
    for name in ("log", "metrics"):  # Firecracker makes neither
        (vm.sockets / name).touch()
        (vm.sockets / name).chmod(0o666)
    await api.put_logger(fc.Logger(log_path="/sockets/log", level="Warning", show_level=True))
    await api.put_metrics(fc.Metrics(metrics_path="/sockets/metrics"))
    await api.put_machine_config(fc.MachineConfig(vcpu_count=2, mem_size_mib=256, track_dirty_pages=True))
    await api.patch_machine_config(fc.MachineUpdate(mem_size_mib=128))
    assert await api.machine_config() == fc.MachineConfig(
        vcpu_count=2, mem_size_mib=128, track_dirty_pages=True, huge_pages="None"
    )
    drive = fc.Drive(
        drive_id="scratch",
        is_root_device=False,
        path_on_host="/f1",
        is_read_only=False,
        cache_type="Unsafe",
        io_engine="Sync",
        rate_limiter=RATE,
    )
    await api.put_drive(drive)
    network = fc.NetworkInterface(
        iface_id="eth0",
        host_dev_name="tap0",
        guest_mac=machine.GUEST_MAC,
        rx_rate_limiter=RATE,
        tx_rate_limiter=RATE,
    )
    await api.put_network_interface(network)
    await api.put_vsock(machine.vsock())
    await api.put_entropy(fc.Entropy(rate_limiter=RATE))
    await api.put_balloon(fc.Balloon(amount_mib=0, deflate_on_oom=True, stats_polling_interval_s=1))
    await api.put_boot_source(fc.BootSource(kernel_image_path="/f0", boot_args="quiet"))
    made = await api.configuration()
    assert made["drives"][0]["rate_limiter"]["ops"]["size"] == 100
    assert made["network-interfaces"][0]["guest_mac"] == machine.GUEST_MAC
    assert made["vsock"]["uds_path"] == machine.VSOCK_PATH
    with pytest.raises(TooOld):
        await api.put_serial(fc.Serial(serial_out_path="/sockets/serial"))
    await api.start()
    await _while_it_runs(vm)


async def _while_it_runs(vm: Vm) -> None:
    api = vm.api
    assert (await api.describe()).state is fc.InstanceState.RUNNING
    await api.flush_metrics()
    await api.patch_drive(fc.DriveUpdate(drive_id="scratch", path_on_host="/f1", rate_limiter=RATE))
    await api.patch_network_interface(fc.NetworkUpdate(iface_id="eth0", rx_rate_limiter=RATE))
    await api.patch_balloon_statistics(fc.BalloonStatisticsUpdate(stats_polling_interval_s=2))
    with pytest.raises(VmmRefused, match="not activated"):  # by a guest's driver, which this kernel has not
        await api.patch_balloon(fc.BalloonUpdate(amount_mib=32))
    assert (await api.balloon_statistics()).target_mib == 0
    with pytest.raises(VmmRefused, match="after starting") as refused:
        await api.put_machine_config(fc.MachineConfig(vcpu_count=1, mem_size_mib=128))
    assert refused.value.status == 400
    await api.pause()
    for kind in (fc.SnapshotType.FULL, fc.SnapshotType.DIFF):
        await api.create_snapshot(
            fc.SnapshotCreate(snapshot_path="/f2", mem_file_path="/f3", snapshot_type=kind)
        )
    await api.resume()
    assert (await api.describe()).state is fc.InstanceState.RUNNING


@pytest.mark.parametrize(
    ("drive", "words"),
    [
        ({"path_on_host": "/none"}, "No such file"),
        ({"path_on_host": "/f0", "is_read_only": False}, "Read-only|Permission"),
        ({"path_on_host": "/sockets"}, "directory|BlockDevice|[Ii]nvalid"),
    ],
)
async def test_refusals_name_the_cause(vm: Vm, drive: dict[str, object], words: str) -> None:
    whole = {"drive_id": "x", "is_root_device": False, "is_read_only": True, **drive}
    with pytest.raises(VmmRefused, match=words):
        await vm.api.put_drive(fc.Drive(**whole))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "path"), [(fc.BackendType.FILE, "/f3"), (fc.BackendType.UFFD, "/sockets/nobody")]
)
async def test_a_snapshot_that_is_none_is_refused(vm: Vm, kind: fc.BackendType, path: str) -> None:
    load = fc.SnapshotLoad(
        snapshot_path="/f2",
        mem_backend=fc.MemoryBackend(backend_type=kind, backend_path=path),
        network_overrides=(fc.NetworkOverride(iface_id="eth0", host_dev_name="tap0"),),
    )
    with pytest.raises(VmmRefused, match=r"[Ss]napshot"):
        await vm.api.load_snapshot(load)
