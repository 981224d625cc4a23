"""Merged trees as a bounded cache: who keeps them, what ends them, what a restart leaves."""

import asyncio
from pathlib import Path

import pytest

from stoker.packaging.layered import LayeredTrees
from stoker.services.code import CodeMissing


class Trees:
    """Layers named by letters, each with one file."""

    def __init__(self, root: Path, unused_max: int = 2) -> None:
        self.root = root
        (root / "staging").mkdir(exist_ok=True)
        self.made = 0
        self.layered = LayeredTrees(root / "layered", root / "staging", self.ready, unused_max=unused_max)
        self.layered.start()

    async def ready(self, code_sha256: str) -> Path:
        self.made += 1
        if code_sha256 == "missing":
            raise CodeMissing(code_sha256)
        folder = self.root / code_sha256
        folder.mkdir(exist_ok=True)
        (folder / code_sha256).touch()
        return folder

    def kept(self) -> int:
        return len(list((self.root / "layered").iterdir()))


@pytest.fixture
async def trees(tmp_path: Path) -> Trees:
    return Trees(tmp_path)


async def test_many_who_ask_at_once_get_one(trees: Trees) -> None:
    found = await asyncio.gather(*(trees.layered.enter(("a", "b")) for _ in range(20)))
    assert len(set(found)) == 1
    assert trees.made == 2
    assert sorted(file.name for file in found[0].iterdir()) == ["a", "b"]


async def test_the_oldest_unused_goes_and_the_used_stay(trees: Trees) -> None:
    used = await trees.layered.enter(("a", "b"))
    for other in "cdef":
        await trees.layered.enter(("a", other))
        trees.layered.leave(("a", other))
    await trees.layered.close()
    assert trees.kept() == 3
    assert used.exists()
    assert trees.layered.home(("a", "c")) is None
    assert trees.layered.home(("a", "f")) is not None
    assert list((trees.root / "staging").iterdir()) == []


async def test_forgotten_layers_go_once_no_sandbox_has_them(trees: Trees) -> None:
    used, unused = ("a", "b"), ("b", "c")
    await trees.layered.enter(used)
    await trees.layered.enter(unused)
    trees.layered.leave(unused)
    trees.layered.forget("b")
    assert trees.layered.home(unused) is None
    assert trees.layered.home(used) is not None
    trees.layered.leave(used)
    assert trees.layered.home(used) is None
    await trees.layered.close()
    assert trees.kept() == 0


async def test_a_missing_layer_leaves_nothing(trees: Trees) -> None:
    for _ in range(2):
        with pytest.raises(CodeMissing):
            await trees.layered.enter(("a", "missing"))
    assert trees.kept() == 0
    assert list((trees.root / "staging").iterdir()) == []


async def test_a_restart_begins_with_none(trees: Trees) -> None:
    await trees.layered.enter(("a", "b"))
    again = Trees(trees.root)
    await again.layered.close()
    assert again.kept() == 0
    assert list((trees.root / "staging").iterdir()) == []
    assert (await again.layered.enter(("a", "b"))).exists()
