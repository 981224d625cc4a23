"""A sandbox whose root is an image: nothing of the host's programs is in it, and no image gains by how it is built."""

import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from stoker.core.errors import LaunchRefused, SandboxCreateError, SandboxDied
from stoker.sandbox.container import ContainerDriver
from stoker.sandbox.driver import Launch, MountPoint, SandboxSpec, SandboxUser
from tests.integration.sandbox.image_root import ONLY_HERE
from tests.integration.sandbox.running_jail import (
    ENVIRONMENT,
    LIMITS,
    Outcome,
    RunningJail,
    finish,
    python,
    shell,
)


@pytest.fixture
async def driver(jail: RunningJail) -> AsyncIterator[ContainerDriver]:
    connected = await jail.driver()
    yield connected
    await connected.close()


@pytest.fixture
def root(image_root: Path, tmp_path: Path) -> Path:
    """A copy to spoil: hard links, and a directory of its own for each folder."""
    for above in (tmp_path, *tmp_path.parents[:2]):
        above.chmod(0o755)
    return Path(shutil.copytree(image_root, tmp_path / "root", symlinks=True, copy_function=os.link))


async def run(
    driver: ContainerDriver, root: Path, launch: Launch, user: SandboxUser | None = None
) -> Outcome:
    spec = SandboxSpec("box", LIMITS, {MountPoint.ROOT: root}, user=user)
    sandbox = await driver.create(spec)
    await sandbox.launch(launch)
    return await finish(sandbox)


async def test_the_root_is_the_image_and_nothing_of_the_template(driver: ContainerDriver, root: Path) -> None:
    outcome = await run(driver, root, shell("cat /etc/marker; ls /; ls /var /run /mnt; ls /usr/share"))
    expected = sorted(path.name for path in root.iterdir())
    lines = outcome.output.splitlines()
    assert lines[0] == ONLY_HERE.strip()
    assert lines[1 : 1 + len(expected)] == expected
    assert "codecache" not in outcome.output
    assert outcome.output.count("No such file") == 2  # /mnt and /usr/share


async def test_only_what_belongs_there_is_mounted(driver: ContainerDriver, root: Path) -> None:
    outcome = await run(driver, root, shell("cat /proc/self/mounts"))
    options = {line.split()[1]: line.split()[3].split(",") for line in outcome.output.splitlines()}
    assert {place for place in options if not place.startswith("/proc")} == {
        "/",
        "/dev",
        "/tmp",
        "/etc/resolv.conf",
        "/etc/hosts",
        "/etc/hostname",
    }
    assert {"ro", "nosuid", "nodev"} <= set(options["/"])
    assert "ro" in options["/dev"]


async def test_names_and_resolver_are_the_sandboxes(driver: ContainerDriver, root: Path) -> None:
    outcome = await run(driver, root, shell("cat /etc/hostname /etc/hosts /etc/resolv.conf; ls /dev"))
    assert ONLY_HERE not in outcome.output
    assert outcome.output.startswith("169-254-100-6\n127.0.0.1 localhost")
    assert "urandom" in outcome.output


async def test_owners_are_the_images_own(driver: ContainerDriver, root: Path) -> None:
    private = root / "home" / "app"
    private.mkdir(mode=0o700)
    (private / "secret").write_text("read")
    for path in (private, private / "secret"):
        os.chown(path, 1000, 1001)
    script = "stat -c '%u %g' / /home/app; cat /home/app/secret; id -u; id -g; id -G; touch /tmp/x && stat -c '%u %g' /tmp/x"
    usual = await run(driver, root, shell(script))
    assert usual.output.split("\n")[:2] == ["0 0", "1000 1001"]
    assert "Permission denied" in usual.output
    assert usual.output.endswith("993\n990\n990\n993 990\n")
    theirs = await run(driver, root, shell(script), SandboxUser(1000, 1001))
    assert theirs.output.endswith("read1000\n1001\n1001\n1000 1001\n")
    outside = await run(
        driver, root, shell("cat /proc/self/uid_map; grep Cap /proc/self/status"), SandboxUser(7, 0)
    )
    assert outside.output.split()[2] == "65536"
    assert set(outside.output.split("\n", 1)[1].split()[1::2]) == {"0" * 16}


@pytest.mark.parametrize("user", [(0, 5), (65536, 0), (5, 65536)])
async def test_no_process_is_root_or_outside_the_map(
    user: tuple[int, int], driver: ContainerDriver, root: Path
) -> None:
    with pytest.raises(SandboxCreateError):
        await run(driver, root, shell("id"), SandboxUser(*user))


@pytest.mark.parametrize("name", ["dev", "tmp", "proc", "etc/hosts"])
@pytest.mark.parametrize(
    "target", ["/", "../../../../..", "/proc/1/root", "/etc", "/usr/bin", "/run", "/nowhere"]
)
async def test_links_at_the_places_lead_nowhere_else(
    name: str, target: str, driver: ContainerDriver, root: Path
) -> None:
    place = root / name
    place.unlink() if place.is_file() else place.rmdir()
    place.symlink_to(target)
    try:
        outcome = await run(driver, root, Launch(("/usr/bin/cat", "/etc/passwd", "/etc/shadow"), {}, "/"))
    except (SandboxCreateError, SandboxDied, LaunchRefused):
        return
    assert "root:" not in outcome.output
    assert "nobody" not in outcome.output


async def test_an_image_without_the_places_is_refused(driver: ContainerDriver, root: Path) -> None:
    (root / "proc").rmdir()
    with pytest.raises(SandboxCreateError, match="entering the root: No such file"):
        await run(driver, root, shell("id"))


async def test_files_that_are_missing_are_no_obstacle(driver: ContainerDriver, root: Path) -> None:
    for name in ("hosts", "hostname", "resolv.conf"):
        (root / "etc" / name).unlink()
    (root / "etc" / "hosts").mkdir()
    outcome = await run(driver, root, shell("ls /etc; ls /etc/hosts"))
    assert outcome.output.split() == ["hosts", "marker"]


async def test_device_nodes_of_an_image_are_dead(driver: ContainerDriver, root: Path) -> None:
    os.mknod(root / "zero", 0o020666, os.makedev(1, 5))
    (root / "zero").chmod(0o666)
    outcome = await run(driver, root, shell("head -c 1 /zero"))
    assert "Permission denied" in outcome.output


async def test_nothing_is_mounted_into_it_later(driver: ContainerDriver, root: Path, tmp_path: Path) -> None:
    sandbox = await driver.create(SandboxSpec("box", LIMITS, {MountPoint.ROOT: root}))
    with pytest.raises(Exception, match="busy"):
        await sandbox.mount({MountPoint.OPT: tmp_path})
    await sandbox.destroy()


async def test_programs_are_found_in_the_path_inside(driver: ContainerDriver, root: Path) -> None:
    environment = {"PATH": "/nowhere:/etc:/usr/bin"}
    (root / "etc" / "env").write_text("not executable")
    outcome = await run(driver, root, Launch(("env",), environment, "/"))
    assert outcome.output == "PATH=/nowhere:/etc:/usr/bin\n"


REFUSED = {
    "missing": (("/nowhere",), "/", 2, False),
    "not in PATH": (("nowhere",), "/", 2, False),
    "not executable": (("/etc/marker",), "/", 13, False),
    "in PATH, not executable": (("marker",), "/", 13, False),
    "not a program": (("/usr/bin/broken",), "/", 8, False),
    "a folder": (("/etc",), "/", 13, False),
    "empty": (("",), "/", 2, False),
    "no such folder": (("env",), "/nowhere", 2, True),
    "no folder": (("env",), "/etc/marker", 20, True),
    "a closed folder": (("env",), "/root", 13, True),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED.keys())
async def test_a_launch_that_fails_says_why(
    case: tuple[tuple[str, ...], str, int, bool], driver: ContainerDriver, root: Path
) -> None:
    argv, folder, number, misplaced = case
    (root / "usr" / "bin" / "broken").write_text("neither ELF nor script")
    (root / "usr" / "bin" / "broken").chmod(0o755)
    (root / "root").chmod(0o700)
    with pytest.raises(LaunchRefused) as refused:
        await run(driver, root, Launch(argv, {**ENVIRONMENT, "PATH": "/usr/bin:/etc"}, folder))
    assert (refused.value.number, refused.value.misplaced) == (number, misplaced)


async def test_python_runs_there(driver: ContainerDriver, root: Path) -> None:
    assert (await run(driver, root, python("import os; print(os.getcwd())"))).output == "/tmp\n"
