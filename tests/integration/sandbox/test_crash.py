"""kill -9 of the jail or of its client, half-way and with many sandboxes: nothing is left behind."""

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stoker.core.errors import SandboxCreateError, SandboxDied
from stoker.sandbox.container_connection import JailUnavailable
from stoker.sandbox.driver import SandboxLimits
from tests.integration.sandbox.running_jail import LIMITS, RunningJail, create, look, missing, run, shell

ROOT = Path(__file__).resolve().parents[3]
MANY = 30


@pytest.fixture
def jail() -> Iterator[RunningJail]:
    if missing():
        pytest.skip(missing())
    running = RunningJail("--egress-range", "169.254.64.0/18")
    running.start()
    yield running
    running.stop()


async def wait_until(condition: Callable[[], object], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        await asyncio.sleep(0.02)


async def test_destroyed_sandboxes_leave_nothing(jail: RunningJail) -> None:
    driver = await jail.driver()
    empty = look(jail.folder)
    sandboxes = await asyncio.gather(*(create(driver, egress=True) for _ in range(MANY)))
    for sandbox in sandboxes:
        await sandbox.launch(shell("sleep 60 & sleep 60"))
    alive = look(jail.folder)
    assert len(alive.foreign) >= 3 * MANY
    assert len(alive.cgroups) >= 3 * MANY
    await asyncio.gather(*(sandbox.destroy() for sandbox in sandboxes))
    found = look(jail.folder)
    assert (found.foreign, found.cgroups, found.mounts) == (empty.foreign, empty.cgroups, empty.mounts)
    made = alive.links - empty.links  # other jails of this host come and go meanwhile
    await wait_until(lambda: not look(jail.folder).links & made)
    await driver.close()


async def test_a_killed_jail_takes_its_sandboxes_along(jail: RunningJail) -> None:
    driver = await jail.driver()
    sandboxes = [await create(driver) for _ in range(MANY)]
    for sandbox in sandboxes:
        await sandbox.launch(shell("sleep 60 & sleep 60"))
    sandboxes[0].freeze()
    creating = [asyncio.create_task(create(driver)) for _ in range(5)]
    await asyncio.sleep(0.002)
    jail.kill()
    ends = await asyncio.wait_for(asyncio.gather(*(sandbox.wait() for sandbox in sandboxes)), 10)
    assert {ended.signal for ended in ends} == {signal.SIGKILL}
    with pytest.raises(SandboxDied):
        await sandboxes[1].set_limits(LIMITS)
    jail.start()
    for task in creating:
        with contextlib.suppress(SandboxCreateError, JailUnavailable):
            made = await task
            await made.destroy()
    outcome = await run(driver, shell("echo back"), timeout_s=20)
    assert outcome.output == "back\n"
    await asyncio.gather(*(sandbox.destroy() for sandbox in sandboxes))
    await driver.close()
    await wait_until(lambda: not look(jail.folder).foreign)
    assert not look(jail.folder).cgroups


CLIENT = """
import asyncio, json, sys
sys.path.insert(0, sys.argv[1])
from tests.integration.sandbox.running_jail import create, shell
from stoker.sandbox.container import ContainerDriver
from pathlib import Path
async def main():
    driver = ContainerDriver(Path(sys.argv[2])); await driver.start()
    boxes = [await create(driver) for _ in range(int(sys.argv[3]))]
    for box in boxes: await box.launch(shell("sleep 60 & sleep 60"))
    boxes[0].freeze(); await asyncio.sleep(0.1)
    print(json.dumps(len(boxes)), flush=True)
    while True:
        await create(driver); await asyncio.sleep(0.02)
asyncio.run(main())
"""


def start_client(jail: RunningJail) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CLIENT, str(ROOT), str(jail.socket_path), str(MANY)]
    client = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert client.stdout
    assert json.loads(client.stdout.readline()) == MANY
    return client


async def test_a_killed_client_takes_its_sandboxes_along(jail: RunningJail) -> None:
    await (await jail.driver()).close()
    client = start_client(jail)
    client.kill()
    client.wait()
    await wait_until(lambda: not look(jail.folder).foreign)
    await wait_until(lambda: not look(jail.folder).cgroups)
    driver = await jail.driver()
    assert (await run(driver, shell("echo back"))).output == "back\n"
    await driver.close()


async def test_both_killed_leave_only_what_the_next_start_removes(jail: RunningJail) -> None:
    await (await jail.driver()).close()
    client = start_client(jail)
    jail.kill()
    client.kill()
    client.wait()
    jail.start()
    driver = await jail.driver()
    found = look(jail.folder)
    assert not found.foreign
    assert not found.cgroups
    assert len(found.loops) <= 1, "the new jail's own pool, nothing of the old one"
    assert (await run(driver, shell("echo back"))).output == "back\n"
    await driver.close()


async def test_a_second_hello_ends_what_the_first_made(jail: RunningJail) -> None:
    first = await jail.driver()
    sandbox = await create(first)
    await sandbox.launch(shell("exec sleep 60"))
    second = await jail.driver()
    assert (await asyncio.wait_for(sandbox.wait(), 10)).signal == signal.SIGKILL
    first._closed = True  # it would otherwise say hello again in turn
    await first.close()
    await second.close()


async def test_a_jail_that_ends_in_order_removes_everything() -> None:
    if missing():
        pytest.skip(missing())
    jail = RunningJail("--no-egress")
    jail.start()
    driver = await jail.driver()
    for _ in range(5):
        await (await create(driver)).launch(shell("exec sleep 60"))
    assert jail.process
    jail.process.terminate()
    assert jail.process.wait(20) == 0
    found = look(jail.folder)
    assert not any((found.foreign, found.cgroups, found.mounts, found.loops)), found
    driver._closed = True
    await driver.close()
    jail.start()
    await (await jail.driver()).close()
    jail.stop()


def cpu_ticks(jail: RunningJail) -> int:
    assert jail.process
    fields = Path(f"/proc/{jail.process.pid}/stat").read_text().rpartition(") ")[2].split()
    return int(fields[11]) + int(fields[12])


async def test_the_jail_rests_when_nothing_is_asked_of_it(jail: RunningJail) -> None:
    driver = await jail.driver()
    ended, living = await create(driver), await create(driver)
    await ended.launch(shell("true"))
    await living.launch(shell("exec sleep 60"))
    await ended.wait()
    await asyncio.sleep(0.5)
    before = cpu_ticks(jail)
    await asyncio.sleep(1.0)
    assert cpu_ticks(jail) - before <= 3, "it spins"
    await driver.close()


async def test_a_create_that_fails_leaves_nothing(jail: RunningJail) -> None:
    driver = await jail.driver()
    empty = look(jail.folder)
    for _ in range(3):
        with pytest.raises(SandboxCreateError, match=r"taking /tmp|making the control group|setting up"):
            await create(driver, SandboxLimits(memory_mb=1, cpu_quota=1.0, tmp_mb=4_000_000))
    await wait_until(lambda: look(jail.folder)._replace(links=empty.links) == empty)
    assert (await run(driver, shell("echo fine"))).output == "fine\n"
    await driver.close()


async def test_a_jail_that_starts_in_another_group_finds_what_the_old_one_left(jail: RunningJail) -> None:
    await (await jail.driver()).close()
    jail.kill()
    hierarchy = next(
        (f"/sys/fs/cgroup/{name}" for name in ("pids", "memory") if Path(f"/sys/fs/cgroup/{name}").is_dir()),
        "",
    )
    if not hierarchy:
        pytest.skip("a cgroup v1 hierarchy, which this host does not mount")
    elsewhere = Path(hierarchy) / f"elsewhere-{jail.folder.name}"
    elsewhere.mkdir()
    try:
        jail.prefix = ["sh", "-c", f'echo $$ > {elsewhere}/cgroup.procs; exec "$@"', "sh"]
        jail.start()
        await (await jail.driver()).close()
        client = start_client(jail)
        assert any(str(elsewhere) in group for group in look(jail.folder).cgroups)
        jail.kill()
        client.kill()
        client.wait()
        jail.prefix = []
        jail.start()
        driver = await jail.driver()
        found = look(jail.folder)
        assert (found.foreign, found.cgroups) == (frozenset(), frozenset())
        assert not [path for path in elsewhere.iterdir() if path.is_dir()]
        await driver.close()
    finally:
        elsewhere.rmdir()
