"""A code store with all it stands on, in one folder: for tests that look at trees on the host."""

from collections.abc import Sequence
from pathlib import Path

from stoker.packaging.archive import UNZIPPED_MAX_BYTES
from stoker.packaging.bytecode import LAUNCH_COMMAND, ByteCode
from stoker.packaging.code_images import MountedImages
from stoker.packaging.code_shelves import EitherShelf
from stoker.packaging.code_store import SealedCodeStore, empty_folder
from stoker.packaging.code_trees import UnpackedTrees
from stoker.packaging.code_variants import CodeVariants
from stoker.packaging.code_vault import CodeVault
from stoker.packaging.interpreters import Interpreters
from stoker.packaging.packers import PACKERS_MAX, PackerPool
from stoker.packaging.shelf import Shelf
from stoker.services.code import CodeInUse
from stoker.services.keys import DataKeys
from stoker.services.object_store import ObjectStore
from stoker.services.volumes import ImageMounter
from stoker.store.data_keys import MasterDataKeys
from stoker.store.local_object_store import LocalObjectStore
from stoker.store.sealing import Sealer

ACCOUNT = "000000000000"
CACHE_BYTES = 1024**3


class TreeStore(SealedCodeStore):
    """``packers``, ``bytecode``, ``vault`` and the cache's ``folder`` at hand."""

    packers: PackerPool
    bytecode: ByteCode | None
    vault: CodeVault
    folder: Path
    images: MountedImages | None

    async def compiled(self) -> None:
        """Wait until nothing is made in the background."""
        assert self.images is not None
        await self.images.jobs.idle()

    async def ready(self, code_sha256: str, runtime: str | None = None, account: str = ACCOUNT) -> Path:
        """Its tree, in use from now on."""
        return (await self.used(code_sha256, runtime, account))[0]

    async def used(
        self, code_sha256: str, runtime: str | None = None, account: str = ACCOUNT
    ) -> tuple[Path, Path | None]:
        in_use: CodeInUse = await self.use(code_sha256, (), runtime, account)
        assert isinstance(in_use.task, Path)
        assert in_use.cache is None or isinstance(in_use.cache, Path)
        return in_use.task, in_use.cache

    async def end(self) -> None:
        """Close it and what it stands on."""
        if self.bytecode is not None:
            await self.bytecode.close()
        await self.close()
        await self.packers.close()


def unpacking(data: Path) -> Path:
    """All that packers may write below."""
    return data / "cache" / "unpacking"


def compiling(data: Path) -> Path:
    """Where byte-code is made."""
    return data / "cache" / "compiling"


async def opened(
    data: Path,
    *,
    interpreter: Path | None = None,
    launch: Sequence[str] = LAUNCH_COMMAND,
    compiles: bool = False,
    packers: int = PACKERS_MAX,
    limit_bytes: int = UNZIPPED_MAX_BYTES,
    cache_bytes: int = CACHE_BYTES,
    store: ObjectStore | None = None,
    mounter: ImageMounter | None = None,
    keys: DataKeys | None = None,
) -> TreeStore:
    """A store below ``data``, started. Opened again it is as after a restart."""
    folder = data / "cache"
    empty_folder(folder)
    if store is None:
        store = local = LocalObjectStore(data / "objects")
        await local.start()
    vault = CodeVault(store, keys or MasterDataKeys(Sealer([b"k" * 32])), data / "sealing")
    await vault.start()
    pool = PackerPool(unpacking(data), packers=packers)
    bytecode = ByteCode(compiling(data), lambda _: interpreter, launch=launch) if compiles else None
    shelf = UnpackedTrees(
        folder / "trees", unpacking(data), pool, vault, limit_bytes=cache_bytes, bytecode=bytecode
    )
    shelf.start()
    chosen: Shelf = shelf
    made_images: MountedImages | None = None
    if mounter is not None:
        compiling(data).mkdir(parents=True, exist_ok=True)
        found = Interpreters(lambda _: interpreter)
        variants = CodeVariants(folder, compiling(data), pool, vault, found, launch=launch)
        images = MountedImages(folder, pool, vault, mounter, variants, limit_bytes=cache_bytes)
        chosen = EitherShelf(images, shelf, mounter, on_refused=lambda _: None)
        made_images = images
    made = TreeStore(folder, pool, vault, chosen, limit_bytes=limit_bytes)
    made.packers, made.bytecode, made.vault, made.folder = pool, bytecode, vault, folder
    made.images = made_images
    if bytecode is not None:
        await bytecode.start()
    return made
