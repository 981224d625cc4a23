"""Servers that the contract suites share."""

import os
from collections.abc import Iterator

import pytest

from tests.postgres import running_postgres


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    with running_postgres() as url:
        yield url


SHORT = frozenset(
    {
        "test_frozen_makes_no_progress_and_thawed_goes_on",
        "test_the_runtime_api_is_served_from_outside",
        "test_a_place_is_filled_once",
        "test_limits_change_while_it_lives",
    }
)
"""Of the sandbox drivers' contract over VMs, which take seconds of a CPU to boot; STOKER_TEST_VMS=all: the whole."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if os.environ.get("STOKER_TEST_VMS") == "all":
        return
    left_out = [item for item in items if _boots_a_vm(item) and not _is_short(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


def _boots_a_vm(item: pytest.Item) -> bool:
    return any(item.name.endswith(f"-{vm}]") or f"[{vm}-" in item.name for vm in ("qemu", "firecracker"))


def _is_short(item: pytest.Item) -> bool:
    return item.name.partition("[")[0] in SHORT and "naive" in item.name
