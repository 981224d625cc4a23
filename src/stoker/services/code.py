"""Code: what ``control`` admits, ``packaging`` keeps and a worker mounts."""

from pathlib import Path
from typing import Protocol

import msgspec

from stoker.core.errors import StokerError


class CodeArtifact(msgspec.Struct, frozen=True):
    """Code that was checked, stored and made ready."""

    code_sha256: str
    """Base64 of the SHA-256 of the uploaded zip."""
    size_bytes: int
    unpacked_bytes: int


class CodeMissing(StokerError):
    """No code is stored under that CodeSha256."""


class CodeStore(Protocol):
    """Zip archives by CodeSha256, each unpacked once. Hostile archives are parsed outside this process."""

    async def admit(self, archive: bytes | Path) -> CodeArtifact:
        """Check, store and unpack a zip archive; idempotent.

        Raises:
            ServiceError: InvalidParameterValueException with Lambda's wording when it is not a zip that
                Lambda would take; nothing was stored.
        """
        ...

    async def original(self, code_sha256: str) -> Path | None:
        """The uploaded archive, byte for byte; None when it is not here."""
        ...

    async def ready(self, code_sha256: str) -> Path:
        """The folder to mount at /var/task; unpacked again when only the original is left.

        Raises:
            CodeMissing: neither is here.
        """
        ...

    async def artifact(self, code_sha256: str) -> CodeArtifact | None:
        """What is known of code that was admitted; None when it is not here."""
        ...

    async def layered(self, layers: tuple[str, ...]) -> Path:
        """The folder to mount at /opt: the trees of one or more archives, later ones over earlier ones.

        It stays as it is until ``leave`` was called as often as this.

        Raises:
            CodeMissing: one of them is not here; nothing has to be left.
        """
        ...

    def leave(self, layers: tuple[str, ...]) -> None:
        """A sandbox with that folder is gone."""
        ...

    def prepare_layers_nowait(self, layers: tuple[str, ...], runtime: str) -> None:
        """As ``prepare_nowait``, for what is mounted at /opt; only Python is compiled there."""
        ...

    def prepare_nowait(self, code_sha256: str, runtime: str, account: str) -> Path | None:
        """Have code that is ready compiled in the background for a runtime, such as ``python3.11``.

        Returns what was made earlier for sandboxes of this archive, runtime and account and no others: a
        folder to mount at ``/var/codecache``. Cheap to call at every cold start. Nothing happens where there
        is nothing to gain, nothing waits for it, and code that could not be compiled works as before.
        """
        ...

    def prepare_when_quiet(self, code_sha256: str, runtime: str, account: str) -> None:
        """As ``prepare_nowait``, for code that was just deployed: only once no more code comes."""
        ...

    async def forget(self, code_sha256: str) -> None:
        """Delete code that no version names any more; a mounted folder lives until its sandbox dies."""
        ...

    async def stored(self) -> list[str]:
        """The CodeSha256 of everything kept here, for sweeping what no version names."""
        ...
