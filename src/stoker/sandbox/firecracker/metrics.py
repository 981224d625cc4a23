"""Firecracker's own metrics: one JSON object a line, read from a pipe, added up. Pure but for the reading.

The VMM holds a guest: what it writes is bounded, and what is no metric is counted and dropped.
"""

import os

import msgspec

LINE_BYTES_MAX = 64 * 1024
READ_BYTES = 64 * 1024


class _Vcpu(msgspec.Struct, frozen=True):
    failures: int = 0


class _Seccomp(msgspec.Struct, frozen=True):
    num_faults: int = 0


class _Vmm(msgspec.Struct, frozen=True):
    panic_count: int = 0


class _Net(msgspec.Struct, frozen=True):
    rx_bytes_count: int = 0
    tx_bytes_count: int = 0
    rx_rate_limiter_throttled: int = 0
    tx_rate_limiter_throttled: int = 0
    tx_malformed_frames: int = 0


class _Block(msgspec.Struct, frozen=True):
    read_bytes: int = 0
    write_bytes: int = 0
    rate_limiter_throttled_events: int = 0


class _Line(msgspec.Struct, frozen=True):
    vcpu: _Vcpu = _Vcpu()
    seccomp: _Seccomp = _Seccomp()
    vmm: _Vmm = _Vmm()
    net: _Net = _Net()
    block: _Block = _Block()


class VmmCounters(msgspec.Struct, frozen=True):
    """Since the VM started."""

    lines: int = 0
    dropped_lines: int = 0
    vcpu_failures: int = 0
    seccomp_faults: int = 0
    panics: int = 0
    net_received_bytes: int = 0
    net_sent_bytes: int = 0
    net_malformed_frames: int = 0
    disk_read_bytes: int = 0
    disk_written_bytes: int = 0
    throttled: int = 0

    def with_all_of(self, other: "VmmCounters") -> "VmmCounters":
        """The sums."""
        names = self.__struct_fields__
        return VmmCounters(*(getattr(self, name) + getattr(other, name) for name in names))

    def plus(self, line: _Line) -> "VmmCounters":
        """Each line says what happened since the one before."""
        net, block = line.net, line.block
        throttled = net.rx_rate_limiter_throttled + net.tx_rate_limiter_throttled
        return VmmCounters(
            self.lines + 1,
            self.dropped_lines,
            self.vcpu_failures + line.vcpu.failures,
            self.seccomp_faults + line.seccomp.num_faults,
            self.panics + line.vmm.panic_count,
            self.net_received_bytes + net.rx_bytes_count,
            self.net_sent_bytes + net.tx_bytes_count,
            self.net_malformed_frames + net.tx_malformed_frames,
            self.disk_read_bytes + block.read_bytes,
            self.disk_written_bytes + block.write_bytes,
            self.throttled + throttled + block.rate_limiter_throttled_events,
        )


class VmmStatistics(msgspec.Struct, frozen=True):
    """All VMs of a driver together. A VM's counters lag by the minute between two of Firecracker's lines."""

    running: int
    hung: int
    """Killed by the watchdog."""
    vcpu_failures: int
    seccomp_faults: int
    panics: int
    net_received_bytes: int
    net_sent_bytes: int
    net_malformed_frames: int
    disk_read_bytes: int
    disk_written_bytes: int
    throttled: int


class MetricsPipe:
    """Owns the read end of one VMM's metrics pipe."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.counters = VmmCounters()
        self._buffer = bytearray()
        self._skipping = False

    def read(self) -> None:
        """Take what is there, 64 KiB at most: call it when ``fd`` is readable."""
        try:
            data = os.read(self.fd, READ_BYTES)
        except BlockingIOError:
            return
        self._buffer += data
        while (end := self._buffer.find(b"\n")) >= 0:
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            if self._skipping:
                self._skipping = False
            else:
                self._take(line)
        if len(self._buffer) > LINE_BYTES_MAX:
            self._drop()
            self._skipping = True
            self._buffer.clear()

    def close(self) -> None:
        """Give the pipe up."""
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1

    def _take(self, line: bytes) -> None:
        try:
            self.counters = self.counters.plus(msgspec.json.decode(line, type=_Line))
        except (msgspec.DecodeError, UnicodeDecodeError):
            self._drop()

    def _drop(self) -> None:
        dropped = self.counters.dropped_lines + 1
        self.counters = msgspec.structs.replace(self.counters, dropped_lines=dropped)
