"""Machines made of limits, metrics made of lines: pure decisions of the firecracker driver."""

import os

import pytest

from stoker.sandbox.driver import SandboxLimits
from stoker.sandbox.firecracker import machine
from stoker.sandbox.firecracker.metrics import LINE_BYTES_MAX, MetricsPipe
from stoker.sandbox.guest.contract import Place


@pytest.mark.parametrize(
    ("memory_mb", "vcpus"), [(128, 1), (1769, 1), (1770, 2), (3538, 2), (3539, 3), (10_240, 6)]
)
def test_vcpus_follow_memory(memory_mb: int, vcpus: int) -> None:
    made = machine.machine_of(SandboxLimits(memory_mb=memory_mb, cpu_quota=memory_mb / 1769))
    assert made.vcpus == vcpus
    assert made.guest_memory_mib >= memory_mb + machine.GUEST_OVERHEAD_MB
    assert made.guest_memory_mib % 2 == 0
    assert made.vmm_limits.memory_mb == made.guest_memory_mib + machine.VMM_OVERHEAD_MB
    assert made.vmm_limits.cpu_quota == memory_mb / 1769


def test_the_vmm_may_write_its_disk_and_its_snapshot_and_no_more() -> None:
    small = machine.machine_of(SandboxLimits(memory_mb=128, cpu_quota=1, tmp_mb=10_240))
    large = machine.machine_of(SandboxLimits(memory_mb=10_240, cpu_quota=1, tmp_mb=512))
    assert small.vmm_limits.tmp_mb == 10_240 + machine.WRITTEN_SPARE_MB
    assert large.vmm_limits.tmp_mb == large.guest_memory_mib + machine.WRITTEN_SPARE_MB


def test_drives_are_in_the_guests_order_and_read_only_but_one() -> None:
    drives = [machine.drive_of(place) for place in Place]
    assert [drive.path_on_host for drive in drives] == [f"/f{number}" for number in range(2, 9)]
    assert [drive.drive_id for drive in drives if not drive.is_read_only] == ["scratch"]
    assert not any(drive.is_root_device for drive in drives)
    assert machine.snapshot_load().snapshot_path == "/f9"


def test_serial_is_off_in_production() -> None:
    assert "console=" not in (machine.boot_source().boot_args or "")
    assert "console=ttyS0" in (machine.boot_source(debug=True).boot_args or "")


def test_free_pages_are_reported_where_firecracker_can() -> None:
    assert not machine.balloon((1, 12, 1)).free_page_reporting
    assert machine.balloon((1, 14, 0)).free_page_reporting


@pytest.fixture
def pipe() -> "tuple[MetricsPipe, int]":
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    return MetricsPipe(reading), writing


def test_metrics_add_up(pipe: tuple[MetricsPipe, int]) -> None:
    metrics, writing = pipe
    line = b'{"net":{"rx_bytes_count":5,"unknown":1},"block":{"read_bytes":7},"vcpu":{"failures":1}}\n'
    os.write(writing, line + line[:20])
    metrics.read()
    os.write(writing, line[20:])
    metrics.read()
    counters = metrics.counters
    assert (counters.lines, counters.net_received_bytes, counters.disk_read_bytes) == (2, 10, 14)
    assert (counters.vcpu_failures, counters.dropped_lines) == (2, 0)
    metrics.close()
    os.close(writing)


@pytest.mark.parametrize("rubbish", [b"x\n", b"[]\n", b'{"net":5}\n', b"\xff\xfe\n", b"{}" * 9 + b"\n"])
def test_rubbish_is_dropped(pipe: tuple[MetricsPipe, int], rubbish: bytes) -> None:
    metrics, writing = pipe
    os.write(writing, rubbish + b"{}\n")
    metrics.read()
    assert (metrics.counters.lines, metrics.counters.dropped_lines) == (1, 1)
    metrics.close()
    os.close(writing)


def test_an_endless_line_costs_what_its_limit_is(pipe: tuple[MetricsPipe, int]) -> None:
    metrics, writing = pipe
    for _ in range(8):
        os.write(writing, b"a" * (LINE_BYTES_MAX // 2))
        metrics.read()
    os.write(writing, b"\n{}\n")
    metrics.read()
    assert metrics.counters.lines == 1
    assert 1 <= metrics.counters.dropped_lines <= 4
    metrics.close()
    os.close(writing)
