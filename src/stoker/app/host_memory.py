"""How much memory sandboxes may reserve together."""

from pathlib import Path

HOST_SHARE = 7 / 8
"""The rest is for the service, the page cache and everything else on the host."""


def memory_budget_mb(configured_mb: int) -> int:
    """The setting, or seven eighths of the host's memory where it is 0."""
    if configured_mb > 0:
        return configured_mb
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemTotal:"):
            return int(int(line.split()[1]) / 1024 * HOST_SHARE)
    raise OSError("/proc/meminfo does not name MemTotal")
