"""What Firecracker's OpenAPI description (1.17) says of the calls that Stoker makes: fields, and which must be there.

Facts written down from src/firecracker/swagger/firecracker.yaml; the file itself can be given to the test.
"""

from stoker.sandbox.firecracker import records as fc

# definition: (record, required, optional)
DEFINITIONS: dict[str, tuple[type[fc.Record], set[str], set[str]]] = {
    "TokenBucket": (fc.TokenBucket, {"refill_time", "size"}, {"one_time_burst"}),
    "RateLimiter": (fc.RateLimiter, set(), {"bandwidth", "ops"}),
    "BootSource": (fc.BootSource, {"kernel_image_path"}, {"boot_args", "initrd_path"}),
    "Drive": (
        fc.Drive,
        {"drive_id", "is_root_device"},
        {"partuuid", "cache_type", "is_read_only", "path_on_host", "rate_limiter", "io_engine", "socket"},
    ),
    "PartialDrive": (fc.DriveUpdate, {"drive_id"}, {"path_on_host", "rate_limiter"}),
    "MachineConfiguration": (
        fc.MachineConfig,
        {"mem_size_mib", "vcpu_count"},
        {"cpu_template", "smt", "track_dirty_pages", "huge_pages"},
    ),
    "NetworkInterface": (
        fc.NetworkInterface,
        {"host_dev_name", "iface_id"},
        {"guest_mac", "mtu", "rx_rate_limiter", "tx_rate_limiter"},
    ),
    "PartialNetworkInterface": (fc.NetworkUpdate, {"iface_id"}, {"rx_rate_limiter", "tx_rate_limiter"}),
    "Vsock": (fc.Vsock, {"guest_cid", "uds_path"}, {"vsock_id"}),
    "EntropyDevice": (fc.Entropy, set(), {"rate_limiter"}),
    "SerialDevice": (fc.Serial, set(), {"serial_out_path", "rate_limiter"}),
    "Balloon": (
        fc.Balloon,
        {"amount_mib", "deflate_on_oom"},
        {"stats_polling_interval_s", "free_page_hinting", "free_page_reporting"},
    ),
    "BalloonUpdate": (fc.BalloonUpdate, {"amount_mib"}, set()),
    "BalloonStatsUpdate": (fc.BalloonStatisticsUpdate, {"stats_polling_interval_s"}, set()),
    "Logger": (fc.Logger, set(), {"level", "log_path", "show_level", "show_log_origin", "module"}),
    "Metrics": (fc.Metrics, {"metrics_path"}, set()),
    "InstanceActionInfo": (fc.Action, {"action_type"}, set()),
    "Vm": (fc.VmState, {"state"}, set()),
    "SnapshotCreateParams": (fc.SnapshotCreate, {"mem_file_path", "snapshot_path"}, {"snapshot_type"}),
    "MemoryBackend": (fc.MemoryBackend, {"backend_type", "backend_path"}, set()),
    "NetworkOverride": (fc.NetworkOverride, {"iface_id", "host_dev_name"}, set()),
    "VsockOverride": (fc.VsockOverride, {"uds_path"}, set()),
    "SnapshotLoadParams": (
        fc.SnapshotLoad,
        {"snapshot_path"},
        {
            "enable_diff_snapshots",
            "track_dirty_pages",
            "mem_file_path",
            "mem_backend",
            "resume_vm",
            "network_overrides",
            "vsock_override",
            "clock_realtime",
        },
    ),
}

# Optional by the description, always there with us: a block device is a file, a snapshot's memory a backend.
STRICTER = {"is_read_only", "path_on_host", "mem_backend"}
