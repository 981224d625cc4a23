"""The jail of an ordinary user: works with what there is and names what is missing."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from stoker.sandbox.driver import MountPoint
from tests.integration.sandbox.running_jail import RunningJail, create, missing, python, run, shell

NOBODY = 65534
WAIT_FOR_MAPS = 'echo ready; read go; exec "$@"'
SINGLE, RANGE = f"0 {NOBODY} 1", f"0 {NOBODY} 1\n1 700000 4096"


class OrdinaryJail(RunningJail):
    """Started by nobody in a user namespace with these maps. The test is root, which the jail sees as the
    overflow id, hence the peer uid."""

    def __init__(self, maps: str) -> None:
        super().__init__(peer_uid=NOBODY)
        self._maps = maps

    def start(self) -> None:
        command = [str(part) for part in self.command()]
        os.chown(self.folder, NOBODY, NOBODY)
        os.chown(self.folder / "state", NOBODY, NOBODY)
        with (self.folder / "jail.log").open("ab") as log:
            self.process = subprocess.Popen(
                ["unshare", "--user", "sh", "-c", WAIT_FOR_MAPS, "sh", *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                user=NOBODY,
                group=NOBODY,
                extra_groups=[],
                cwd="/",
            )
        assert self.process.stdin
        assert self.process.stdout
        assert self.process.stdout.readline() == b"ready\n"
        for kind in ("uid_map", "gid_map"):
            Path(f"/proc/{self.process.pid}/{kind}").write_text(self._maps)
        self.process.stdin.write(b"\n")
        self.process.stdin.close()
        self.process.stdout.close()


@pytest.fixture(params=[SINGLE, RANGE], ids=["one id", "a range of ids"])
def jail(request: pytest.FixtureRequest) -> Iterator[OrdinaryJail]:
    if missing():
        pytest.skip(missing() + " to become an ordinary user")
    if Path("/proc/sys/user/max_user_namespaces").read_text().strip() == "0":
        pytest.skip("user namespaces are off on this host")
    running = OrdinaryJail(request.param)
    running.start()
    yield running
    running.stop()


async def test_it_runs_and_says_what_is_missing(jail: OrdinaryJail) -> None:
    driver = await jail.driver()
    info = await driver.start()
    degraded = "\n".join(info.degraded)
    assert "memory is not limited" in degraded
    assert "no egress" in degraded
    assert ("share one uid" in degraded) == (jail._maps == SINGLE)
    outcome = await run(
        driver, shell("id -u; echo x > /tmp/x && cat /tmp/x; touch /usr/x /etc/x /x 2>/dev/null; ls /proc")
    )
    assert outcome.output.split()[:4] == ["993", "x", "1", "2"], outcome.output
    assert outcome.exit.status == 0
    await driver.close()


async def test_sandboxes_with_a_range_have_ids_of_their_own(jail: OrdinaryJail) -> None:
    driver = await jail.driver()
    maps = [(await run(driver, shell("cat /proc/self/uid_map"))).output.split() for _ in range(2)]
    assert all(fields[0] == "993" and fields[2] == "1" for fields in maps)
    assert (maps[0] == maps[1]) == (jail._maps == SINGLE)
    await driver.close()


async def test_stopping_going_on_and_ending_without_control_groups(jail: OrdinaryJail) -> None:
    driver = await jail.driver()
    sandbox = await create(driver)
    await sandbox.launch(shell("while :; do echo x; sleep 0.02; done"))
    await asyncio.sleep(0.3)
    sandbox.freeze()
    await asyncio.sleep(0.1)
    os.read(sandbox.output, 65536)
    await asyncio.sleep(0.2)
    with pytest.raises(BlockingIOError):
        os.read(sandbox.output, 65536)
    sandbox.thaw()
    await asyncio.sleep(0.2)
    assert os.read(sandbox.output, 65536)
    sandbox.freeze()
    sandbox.kill()
    assert (await asyncio.wait_for(sandbox.wait(), 5)).signal == signal.SIGKILL
    await sandbox.destroy()
    await driver.close()


async def test_folders_and_tmp(jail: OrdinaryJail) -> None:
    code = jail.folder / "code"
    code.mkdir()
    (code / "hello.txt").write_text("hello")
    driver = await jail.driver()
    limit = "import os\ntry:\n  open('/tmp/big', 'wb').write(bytes(600 << 20))\nexcept OSError as e: print(e.errno)"
    outcome = await run(
        driver,
        shell("cat /var/task/hello.txt; touch /var/task/x 2>&1 || true"),
        mounts={MountPoint.TASK: code},
    )
    assert outcome.output.startswith("hello")
    assert "Read-only" in outcome.output
    assert (await run(driver, python(limit))).output.strip() == "28"
    await driver.close()


async def test_a_vanished_client_ends_its_sandboxes(jail: OrdinaryJail) -> None:
    driver = await jail.driver()
    sandbox = await create(driver)
    await sandbox.launch(shell("exec sleep 987"))
    assert driver._connection
    driver._closed = True
    driver._connection.close()
    ended = await asyncio.wait_for(sandbox.wait(), 5)
    assert ended.signal == signal.SIGKILL
    await sandbox.destroy()


async def test_a_killed_jail_takes_its_sandboxes_along(jail: OrdinaryJail) -> None:
    driver = await jail.driver()
    sandbox = await create(driver)
    await sandbox.launch(shell("exec sleep 987"))
    sandbox.freeze()
    jail.kill()
    assert (await asyncio.wait_for(sandbox.wait(), 5)).signal == signal.SIGKILL
    jail.start()
    assert (await run(driver, shell("echo back"))).output == "back\n"
    await sandbox.destroy()
    await driver.close()
