"""How much memory sandboxes may reserve together, and what the host keeps for itself."""

from pathlib import Path

HOST_SHARE = 7 / 8
"""The rest is for the service, the page cache and everything else on the host."""
RESERVE_SHARE = 1 / 20
RESERVE_MIN_MB = 256
_KIB_PER_MIB = 1024


def memory_budget_mb(configured_mb: int) -> int:
    """The setting, or seven eighths of the host's memory where it is 0."""
    return configured_mb if configured_mb > 0 else int(_meminfo_mb("MemTotal") * HOST_SHARE)


def memory_reserve_mb(configured_mb: int) -> int:
    """The setting, or a twentieth of the host's memory and at least 256 MB where it is 0."""
    if configured_mb > 0:
        return configured_mb
    return max(RESERVE_MIN_MB, int(_meminfo_mb("MemTotal") * RESERVE_SHARE))


def memory_available_mb() -> int:
    """What could be used now without swapping, by the kernel's own estimate (MemAvailable)."""
    return int(_meminfo_mb("MemAvailable"))


def _meminfo_mb(field: str) -> float:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / _KIB_PER_MIB
    raise OSError(f"/proc/meminfo does not name {field}")
