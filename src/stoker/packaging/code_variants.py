"""What is made of stored code later and stored beside it: images with byte-code or of layers, and packs.

Sealed like the code, so that no restart makes it again. Knows nothing of who mounts or waits.
"""

import asyncio
import os
import tempfile
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import msgspec

from stoker.packaging.bytecode_tree import (
    BYTECODE_MAX_BYTES,
    Dialect,
    Source,
    sources_without_bytecode,
    zip_finished,
)
from stoker.packaging.code_cache import PACK_MAX_BYTES, build_of, fill, finished, scripts_of
from stoker.packaging.code_vault import LAYERS, CodeVault, short
from stoker.packaging.compile_job import LAUNCH_COMMAND, Job, Recipe
from stoker.packaging.interpreters import Interpreters, is_node, is_python
from stoker.packaging.nameless import open_nameless
from stoker.packaging.packers import PackerPool, PackingFailed
from stoker.packaging.protocol import Refused
from stoker.packaging.shelf import stored_code
from stoker.services.volumes import MountedTree

_PLAIN: Final = "image"
_PACK: Final = "pack"


class Variant(msgspec.Struct, frozen=True):
    """Something to be made of code, or of several layers together."""

    codes: tuple[str, ...]
    name: str
    """As it is stored, among what belongs to the first code."""
    runtime: str | None
    """Whose compiler; None where nothing is compiled."""

    @property
    def key(self) -> str:
        return f"{'+'.join(self.codes)}:{self.name}"

    @property
    def is_pack(self) -> bool:
        """V8's code caches, rather than an image."""
        return self.name.startswith(_PACK)


class PythonZip(msgspec.Struct, frozen=True):
    """Byte-code into an open zip file."""

    interpreter: Path
    dialect: Dialect
    archive: int
    language: str = "python"
    output_max_bytes: int = BYTECODE_MAX_BYTES

    def sources(self, tree: int) -> list[str]:
        return [source.path for source in sources_without_bytecode(tree, self.dialect)]

    def place(self, tree: int, out: int, sources: list[str]) -> int:
        known = [Source(folder, name) for folder, _, name in (path.rpartition("/") for path in sources)]
        return zip_finished(tree, out, known, self.dialect, self.archive)


class NodePack(msgspec.Struct, frozen=True):
    """V8's caches into an open file."""

    interpreter: Path
    pack: int
    language: str = "nodejs"
    output_max_bytes: int = PACK_MAX_BYTES

    def sources(self, tree: int) -> list[str]:
        return scripts_of(tree)

    def place(self, tree: int, out: int, sources: list[str]) -> int:
        caches = finished(out, sources)
        if caches:
            fill(self.pack, out, caches)
        return len(caches)


class CodeVariants:
    """Makes and names variants. ``staging`` is nobody else's folder: compilers write there."""

    def __init__(
        self,
        folder: Path,
        staging: Path,
        packers: PackerPool,
        vault: CodeVault,
        interpreters: Interpreters,
        *,
        launch: Sequence[str] = LAUNCH_COMMAND,
    ) -> None:
        self._folder = folder
        self._staging = staging
        self._packers = packers
        self._vault = vault
        self._interpreters = interpreters
        self._launch = launch
        self._builds: dict[str, str | None] = {}

    async def wanted(self, codes: tuple[str, ...], runtime: str | None, account: str) -> tuple[Variant, ...]:
        """What use of these codes is quicker with: an image first, if at all.

        Raises:
            CodeMissing: the first one is not stored.
        """
        code = await stored_code(self._vault, codes[0])
        merged = LAYERS + "-".join(map(short, codes[1:])) if len(codes) > 1 else ""
        build = None if runtime is None else await self._build(runtime)
        if build is not None and is_python(runtime):
            return (Variant(codes, "-".join(filter(None, (merged, runtime, build))), runtime),)
        image = (Variant(codes, merged or _PLAIN, None),) if merged or not code.facts.image_bytes else ()
        if build is None or len(codes) > 1:
            return image
        return (*image, Variant(codes, f"{_PACK}-{runtime}-{account}-{build}", runtime))

    def is_stored(self, variant: Variant) -> bool:
        return self._vault.has_variant(variant.codes[0], variant.name)

    async def read_into(self, variant: Variant, file: int) -> None:
        """Write a stored variant; raises as the vault's ``variant_into``."""
        await self._vault.variant_into(await stored_code(self._vault, variant.codes[0]), variant.name, file)

    async def drop(self, variant: Variant) -> None:
        """Delete one that is damaged."""
        await self._vault.drop_variant(variant.codes[0], variant.name)

    async def make(self, variant: Variant, tree: MountedTree) -> int | None:
        """Make it of the mounted code and store it; an open file with it, None when there is nothing to make.

        Raises:
            StokerError, OSError, ValueError: nothing was stored.
        """
        await self._vault.listed.wait()
        if self.is_stored(variant):
            return None
        code = await stored_code(self._vault, variant.codes[0])
        file = open_nameless(self._folder)
        try:
            filled = self._fill_pack if variant.is_pack else self._fill_image
            if await filled(variant, tree, file):
                await self._vault.put_variant(code, variant.name, file)
            if await self._is_whole(variant):
                return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)
        return None

    async def pack(self, codes: tuple[str, ...], image: int, more: tuple[int, ...] = ()) -> None:
        """Write the image of stored codes, later ones over earlier ones, and of ``more`` open archives.

        Raises:
            CodeMissing, PackingFailed
        """
        with ExitStack() as stack:
            archives: list[int] = []
            limit_bytes = BYTECODE_MAX_BYTES
            for digest in codes:
                code = await stored_code(self._vault, digest)
                archive = stack.enter_context(tempfile.TemporaryFile(dir=self._folder))
                await self._vault.original_into(code, archive.fileno())
                archives.append(archive.fileno())
                limit_bytes = max(limit_bytes, code.facts.unpacked_bytes)
            answer = await self._packers.pack([*archives, *more], image, limit_bytes)
        if isinstance(answer, Refused):
            raise PackingFailed(f"{codes} were admitted and are refused now: {answer.why}")

    async def _is_whole(self, variant: Variant) -> bool:
        """Whether it is stored, and so is all that it was made of."""
        if all(map(self._vault.is_stored, variant.codes)):
            return self.is_stored(variant)
        await self.drop(variant)
        return False

    async def _fill_image(self, variant: Variant, tree: MountedTree, image: int) -> bool:
        if variant.runtime is None:
            await self.pack(variant.codes, image)
            return True
        code = await stored_code(self._vault, variant.codes[0])
        interpreter = await self._interpreter(variant.runtime)
        dialect = await asyncio.to_thread(self._interpreters.dialect, interpreter)
        with tempfile.TemporaryFile(dir=self._folder) as archive:
            compiled = await self._compile(PythonZip(interpreter, dialect, archive.fileno()), tree)
            if not compiled and len(variant.codes) == 1 and code.facts.image_bytes:
                return False
            await self.pack(variant.codes, image, (archive.fileno(),) if compiled else ())
        return True

    async def _fill_pack(self, variant: Variant, tree: MountedTree, pack: int) -> bool:
        assert variant.runtime is not None
        interpreter = await self._interpreter(variant.runtime)
        return bool(await self._compile(NodePack(interpreter, pack), tree))

    async def _compile(self, recipe: Recipe, tree: MountedTree) -> int:
        """Returns how many files; its compiler is gone when this ends, also by a cancellation."""
        opened = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=tree.folder)
        cancelled = threading.Event()
        job = Job(opened, recipe, self._launch)
        working = asyncio.ensure_future(asyncio.to_thread(job.run, self._staging, cancelled))
        try:
            return await asyncio.shield(working)
        finally:
            cancelled.set()
            await asyncio.wait([working])
            os.close(opened)

    async def _interpreter(self, runtime: str) -> Path:
        interpreter = await asyncio.to_thread(self._interpreters.of, runtime)
        assert interpreter is not None  # its build is in the variant's name
        return interpreter

    async def _build(self, runtime: str) -> str | None:
        """Which program compiles for a runtime; None where none does."""
        if runtime not in self._builds:
            if not is_node(runtime) and not is_python(runtime):
                return None
            interpreter = await asyncio.to_thread(self._interpreters.of, runtime)
            self._builds[runtime] = None if interpreter is None else build_of(interpreter)
        return self._builds[runtime]
