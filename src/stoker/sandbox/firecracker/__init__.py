"""Micro-VMs of Firecracker, each behind its jailer: API client, machines, snapshots, the driver."""
