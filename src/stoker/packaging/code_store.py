"""The CodeStore port: code sealed in the object store, made mountable by a shelf, plain in the cache alone.

``folder`` is that cache, readable by nobody else and emptied at every start.
"""

import asyncio
import base64
import hashlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from stoker.core.errors import ServiceError, StokerError, invalid_parameter
from stoker.packaging.archive import UNZIPPED_MAX_BYTES
from stoker.packaging.artifacts import ArtifactDamaged
from stoker.packaging.code_vault import CodeVault, Facts, SealedCode
from stoker.packaging.held import CacheStatistics, HeldCache
from stoker.packaging.packers import PackerPool, PackersBusy, PackingFailed
from stoker.packaging.protocol import Refused
from stoker.packaging.quiet_jobs import JobStatistics
from stoker.packaging.shelf import Packed, Shelf, Shelved
from stoker.services.code import CodeArtifact, CodeInUse, CodeKey, CodeMissing, CodeUnavailable, code_name
from stoker.services.keys import KeyRefused, KeyUnavailable

HASHED_HERE_MAX_BYTES: Final = 64 * 1024
"""Archives up to this size are hashed in place (36 us) rather than in a packer."""

IN_MEMORY_MAX_BYTES: Final = 1024 * 1024
"""Archives up to this size are handed to packers in memory, larger ones in a file without a name."""

ADMISSIONS_MAX: Final = 3
"""Tries when code is forgotten while the same archive is admitted."""

DOWNLOADS_MAX_BYTES: Final = 512 * 1024**2
"""Decrypted originals that are kept for downloads; the oldest go first ..."""

DOWNLOAD_BEGINS_WITHIN_S: Final = 60.0
"""... but none before it was there this long: whoever was told its name opens it."""

_MESSAGES = {
    "empty": "Uploaded file must be a non-empty zip",
    "too_big": f"Unzipped size must be smaller than {UNZIPPED_MAX_BYTES} bytes",
    "malformed": "Could not unzip uploaded file. Please check your file, then try to upload again.",
}


class _Download(msgspec.Struct, frozen=True):
    """A decrypted original."""

    file: Path
    size_bytes: int

    async def discard(self) -> None:
        self.file.unlink()


class SealedCodeStore:
    """The CodeStore port over a vault and a shelf. Belongs to one event loop."""

    def __init__(
        self,
        folder: Path,
        packers: PackerPool,
        vault: CodeVault,
        shelf: Shelf,
        *,
        limit_bytes: int = UNZIPPED_MAX_BYTES,
    ) -> None:
        self._folder = folder
        self._packers = packers
        self._vault = vault
        self._shelf = shelf
        self._limit_bytes = limit_bytes
        self._downloads = HeldCache[_Download](DOWNLOADS_MAX_BYTES)
        self._leaving: set[asyncio.TimerHandle] = set()

    async def close(self) -> None:
        """Discard all that is plain; whoever used it has left it."""
        for timer in self._leaving:
            timer.cancel()
        await self._downloads.close()
        await self._shelf.close()

    def cache(self) -> CacheStatistics:
        """Of code that is decrypted and mountable."""
        return self._shelf.statistics()

    def compiling(self) -> JobStatistics:
        """Of what is made of code after it was admitted."""
        return self._shelf.compiling()

    async def admit(self, archive: bytes | Path, key: CodeKey | None = None) -> CodeArtifact:
        if isinstance(archive, bytes) and not archive:
            raise invalid_parameter(_MESSAGES["empty"])
        for _ in range(ADMISSIONS_MAX):
            digest = await self._admit(archive, key)
            # The last step does not wait, so nothing is forgotten between it and the caller's next step.
            known = self._vault.known(digest)
            if known is not None:
                return _artifact(known)
        raise PackingFailed("the code was forgotten again and again while it was admitted")

    async def original(self, code_sha256: str) -> Path | None:
        code = await self._vault.find(_digest(code_sha256))
        if code is None:
            return None
        try:
            entry = await self._downloads.enter(code.digest, lambda: self._decrypted(code))
        except CodeMissing:  # forgotten since
            return None
        loop = asyncio.get_running_loop()

        def leave() -> None:
            self._leaving.discard(timer)
            self._downloads.leave(entry)

        timer = loop.call_later(DOWNLOAD_BEGINS_WITHIN_S, leave)
        self._leaving.add(timer)
        return entry.held.file

    async def try_key(self, code_sha256: str) -> None:
        await self._vault.try_key(_digest(code_sha256))

    async def artifact(self, code_sha256: str) -> CodeArtifact | None:
        code = await self._vault.find(_digest(code_sha256))
        return None if code is None else _artifact(code)

    async def use(
        self, code_sha256: str, layers: tuple[str, ...], runtime: str | None, account: str
    ) -> CodeInUse:
        with _explained(code_sha256):
            await self._try_known(code_sha256)
            task = await self._shelf.enter((_digest(code_sha256),), runtime, account)
            if not layers:
                return CodeInUse(task=task.source, cache=task.cache, leave=task.leave)
            try:
                opt = await self._shelf.enter(_digests(layers), _layers_runtime(runtime), account)
            except BaseException:
                task.leave()
                raise
        return CodeInUse(
            task=task.source, opt=opt.source, cache=task.cache, leave=lambda: _leave((task, opt))
        )

    async def prepare(
        self, code_sha256: str, layers: tuple[str, ...], runtime: str | None, account: str
    ) -> None:
        with _explained(code_sha256):
            await self._shelf.prepare((_digest(code_sha256),), runtime, account)
            if layers:
                await self._shelf.prepare(_digests(layers), _layers_runtime(runtime), account)

    async def forget(self, code_sha256: str) -> None:
        digest = _digest(code_sha256)
        self._shelf.forget(digest)
        self._downloads.forget(lambda key: key == digest)
        await self._vault.forget(digest)

    async def stored(self) -> list[str]:
        await self._vault.listed.wait()
        return [_base64(digest) for digest in self._vault.digests()]

    async def _try_known(self, code_sha256: str) -> None:
        """A key of KMS that refuses ends new uses, also of what is on the shelf already."""
        known = self._vault.known(_digest(code_sha256))
        if known is not None and known.function_arn:
            await self._vault.try_key(known.digest)

    async def _admit(self, archive: bytes | Path, key: CodeKey | None) -> str:
        try:
            with _opened(archive, self._folder) as file:
                sha256 = await self._digest_of(archive, file)
                digest = _digest(code_name(_base64(sha256), key))
                if not await self._is_whole(digest):
                    await self._pack_and_store(digest, sha256, file, key)
                elif key is not None:
                    await self._vault.try_key(digest)
                return digest
        except PackersBusy as problem:
            raise ServiceError("TooManyRequestsException", "Rate exceeded") from problem

    async def _is_whole(self, digest: str) -> bool:
        """Whether it is stored; what is stored damaged makes room for what was uploaded again."""
        try:
            return await self._vault.find(digest) is not None
        except ArtifactDamaged:
            await self._vault.forget(digest)
            return False

    async def _pack_and_store(self, digest: str, sha256: str, file: int, key: CodeKey | None) -> None:
        packed = await self._shelf.pack(file, self._limit_bytes)
        if isinstance(packed, Refused):
            raise invalid_parameter(_MESSAGES.get(packed.kind, _MESSAGES["malformed"]))
        try:
            facts = _facts(file, packed, "" if digest == sha256 else sha256)
            await self._vault.put(digest, facts, _files(file, packed), key)
        except BaseException:
            await asyncio.shield(packed.held.discard())
            raise
        self._shelf.offer(digest, packed)

    async def _digest_of(self, archive: bytes | Path, file: int) -> str:
        if isinstance(archive, bytes) and len(archive) <= HASHED_HERE_MAX_BYTES:
            return hashlib.sha256(archive).hexdigest()
        return (await self._packers.hash(file)).sha256

    async def _decrypted(self, code: SealedCode) -> _Download:
        file = self._folder / f"download-{secrets.token_hex(8)}.zip"
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            await self._vault.original_into(code, descriptor)
        except BaseException:
            file.unlink()
            raise
        finally:
            os.close(descriptor)
        return _Download(file, code.facts.size_bytes)


def empty_folder(folder: Path) -> None:
    """Make a folder that is this user's alone, with nothing in it."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


@contextmanager
def _explained(code_sha256: str) -> Generator[None]:
    """Whatever keeps code from being used, in the words of the port."""
    try:
        yield
    except (CodeMissing, KeyRefused, KeyUnavailable):
        raise
    except (StokerError, OSError) as problem:
        raise CodeUnavailable(f"the code {code_sha256} cannot be used now: {problem}") from problem


@contextmanager
def _opened(archive: bytes | Path, folder: Path) -> Generator[int]:
    """An open file with the archive, that has no name unless it had one before."""
    if isinstance(archive, Path):
        with archive.open("rb") as file:
            yield file.fileno()
    elif len(archive) <= IN_MEMORY_MAX_BYTES:
        descriptor = os.memfd_create("archive", os.MFD_CLOEXEC)
        try:
            os.write(descriptor, archive)
            yield descriptor
        finally:
            os.close(descriptor)
    else:
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            file.write(archive)
            yield file.fileno()


def _facts(file: int, packed: Packed, sha256: str) -> Facts:
    return Facts(os.fstat(file).st_size, packed.unpacked_bytes, packed.image_bytes, sha256)


def _files(file: int, packed: Packed) -> tuple[int, ...]:
    return (file,) if packed.image is None else (file, packed.image)


def _leave(shelved: Iterable[Shelved]) -> None:
    for each in shelved:
        each.leave()


def _layers_runtime(runtime: str | None) -> str | None:
    """Only Python is compiled at /opt."""
    return runtime if runtime is not None and runtime.startswith("python") else None


def _artifact(code: SealedCode) -> CodeArtifact:
    return CodeArtifact(
        _base64(code.facts.sha256 or code.digest), code.facts.size_bytes, code.facts.unpacked_bytes
    )


def _digest(code_sha256: str) -> str:
    return base64.b64decode(code_sha256, validate=True).hex()


def _digests(layers: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(map(_digest, layers))


def _base64(digest: str) -> str:
    return base64.b64encode(bytes.fromhex(digest)).decode()
