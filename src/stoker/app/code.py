"""Opens the code store: sealed in the object store, plain in a cache below the data folder."""

import asyncio
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from stoker.app.host import KERNEL_OF_IMAGES, kernel_version
from stoker.app.stored_code import StoredCode
from stoker.core.configuration import Settings
from stoker.packaging.bytecode import ByteCode
from stoker.packaging.code_images import MountedImages
from stoker.packaging.code_shelves import EitherShelf
from stoker.packaging.code_store import SealedCodeStore, empty_folder
from stoker.packaging.code_takeover import take_over
from stoker.packaging.code_trees import UnpackedTrees
from stoker.packaging.code_variants import CodeVariants
from stoker.packaging.code_vault import CodeVault
from stoker.packaging.interpreters import Interpreters
from stoker.packaging.packers import PackerPool
from stoker.packaging.shelf import Shelf
from stoker.runtimes.catalog import RuntimeCatalog
from stoker.services.volumes import ImageMounter

MEGABYTE: Final = 1024 * 1024
CODE_CACHE: Final = "cache/code"
"""In the data folder: the only place where code lies decrypted."""

COMPILING: Final = "compiling"
"""In that folder: where compilers write, and packers cannot."""

IMAGES: Final = "images"
"""The value of ``code_mounts`` with which code is not unpacked."""

_log = structlog.get_logger("stoker.app")


async def open_code(
    settings: Settings,
    vault: CodeVault,
    runtimes: RuntimeCatalog,
    mounter: ImageMounter,
    stack: AsyncExitStack,
) -> tuple[SealedCodeStore, StoredCode]:
    """The store, with what an earlier version kept plain taken over; ``stack`` closes it.

    Raises:
        StokerError: the keys or the host fail. A store that does not answer is asked again behind.
    """
    data = Path(settings.data)
    folder = data / CODE_CACHE
    await asyncio.to_thread(empty_folder, folder)
    packers = PackerPool(folder / "unpacking")
    await packers.start()
    stack.push_async_callback(packers.close)
    stored = StoredCode(vault, lambda: _take_over(data / "code", vault, packers))
    stack.push_async_callback(stored.close)
    await stored.start()
    bytecode = ByteCode(folder / COMPILING, partial(_interpreter_of, runtimes))
    limit_bytes = settings.code_cache_mb * MEGABYTE
    trees = UnpackedTrees(
        folder / "trees",
        folder / "unpacking",
        packers,
        vault,
        limit_bytes=limit_bytes,
        bytecode=bytecode,
    )
    trees.start()
    shelf: Shelf = trees
    if settings.code_mounts == IMAGES and kernel_version() >= KERNEL_OF_IMAGES:
        interpreters = Interpreters(partial(_interpreter_of, runtimes))
        variants = CodeVariants(folder, folder / COMPILING, packers, vault, interpreters)
        images = MountedImages(folder, packers, vault, mounter, variants, limit_bytes=limit_bytes)
        shelf = EitherShelf(images, trees, mounter, on_refused=_say_refused)
    code = SealedCodeStore(folder, packers, vault, shelf)
    stack.push_async_callback(code.close)
    await bytecode.start()
    stack.push_async_callback(bytecode.close)
    return code, stored


async def _take_over(folder: Path, vault: CodeVault, packers: PackerPool) -> None:
    damaged = await take_over(folder, vault, packers)
    if damaged:
        _log.warning("archives of an earlier version are damaged and were not taken over", code=damaged)


def _say_refused(why: str) -> None:
    _log.warning("code is unpacked, since its image cannot be mounted", why=why)


def _interpreter_of(runtimes: RuntimeCatalog, runtime: str) -> Path | None:
    """The interpreter for which a runtime's code is compiled; None where there is nothing to compile."""
    if not runtime.startswith(("python", "nodejs")):
        return None
    found = (Path(known.program) for known in runtimes.available() if known.name == runtime)
    return next(found, None)
