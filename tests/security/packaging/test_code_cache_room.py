"""However many accounts upload an archive, its packs take a bounded part of the disk."""

import os
from pathlib import Path

import pytest

from stoker.packaging import code_cache
from stoker.packaging.code_cache import NodeRecipe

CACHE_BYTES = 16 * 1024


def _place(folder: Path, accounts: int) -> list[str]:
    """The accounts whose packs are there after each got one, oldest first."""
    tree, out = folder / "task", folder / "out"
    tree.mkdir()
    out.mkdir()
    (out / "0").write_bytes(os.urandom(CACHE_BYTES))
    opened = [os.open(each, os.O_RDONLY | os.O_DIRECTORY) for each in (tree, out)]
    recipes = [
        NodeRecipe(Path("/usr/bin/node"), folder, f"{number:012}", "build") for number in range(accounts)
    ]
    try:
        for recipe in recipes:
            assert recipe.place(*opened, ["a.js"]) == 1
            made = recipe.made()
            assert made is not None
            stamp = int(recipe.account) * 10**9
            os.utime(made, ns=(stamp, stamp))
    finally:
        for descriptor in opened:
            os.close(descriptor)
    return [str(int(recipe.account)) for recipe in recipes if recipe.made()]


def test_packs_are_counted(tmp_path: Path) -> None:
    assert _place(tmp_path, 20) == [str(number) for number in range(4, 20)]


def test_packs_are_bounded_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_cache, "PACKS_MAX_BYTES", 4 * CACHE_BYTES)
    assert _place(tmp_path, 8) == ["5", "6", "7"]
    assert sum(each.stat().st_size for each in tmp_path.glob("compiled/*/*")) <= 4 * CACHE_BYTES
