"""A fake of the CodeStore port for tests: takes any zip, unpacks it in place, can be told to fail."""

import asyncio
import base64
import hashlib
import io
import shutil
import zipfile
from pathlib import Path

from stoker.core.errors import invalid_parameter
from stoker.services.code import CodeArtifact, CodeInUse, CodeKey, CodeMissing, code_name


class MemoryCodeStore:
    """Archives in a dictionary, trees below ``folder``; never give it an archive you do not trust."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._artifacts: dict[str, CodeArtifact] = {}
        self._next_error: Exception | None = None
        self.gate = asyncio.Event()
        """``use`` waits while this is clear."""
        self.gate.set()
        self.prepared: list[tuple[str, tuple[str, ...], str | None]] = []
        """What ``prepare`` was asked for; nothing is compiled here."""
        self.in_use = 0
        """How often code was asked for and not left."""
        self.refused_keys: dict[str, Exception] = {}
        """By the ARN of a key of KMS: what its use raises."""
        self._keys: dict[str, CodeKey | None] = {}

    def fail_next(self, error: Exception) -> None:
        """The next call of ``admit`` or ``use`` raises ``error``."""
        self._next_error = error

    async def admit(self, archive: bytes | Path, key: CodeKey | None = None) -> CodeArtifact:
        self._check()
        self._check_key(key)
        content = archive if isinstance(archive, bytes) else await asyncio.to_thread(archive.read_bytes)
        if not content:
            raise invalid_parameter("Uploaded file must be a non-empty zip")
        try:
            opened = zipfile.ZipFile(io.BytesIO(content))
        except zipfile.BadZipFile as problem:
            raise invalid_parameter(
                "Could not unzip uploaded file. Please check your file, then try to upload again."
            ) from problem
        digest = hashlib.sha256(content)
        code_sha256 = base64.b64encode(digest.digest()).decode()
        name = code_name(code_sha256, key)
        self._keys[name] = key
        home = self._home(name)
        opened.extractall(home / "task")
        (home / "original.zip").write_bytes(content)
        unpacked_bytes = sum(info.file_size for info in opened.infolist())
        self._artifacts[name] = CodeArtifact(code_sha256, len(content), unpacked_bytes)
        return self._artifacts[name]

    async def original(self, code_sha256: str) -> Path | None:
        return self._home(code_sha256) / "original.zip" if code_sha256 in self._artifacts else None

    async def use(
        self, code_sha256: str, layers: tuple[str, ...], runtime: str | None, account: str
    ) -> CodeInUse:
        task = await self._ready(code_sha256)
        opt = await self._layered(layers) if layers else None
        self.in_use += 1
        return CodeInUse(task=task, opt=opt, leave=self._leave)

    async def prepare(
        self, code_sha256: str, layers: tuple[str, ...], runtime: str | None, account: str
    ) -> None:
        (await self.use(code_sha256, layers, runtime, account)).leave()
        self.prepared.append((code_sha256, layers, runtime))

    def _leave(self) -> None:
        self.in_use -= 1

    async def _ready(self, code_sha256: str) -> Path:
        await self.gate.wait()
        self._check()
        if code_sha256 not in self._artifacts:
            raise CodeMissing(code_sha256)
        await self.try_key(code_sha256)
        return self._home(code_sha256) / "task"

    async def try_key(self, code_sha256: str) -> None:
        self._check_key(self._keys.get(code_sha256))

    def _check_key(self, key: CodeKey | None) -> None:
        if key is not None and key.kms_key_arn in self.refused_keys:
            raise self.refused_keys[key.kms_key_arn]

    async def artifact(self, code_sha256: str) -> CodeArtifact | None:
        return self._artifacts.get(code_sha256)

    async def _layered(self, layers: tuple[str, ...]) -> Path:
        trees = [await self._ready(code_sha256) for code_sha256 in layers]
        merged = self._folder / "-".join(tree.parent.name[:8] for tree in trees)
        for tree in trees:
            await asyncio.to_thread(shutil.copytree, tree, merged, dirs_exist_ok=True)
        return merged

    async def forget(self, code_sha256: str) -> None:
        self._artifacts.pop(code_sha256, None)

    async def stored(self) -> list[str]:
        return list(self._artifacts)

    def _home(self, code_sha256: str) -> Path:
        return self._folder / base64.b64decode(code_sha256).hex()

    def _check(self) -> None:
        error, self._next_error = self._next_error, None
        if error is not None:
            raise error
