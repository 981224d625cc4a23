"""Freezing has a deadline: what does not freeze is killed, and a thaw calls the deadline off."""

import asyncio
import os
import re
import socket
import stat
from pathlib import Path

import pytest

from stoker.sandbox import container_freezer, container_launch, container_protocol
from stoker.sandbox.container_freezer import Freezer
from stoker.sandbox.container_memory import MemoryMeter
from stoker.sandbox.container_protocol import Handle

NATIVE = Path(__file__).resolve().parents[3] / "native"


class Group:
    """Files in the place of a control group's, so that a group can be one that never freezes."""

    def __init__(self, folder: Path, frozen: bool) -> None:
        (folder / "events").write_text(f"populated 1\nfrozen {int(frozen)}\n")
        for name in ("freeze", "kill"):
            (folder / name).write_text("")
        self.folder = folder
        self.handles = {
            Handle.FREEZE: os.open(folder / "freeze", os.O_WRONLY),
            Handle.KILL: os.open(folder / "kill", os.O_WRONLY),
            Handle.EVENTS: os.open(folder / "events", os.O_RDONLY),
        }


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container_freezer, "FREEZE_DEADLINE_S", 0.05)


@pytest.mark.parametrize(("frozen", "killed"), [(True, 0), (False, 1)])
async def test_only_what_did_not_freeze_is_killed(
    frozen: bool, killed: int, quick: None, tmp_path: Path
) -> None:
    group, kills = Group(tmp_path, frozen), []
    inside, outside = socket.socketpair()
    freezer = Freezer(group.handles, outside, lambda: kills.append(1))
    freezer.freeze()
    assert (tmp_path / "freeze").read_text() == "1"
    await asyncio.sleep(0.15)
    assert len(kills) == killed
    freezer.close()
    inside.close()
    outside.close()


async def test_a_thaw_calls_the_deadline_off(quick: None, tmp_path: Path) -> None:
    group, kills = Group(tmp_path, frozen=False), []
    inside, outside = socket.socketpair()
    freezer = Freezer(group.handles, outside, lambda: kills.append(1))
    freezer.freeze()
    freezer.thaw()
    await asyncio.sleep(0.15)
    assert kills == []
    freezer.close()
    inside.close()
    outside.close()


async def test_a_moved_sandbox_is_frozen_where_it_is_now(quick: None, tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    new.mkdir()
    before, kills = Group(old, frozen=False), []
    inside, outside = socket.socketpair()
    freezer = Freezer(before.handles, outside, lambda: kills.append(1))
    freezer.freeze()
    freezer.adopt(Group(new, frozen=True).handles)
    await asyncio.sleep(0.15)
    assert kills == [], "the deadline of the old group is off"
    freezer.freeze()
    freezer.kill()
    assert [(folder / "freeze").read_text() for folder in (old, new)] == ["1", "1"]
    assert [(folder / "kill").read_text() for folder in (old, new)] == ["", "1"]
    for fd in before.handles.values():
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
    freezer.close()
    inside.close()
    outside.close()


async def test_a_moved_sandboxs_memory_is_read_where_it_is_now(tmp_path: Path) -> None:
    def group(name: str, peak: int, current: int) -> dict[Handle, int]:
        (tmp_path / f"{name}-peak").write_text(f"{peak}\n")
        (tmp_path / f"{name}-current").write_text(f"{current}\n")
        return {
            Handle.MEMORY_PEAK: os.open(tmp_path / f"{name}-peak", os.O_RDONLY),
            Handle.MEMORY_CURRENT: os.open(tmp_path / f"{name}-current", os.O_RDONLY),
        }

    meter = MemoryMeter(group("old", 900, 800), lambda: None)
    assert (meter.peak_bytes(), meter.current_bytes()) == (900, 800)
    meter.adopt(group("new", 70, 60))
    assert (meter.peak_bytes(), meter.current_bytes()) == (70, 60)
    meter.close()


def constants(header: str) -> dict[str, int]:
    text = (NATIVE / header).read_text()
    found = re.findall(r"^#define (\w+) (0x[0-9a-f]+|\d+)u?\b", text, re.MULTILINE)
    found += re.findall(r"^\s+(\w+) = (\d+),", text, re.MULTILINE)
    return {name: int(value, 0) for name, value in found}


def test_both_sides_speak_of_the_same_numbers() -> None:
    jail, init = constants("jail/protocol.h"), constants("init/control.h")
    assert jail["JAIL_MAGIC"] == container_protocol.MAGIC
    assert jail["JAIL_VERSION"] == container_protocol.VERSION
    for operation in container_protocol.Operation:
        assert jail[f"JAIL_{operation.name}"] == operation
    for feature in container_protocol.Feature:
        assert jail[f"JAIL_{feature.name}"] == feature
    bits = [value for name, value in jail.items() if re.match(r"JAIL_(NO_|TMP_IN|SHARED)", name)]
    assert sorted(bits) == [1 << bit for bit in range(len(container_protocol.DEGRADED))]
    order = re.findall(r"^\s+JAIL_FD_(\w+),", (NATIVE / "jail/protocol.h").read_text(), re.MULTILINE)
    assert order == [handle.name for handle in Handle]
    assert init["INIT_MAGIC"] == container_launch.MAGIC
    assert init["INIT_FD_TELEMETRY"] == container_launch.TELEMETRY_FD_INSIDE
    for item in (*container_launch.InitOperation, *container_launch.ReportKind):
        assert init[f"INIT_{item.name}"] == item


@pytest.mark.parametrize("name", ["stoker-jail", "stoker-init"])
def test_the_programs_need_no_library_of_the_host(name: str) -> None:
    program = NATIVE / "bin" / name
    if not program.exists():
        pytest.skip("native programs are not built: make -C native")
    assert program.stat().st_mode & stat.S_IXOTH
    assert b"/ld-linux" not in program.read_bytes()[:4096]
