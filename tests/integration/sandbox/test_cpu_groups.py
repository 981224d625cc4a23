"""Sandboxes of one function are one to the scheduler: where their control groups are, and that none is left."""

import re
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from stoker.sandbox.container import ContainerDriver
from stoker.sandbox.container_sandbox import ContainerSandbox
from tests.integration.sandbox.running_jail import LIMITS, RunningJail, create, finish, missing, python

WAITS = "import sys, time; print('here', flush=True); time.sleep(60)"
ONE, ANOTHER = secrets.randbits(64) | 1, secrets.randbits(64) | 1
OF_ONE = msgspec.structs.replace(LIMITS, cpu_group=ONE)
OF_ANOTHER = msgspec.structs.replace(LIMITS, cpu_group=ANOTHER)
OF_NONE_YET = msgspec.structs.replace(LIMITS, cpu_quota=0.0)


@pytest.fixture
async def driver() -> AsyncIterator[ContainerDriver]:
    if missing():
        pytest.skip(missing())
    jail = RunningJail()
    jail.start()
    driver = await jail.driver()
    try:
        yield driver
    finally:
        await driver.close()
        jail.stop()


def cpu_group_of(sandbox: ContainerSandbox) -> str:
    """Where its init is in the hierarchy that shares out the CPU."""
    pid = re.search(r"^Pid:\t(\d+)$", Path(f"/proc/self/fdinfo/{sandbox._pidfd}").read_text(), re.MULTILINE)
    assert pid
    lines = Path(f"/proc/{pid[1]}/cgroup").read_text().splitlines()
    found = [line for line in lines if "cpu" in line.split(":")[1].split(",")]
    if not found:
        pytest.skip("no cgroup v1 hierarchy with the cpu controller")
    return found[0].split(":", 2)[2]


def groups_left(number: int) -> list[Path]:
    """Of any jail of this host: no other uses our numbers."""
    return [*Path("/sys/fs/cgroup/cpu").glob(f"**/{name_of(number)}")]


def name_of(number: int) -> str:
    return f"f{number:016x}"


async def test_sandboxes_of_one_number_are_below_one_group(driver: ContainerDriver) -> None:
    first, second = await create(driver, OF_ONE), await create(driver, OF_ONE)
    other, alone = await create(driver, OF_ANOTHER), await create(driver)
    above = [cpu_group_of(sandbox).rsplit("/", 1)[0] for sandbox in (first, second, other, alone)]
    assert above[0] == above[1] == f"{above[3]}/{name_of(ONE)}"
    assert above[2] == f"{above[3]}/{name_of(ANOTHER)}"
    for sandbox in (first, second, other, alone):
        await sandbox.destroy()
    assert groups_left(ONE) == groups_left(ANOTHER) == []


async def test_a_pooled_one_joins_after_its_init(driver: ContainerDriver) -> None:
    sandbox = await create(driver, OF_NONE_YET)
    await sandbox.launch(python(WAITS))
    pooled_in = cpu_group_of(sandbox)
    await sandbox.set_limits(msgspec.structs.replace(OF_NONE_YET, cpu_group=ONE))
    assert cpu_group_of(sandbox) == pooled_in, "Init does not wait for the move"
    sandbox.freeze()
    await sandbox.set_limits(OF_ONE)
    above, _, name = pooled_in.rpartition("/")
    assert cpu_group_of(sandbox) == f"{above}/{name_of(ONE)}/{name}"
    assert not Path(f"/sys/fs/cgroup/cpu{pooled_in}").exists()
    await sandbox.set_limits(OF_ANOTHER)
    assert cpu_group_of(sandbox) == f"{above}/{name_of(ONE)}/{name}", "once of one function, of no other"
    sandbox.kill()
    assert (await finish(sandbox)).exit.signal == 9
    assert groups_left(ONE) == []


async def test_a_killed_jails_groups_are_removed_by_the_next(driver: ContainerDriver) -> None:
    jail = RunningJail()
    jail.start()
    first = await jail.driver()
    await create(first, msgspec.structs.replace(LIMITS, cpu_group=ONE))
    jail.kill()
    await first.close()
    assert groups_left(ONE) != []
    jail.start()
    second = await jail.driver()
    assert groups_left(ONE) == []
    await second.close()
    jail.stop()
