"""What is mounted at /opt for functions of several layers: one merged tree for each ordered list of them.

A cache that a restart empties: it is made again, by links, from the layers' own trees. Belongs to one event
loop.
"""

import asyncio
import hashlib
import os
import secrets
import shutil
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from stoker.packaging.bytecode import ByteCode
from stoker.packaging.layered_tree import merge
from stoker.services.code import CodeMissing

UNUSED_MAX: Final = 256
"""Merged trees kept that no sandbox has mounted; the one unused for longest goes first."""

TREE: Final = "task"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
Layers = tuple[str, ...]


class LayeredTrees:
    """``ready`` makes a layer's own tree ready; ``staging`` is on the file system of ``folder``."""

    def __init__(
        self,
        folder: Path,
        staging: Path,
        ready: Callable[[str], Awaitable[Path]],
        bytecode: ByteCode | None = None,
        *,
        unused_max: int = UNUSED_MAX,
    ) -> None:
        self._folder = folder
        self._staging = staging
        self._ready = ready
        self._bytecode = bytecode
        self._unused_max = unused_max
        self._homes: dict[Layers, Path] = {}
        """In the order of their last use."""
        self._making: dict[Layers, asyncio.Task[Path]] = {}
        self._users: Counter[Layers] = Counter()
        self._doomed: set[Layers] = set()
        """Used still, but of code that was forgotten."""
        self._removing: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin with none: what an earlier life left is removed behind."""
        if self._folder.exists():
            self._remove_behind(self._folder)
        self._folder.mkdir(mode=0o700)

    async def close(self) -> None:
        """Wait for removals under way."""
        while self._removing:
            await asyncio.wait(self._removing)

    async def enter(self, layers: Layers) -> Path:
        """The merged tree, made if need be; it stays until ``leave``.

        Raises:
            CodeMissing: a layer's code is not here; nothing has to be left.
        """
        self._users[layers] += 1
        self._doomed.discard(layers)
        try:
            home = self._homes.pop(layers, None)
            if home is None:
                return await self._made(layers) / TREE
            self._homes[layers] = home
            return home / TREE
        except BaseException:
            self.leave(layers)
            raise

    def leave(self, layers: Layers) -> None:
        """One user less; what nobody uses may go."""
        self._users[layers] -= 1
        if self._users[layers] > 0:
            return
        del self._users[layers]
        if layers in self._doomed:
            self._doomed.discard(layers)
            self._remove(layers)
        unused = [known for known in self._homes if known not in self._users]
        for known in unused[: max(len(unused) - self._unused_max, 0)]:
            self._remove(known)

    def home(self, layers: Layers) -> Path | None:
        """The folder around a merged tree that is there."""
        return self._homes.get(layers)

    def forget(self, code_sha256: str) -> None:
        """Remove whatever holds a layer's files, once no sandbox uses it."""
        for layers in [known for known in self._homes if code_sha256 in known]:
            if layers in self._users:
                self._doomed.add(layers)
            else:
                self._remove(layers)

    async def _made(self, layers: Layers) -> Path:
        making = self._making.get(layers)
        if making is None:
            making = self._making[layers] = asyncio.create_task(self._make(layers))
            making.add_done_callback(lambda _: self._making.pop(layers, None))
        return await asyncio.shield(making)

    async def _make(self, layers: Layers) -> Path:
        trees = [await self._ready(code_sha256) for code_sha256 in layers]
        staged = self._staging / secrets.token_hex(8)
        try:
            await asyncio.to_thread(_merge_into, trees, staged)
        except FileNotFoundError as problem:
            await asyncio.to_thread(shutil.rmtree, staged, ignore_errors=True)
            raise CodeMissing(f"a layer of {layers} was forgotten") from problem
        except BaseException:
            await asyncio.shield(asyncio.to_thread(shutil.rmtree, staged, ignore_errors=True))
            raise
        home = self._folder / hashlib.sha256("\n".join(layers).encode()).hexdigest()
        staged.rename(home)
        self._homes[layers] = home
        return home

    def _remove(self, layers: Layers) -> None:
        home = self._homes.pop(layers, None)
        if home is not None:
            compiling = [] if self._bytecode is None else self._bytecode.forget_nowait(home)
            self._remove_behind(home, *compiling)

    def _remove_behind(self, folder: Path, *others: asyncio.Future[Path | None]) -> None:
        # The rename comes at once: from now on nobody finds it, and the name is free for another.
        trash = self._staging / secrets.token_hex(8)
        folder.rename(trash)
        task = asyncio.create_task(_remove_after(others, trash))
        self._removing.add(task)
        task.add_done_callback(self._removing.discard)


def _merge_into(trees: list[Path], staged: Path) -> None:
    (staged / TREE).mkdir(parents=True)
    staged.chmod(0o755)
    opened: list[int] = []
    try:
        opened.extend(os.open(folder, _DIRECTORY) for folder in (*trees, staged / TREE))
        merge(opened[:-1], opened[-1])
    finally:
        for descriptor in opened:
            os.close(descriptor)


async def _remove_after(others: tuple[asyncio.Future[Path | None], ...], folder: Path) -> None:
    if others:
        await asyncio.wait(others)
    await asyncio.to_thread(shutil.rmtree, folder)
