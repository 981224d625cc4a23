"""Code as unpacked trees, for hosts that mount no images: plain folders in the bounded cache.

A tree is unpacked by a packer, merged by links where several layers make one, and compiled in place.
"""

import asyncio
import os
import secrets
import shutil
import tempfile
from pathlib import Path
from typing import Final

import msgspec

from stoker.packaging.bytecode import ByteCode
from stoker.packaging.code_vault import CodeVault
from stoker.packaging.held import CacheStatistics, Entry, HeldCache
from stoker.packaging.layered_tree import merge
from stoker.packaging.packers import PackerPool, PackingFailed
from stoker.packaging.protocol import Refused, Unpacked
from stoker.packaging.quiet_jobs import JobStatistics
from stoker.packaging.shelf import Packed, Shelved, stored_code
from stoker.services.volumes import MountSource

TREE: Final = "task"
NODE_BYTES: Final = 4096
"""What a file takes on the disk beyond its content, about."""

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Tree(msgspec.Struct, frozen=True):
    """A folder of its own with a tree in it, and beside it what was compiled apart."""

    home: Path
    size_bytes: int
    bytecode: ByteCode | None = None

    async def discard(self) -> None:
        if self.bytecode is not None and (compiling := self.bytecode.forget_nowait(self.home)):
            await asyncio.wait(compiling)
        await asyncio.to_thread(shutil.rmtree, self.home)


class UnpackedTrees:
    """The Shelf of trees. ``unpacking`` is all that packers may write below, on the disk of ``folder``."""

    def __init__(
        self,
        folder: Path,
        unpacking: Path,
        packers: PackerPool,
        vault: CodeVault,
        *,
        limit_bytes: int,
        bytecode: ByteCode | None = None,
    ) -> None:
        self._folder = folder
        self._unpacking = unpacking
        self._packers = packers
        self._vault = vault
        self._bytecode = bytecode
        self._held = HeldCache[Tree](limit_bytes)

    def start(self) -> None:
        """Begin with none."""
        for folder in (self._folder, self._unpacking):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    async def close(self) -> None:
        await self._held.close()

    def statistics(self) -> CacheStatistics:
        return self._held.statistics()

    def compiling(self) -> JobStatistics:
        return JobStatistics(0, 0, 0, 0) if self._bytecode is None else self._bytecode.jobs()

    async def pack(self, archive: int, limit_bytes: int) -> Packed | Refused:
        """Check an archive by unpacking it."""
        staged = self._staged()
        try:
            answer = await self._unpack(archive, staged, limit_bytes)
            if isinstance(answer, Refused):
                await asyncio.to_thread(shutil.rmtree, staged)
                return answer
            return Packed(answer.unpacked_bytes, self._placed(staged, _size_of(answer)))
        except BaseException:
            await asyncio.shield(asyncio.to_thread(shutil.rmtree, staged, ignore_errors=True))
            raise

    def offer(self, digest: str, packed: Packed) -> None:
        """The tree of code that was stored."""
        assert isinstance(packed.held, Tree)
        self._held.offer(digest, packed.held)

    async def enter(self, codes: tuple[str, ...], runtime: str | None, account: str) -> Shelved:
        """One tree of one code or several layers, with what was compiled of it."""
        entry = await self._entered(codes)
        home = entry.held.home
        self._compile(home, codes, runtime, account)
        return Shelved(home / TREE, self._cache_of(home, runtime, account), lambda: self._held.leave(entry))

    async def prepare(self, codes: tuple[str, ...], runtime: str | None, account: str) -> None:
        """Unpack ahead of the first cold start, and compile once it is quiet."""
        entry = await self._entered(codes)
        if self._bytecode is not None and runtime is not None and _is_compiled(codes, runtime):
            self._bytecode.compile_when_quiet(entry.held.home, runtime, account)
        self._held.leave(entry)

    def forget(self, digest: str) -> None:
        self._held.forget(lambda key: digest in key)

    async def _entered(self, codes: tuple[str, ...]) -> Entry[Tree]:
        if len(codes) == 1:
            return await self._held.enter(codes[0], lambda: self._make(codes[0]))
        return await self._held.enter("+".join(codes), lambda: self._merge(codes))

    def _compile(self, home: Path, codes: tuple[str, ...], runtime: str | None, account: str) -> None:
        if self._bytecode is None or runtime is None or not _is_compiled(codes, runtime):
            return
        if not self._bytecode.is_known(home, runtime, account):
            self._bytecode.compile_nowait(home, runtime, account)

    def _cache_of(self, home: Path, runtime: str | None, account: str) -> MountSource | None:
        if self._bytecode is None or runtime is None:
            return None
        return self._bytecode.folder_of(home, runtime, account)

    async def _make(self, digest: str) -> Tree:
        code = await stored_code(self._vault, digest)
        staged = self._staged()
        try:
            with tempfile.TemporaryFile(dir=self._folder) as original:
                await self._vault.original_into(code, original.fileno())
                answer = await self._unpack(original.fileno(), staged, code.facts.unpacked_bytes)
            if isinstance(answer, Refused):
                raise PackingFailed(f"{digest} was admitted and is refused now: {answer.why}")
            return self._placed(staged, _size_of(answer))
        except BaseException:
            await asyncio.shield(asyncio.to_thread(shutil.rmtree, staged, ignore_errors=True))
            raise

    async def _merge(self, codes: tuple[str, ...]) -> Tree:
        entries: list[Entry[Tree]] = []
        staged = self._staged()
        try:
            for digest in codes:
                entries.append(await self._entered((digest,)))  # noqa: PERF401 - what is entered is left below
            trees = [entry.held.home / TREE for entry in entries]
            await asyncio.to_thread(_merge_into, trees, staged / TREE)
            return self._placed(staged, sum(entry.held.size_bytes for entry in entries))
        except BaseException:
            await asyncio.shield(asyncio.to_thread(shutil.rmtree, staged, ignore_errors=True))
            raise
        finally:
            for entry in entries:
                self._held.leave(entry)

    async def _unpack(self, archive: int, staged: Path, limit_bytes: int) -> Unpacked | Refused:
        tree = os.open(staged / TREE, _DIRECTORY)
        try:
            return await self._packers.unpack(archive, tree, limit_bytes)
        finally:
            os.close(tree)

    def _staged(self) -> Path:
        staged = self._unpacking / secrets.token_hex(8)
        (staged / TREE).mkdir(parents=True, mode=0o755)
        staged.chmod(0o755)
        return staged

    def _placed(self, staged: Path, size_bytes: int) -> Tree:
        """Where no packer can write."""
        home = self._folder / secrets.token_hex(8)
        staged.rename(home)
        return Tree(home, size_bytes, self._bytecode)


def _is_compiled(codes: tuple[str, ...], runtime: str) -> bool:
    return len(codes) == 1 or runtime.startswith("python")


def _size_of(unpacked: Unpacked) -> int:
    return unpacked.unpacked_bytes + (unpacked.members + 1) * NODE_BYTES


def _merge_into(trees: list[Path], target: Path) -> None:
    opened: list[int] = []
    try:
        opened.extend(os.open(folder, _DIRECTORY) for folder in (*trees, target))
        merge(opened[:-1], opened[-1])
    finally:
        for descriptor in opened:
            os.close(descriptor)
