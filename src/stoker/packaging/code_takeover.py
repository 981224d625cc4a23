"""Takes over the code folder of versions of Stoker that kept archives plain: each is sealed, then removed.

Killed at any moment it goes on at the next start: an archive is removed only once it is stored for good.
"""

import asyncio
import os
import re
import shutil
from pathlib import Path
from typing import Final

import msgspec

from stoker.packaging.code_vault import CodeVault, Facts
from stoker.packaging.packers import PackerPool

_ORIGINAL: Final = "original.zip"
_FACTS: Final = "facts.json"
_DIGEST: Final = re.compile("[0-9a-f]{64}")
_DERIVED: Final = (".staging", ".bytecode", ".layered")


async def take_over(folder: Path, vault: CodeVault, packers: PackerPool) -> list[str]:
    """Move everything of ``folder`` into the vault; nothing happens where there is none.

    Returns the digests of archives that are not what they were when they were stored: they stay in place.

    Raises:
        StokerError, OSError: the store, the keys or the host failed; what is left is taken over another time.
    """
    names = await asyncio.to_thread(_begin, folder)
    damaged = [name for name in names if not await _move(folder / name, vault, packers)]
    if names and not damaged:
        await asyncio.to_thread(shutil.rmtree, folder)
    return damaged


def _begin(folder: Path) -> list[str]:
    """The digests in the folder; what was derived from them goes."""
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return []
    for name in names:
        if name in _DERIVED:
            shutil.rmtree(folder / name)
    return [name for name in names if _DIGEST.fullmatch(name)]


async def _move(home: Path, vault: CodeVault, packers: PackerPool) -> bool:
    if not vault.is_stored(home.name):
        try:
            facts = msgspec.json.decode((home / _FACTS).read_bytes(), type=Facts)
            original = os.open(home / _ORIGINAL, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            if (await packers.hash(original)).sha256 != home.name:
                return False
            await vault.put(home.name, facts, (original,))
        finally:
            os.close(original)
    await asyncio.to_thread(shutil.rmtree, home)
    return True
