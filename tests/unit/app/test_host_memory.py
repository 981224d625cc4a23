"""What the settings leave open is taken from the host."""

from pathlib import Path

from stoker.app.host_memory import memory_available_mb, memory_budget_mb, memory_reserve_mb

MEMORY = {
    line.split(":")[0]: int(line.split()[1]) / 1024
    for line in Path("/proc/meminfo").read_text().splitlines()
    if line.endswith("kB")
}


def test_settings_decide() -> None:
    assert memory_budget_mb(700) == 700
    assert memory_reserve_mb(1) == 1


def test_shares_of_the_host_otherwise() -> None:
    assert memory_budget_mb(0) == int(MEMORY["MemTotal"] * 7 / 8)
    assert memory_reserve_mb(0) == max(256, int(MEMORY["MemTotal"] / 20))


def test_what_is_available_is_part_of_what_there_is() -> None:
    assert 0 < memory_available_mb() < MEMORY["MemTotal"]
