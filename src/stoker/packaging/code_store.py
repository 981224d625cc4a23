"""Code by CodeSha256 in a folder: the original zip, durable, and beside it the tree that sandboxes mount.

Unpacked in ``.staging``; ``<hex>/original.zip`` and ``<hex>/task`` appear together by one rename. The tree is
not synced to disk: it is trusted only within the boot that made it (``<hex>/boot``), and made again from the
original after another.
"""

import asyncio
import base64
import hashlib
import os
import secrets
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import msgspec

from stoker.core.errors import ServiceError, invalid_parameter
from stoker.packaging.archive import UNZIPPED_MAX_BYTES
from stoker.packaging.bytecode import ByteCode
from stoker.packaging.layered import LayeredTrees
from stoker.packaging.packers import PackerPool, PackersBusy, PackingFailed
from stoker.packaging.protocol import Refused
from stoker.services.code import CodeArtifact, CodeInUse, CodeMissing

HASHED_HERE_MAX_BYTES = 64 * 1024
"""Archives up to this size are hashed in place (36 us) rather than in a packer."""

ADMISSIONS_MAX = 3
"""Tries when code is forgotten while the same archive is admitted."""

ORIGINAL = "original.zip"
TREE = "task"
FACTS = "facts.json"
BOOT = "boot"

_STAGING = ".staging"
_BYTECODE_STAGING = ".bytecode"
_LAYERED = ".layered"

_MESSAGES = {
    "empty": "Uploaded file must be a non-empty zip",
    "too_big": f"Unzipped size must be smaller than {UNZIPPED_MAX_BYTES} bytes",
    "malformed": "Could not unzip uploaded file. Please check your file, then try to upload again.",
}


class _Facts(msgspec.Struct, frozen=True):
    """What was learnt when the code was admitted."""

    size_bytes: int
    unpacked_bytes: int


class LocalCodeStore:
    """The CodeStore port on a local folder."""

    def __init__(
        self,
        folder: Path,
        packers: PackerPool,
        *,
        boot_id: str,
        limit_bytes: int = UNZIPPED_MAX_BYTES,
        bytecode: ByteCode | None = None,
    ) -> None:
        self._folder = folder
        self._staging = staging_folder(folder)
        self._packers = packers
        self._boot_id = boot_id
        self._limit_bytes = limit_bytes
        self._bytecode = bytecode
        self._making: dict[str, asyncio.Task[Path]] = {}
        self._removing: set[asyncio.Task[None]] = set()
        self._layered = LayeredTrees(folder / _LAYERED, self._staging, self.ready, bytecode)

    async def start(self) -> None:
        """Make the folder and remove what a killed process left half done."""
        self._staging.mkdir(parents=True, exist_ok=True, mode=0o700)
        await asyncio.to_thread(_remove_leftovers, self._staging)
        self._layered.start()

    async def close(self) -> None:
        """Wait for removals under way."""
        await self._layered.close()
        if self._removing:
            await asyncio.wait(self._removing)

    async def admit(self, archive: bytes | Path) -> CodeArtifact:
        if isinstance(archive, bytes) and not archive:
            raise invalid_parameter(_MESSAGES["empty"])
        for _ in range(ADMISSIONS_MAX):
            digest = await self._admit(archive)
            # The last step does not wait, so nothing is forgotten between it and the caller's next step.
            known = self._known(digest)
            if known is not None:
                return known
        raise PackingFailed("the code was forgotten again and again while it was admitted")

    async def original(self, code_sha256: str) -> Path | None:
        file = self._home(code_sha256) / ORIGINAL
        return file if file.exists() else None

    async def use(
        self, code_sha256: str, layers: tuple[str, ...], runtime: str | None, account: str
    ) -> CodeInUse:
        task = await self.ready(code_sha256)
        cache = self.prepare_nowait(code_sha256, runtime, account) if runtime else None
        if not layers:
            return CodeInUse(task=task, cache=cache, leave=_nothing)
        opt = await self.layered(layers)
        if runtime:
            self.prepare_layers_nowait(layers, runtime)
        return CodeInUse(task=task, opt=opt, cache=cache, leave=partial(self.leave, layers))

    async def prepare(
        self, code_sha256: str, layers: tuple[str, ...], runtime: str | None, account: str
    ) -> None:
        await self.ready(code_sha256)
        if layers:
            # Merged before the first cold start; nobody uses it yet.
            await self.layered(layers)
            self.leave(layers)
        if runtime:
            self.prepare_when_quiet(code_sha256, runtime, account)
            self.prepare_layers_nowait(layers, runtime)

    async def ready(self, code_sha256: str) -> Path:
        """The unpacked tree; unpacked again when only the original is left."""
        home = self._home(code_sha256)
        if self._is_ready(home):
            return home / TREE
        making = self._making.get(code_sha256)
        if making is None:
            making = asyncio.create_task(self._make_ready(home))
            self._making[code_sha256] = making
            making.add_done_callback(lambda _: self._making.pop(code_sha256, None))
        return await asyncio.shield(making)

    async def artifact(self, code_sha256: str) -> CodeArtifact | None:
        return self._known(self._home(code_sha256).name)

    async def layered(self, layers: tuple[str, ...]) -> Path:
        # A single layer is mounted as it is.
        return await self.ready(layers[0]) if len(layers) == 1 else await self._layered.enter(layers)

    def leave(self, layers: tuple[str, ...]) -> None:
        if len(layers) > 1:
            self._layered.leave(layers)

    def prepare_nowait(self, code_sha256: str, runtime: str, account: str) -> Path | None:
        if self._bytecode is None:
            return None
        home = self._home(code_sha256)
        if not self._bytecode.is_known(home, runtime, account) and self._is_ready(home):
            self._bytecode.compile_nowait(home, runtime, account)
        return self._bytecode.folder_of(home, runtime, account)

    def prepare_when_quiet(self, code_sha256: str, runtime: str, account: str) -> None:
        home = self._home(code_sha256)
        if self._bytecode is not None and self._is_ready(home):
            self._bytecode.compile_when_quiet(home, runtime, account)

    def prepare_layers_nowait(self, layers: tuple[str, ...], runtime: str) -> None:
        if self._bytecode is None or not layers or not runtime.startswith("python"):
            return
        home = self._home(layers[0]) if len(layers) == 1 else self._layered.home(layers)
        if home is None or self._bytecode.is_known(home, runtime):
            return
        if len(layers) > 1 or self._is_ready(home):
            self._bytecode.compile_nowait(home, runtime)

    async def forget(self, code_sha256: str) -> None:
        # The rename comes before the first await: from then on nobody finds the code here.
        trash = self._staging / secrets.token_hex(8)
        home = self._home(code_sha256)
        try:
            home.rename(trash)
        except FileNotFoundError:
            return
        self._layered.forget(code_sha256)
        compiling = [] if self._bytecode is None else self._bytecode.forget_nowait(home)
        removing = asyncio.create_task(_remove_after(compiling, trash))
        self._removing.add(removing)
        removing.add_done_callback(self._removing.discard)

    async def stored(self) -> list[str]:
        return [_base64(name) for name in os.listdir(self._folder) if not name.startswith(".")]

    def _home(self, code_sha256: str) -> Path:
        return self._folder / base64.b64decode(code_sha256, validate=True).hex()

    async def _admit(self, archive: bytes | Path) -> str:
        temporary = self._staging / secrets.token_hex(8)
        try:
            digest = await self._digest(archive, temporary)
            if self._known(digest) is not None:
                return digest
            await asyncio.to_thread(_stage, archive, temporary)
            facts = await self._unpack(temporary / ORIGINAL, temporary / TREE)
            await asyncio.to_thread(_write_facts, temporary, facts, self._boot_id)
            self._publish(temporary, digest)
        except PackersBusy as problem:
            raise ServiceError("TooManyRequestsException", "Rate exceeded") from problem
        finally:
            if temporary.exists():
                await asyncio.shield(asyncio.to_thread(_remove, temporary))
        await asyncio.to_thread(_sync, self._folder)
        return digest

    async def _digest(self, archive: bytes | Path, temporary: Path) -> str:
        if isinstance(archive, bytes) and len(archive) <= HASHED_HERE_MAX_BYTES:
            return hashlib.sha256(archive).hexdigest()
        source = archive
        if isinstance(archive, bytes):
            await asyncio.to_thread(_stage, archive, temporary)
            source = temporary / ORIGINAL
        descriptor = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return (await self._packers.hash(descriptor)).sha256
        finally:
            os.close(descriptor)

    def _known(self, digest: str) -> CodeArtifact | None:
        home = self._folder / digest
        try:
            facts = msgspec.json.decode((home / FACTS).read_bytes(), type=_Facts)
        except FileNotFoundError:
            return None
        return _artifact(digest, facts)

    async def _unpack(self, original: Path, into: Path) -> _Facts:
        archive = os.open(original, os.O_RDONLY | os.O_CLOEXEC)
        tree = os.open(into, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            answer = await self._packers.unpack(archive, tree, self._limit_bytes)
            if isinstance(answer, Refused):
                raise invalid_parameter(_MESSAGES.get(answer.kind, _MESSAGES["malformed"]))
            return _Facts(os.fstat(archive).st_size, answer.unpacked_bytes)
        finally:
            os.close(archive)
            os.close(tree)

    def _publish(self, temporary: Path, digest: str) -> None:
        """The code appears whole; when another admission of the same archive was first, its copy stays."""
        home = self._folder / digest
        try:
            temporary.rename(home)
        except OSError:
            if not (home / FACTS).exists():
                raise

    def _is_ready(self, home: Path) -> bool:
        try:
            return (home / BOOT).read_text() == self._boot_id
        except FileNotFoundError:
            return False

    async def _make_ready(self, home: Path) -> Path:
        if not (home / ORIGINAL).exists():
            raise CodeMissing(home.name)
        temporary = self._staging / secrets.token_hex(8)
        try:
            await self._check_digest(home)
            (temporary / TREE).mkdir(parents=True)
            await self._unpack(home / ORIGINAL, temporary / TREE)
            await asyncio.to_thread(_replace_tree, home, temporary, self._boot_id)
        except ServiceError as problem:
            raise PackingFailed(f"{home.name} was admitted and is refused now") from problem
        except FileNotFoundError as problem:
            raise CodeMissing(home.name) from problem
        finally:
            if temporary.exists():
                await asyncio.shield(asyncio.to_thread(_remove, temporary))
        return home / TREE

    async def _check_digest(self, home: Path) -> None:
        descriptor = os.open(home / ORIGINAL, os.O_RDONLY | os.O_CLOEXEC)
        try:
            hashed = await self._packers.hash(descriptor)
        finally:
            os.close(descriptor)
        if hashed.sha256 != home.name:
            raise PackingFailed(f"the stored archive {home.name} is damaged")


def _nothing() -> None:
    """A tree that a sandbox has mounted lives on after its removal."""


def staging_folder(folder: Path) -> Path:
    """Where code is unpacked before it appears in ``folder``: all that a packer may write below."""
    return folder / _STAGING


def bytecode_staging_folder(folder: Path) -> Path:
    """Where byte-code is made before it appears in the trees below ``folder``."""
    return folder / _BYTECODE_STAGING


def read_boot_id() -> str:
    """The kernel's id of this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _artifact(digest: str, facts: _Facts) -> CodeArtifact:
    return CodeArtifact(_base64(digest), facts.size_bytes, facts.unpacked_bytes)


def _base64(digest: str) -> str:
    return base64.b64encode(bytes.fromhex(digest)).decode()


def _stage(archive: bytes | Path, temporary: Path) -> None:
    """The original with an empty tree beside it, synced; nothing to do when it was staged already."""
    if (temporary / ORIGINAL).exists():
        return
    (temporary / TREE).mkdir(parents=True, mode=0o755)
    temporary.chmod(0o755)
    original = temporary / ORIGINAL
    with original.open("xb") as stream:
        if isinstance(archive, bytes):
            stream.write(archive)
        else:
            with archive.open("rb") as source:
                shutil.copyfileobj(source, stream, 1024 * 1024)
        stream.flush()
        os.fsync(stream.fileno())
    original.chmod(0o600)


def _write_facts(home: Path, facts: _Facts, boot_id: str) -> None:
    with (home / FACTS).open("xb") as stream:
        stream.write(msgspec.json.encode(facts))
        stream.flush()
        os.fsync(stream.fileno())
    (home / BOOT).write_text(boot_id)
    _sync(home)


def _replace_tree(home: Path, temporary: Path, boot_id: str) -> None:
    old = temporary / "old"
    (home / BOOT).unlink(missing_ok=True)
    if (home / TREE).exists():
        (home / TREE).rename(old)
    (temporary / TREE).rename(home / TREE)
    mark = temporary / BOOT
    mark.write_text(boot_id)
    mark.rename(home / BOOT)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


async def _remove_after(others: Sequence[asyncio.Future[Path | None]], folder: Path) -> None:
    if others:
        await asyncio.wait(others)
    await asyncio.to_thread(_remove, folder)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder)


def _remove_leftovers(staging: Path) -> None:
    for entry in staging.iterdir():
        _remove(entry)
