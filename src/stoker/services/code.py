"""Code: what ``control`` admits, ``packaging`` keeps and a worker mounts."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from stoker.core.errors import StokerError
from stoker.services.volumes import MountSource


class CodeArtifact(msgspec.Struct, frozen=True):
    """Code that was checked, stored and made ready."""

    code_sha256: str
    """Base64 of the SHA-256 of the uploaded zip."""
    size_bytes: int
    unpacked_bytes: int


class CodeMissing(StokerError):
    """No code is stored under that CodeSha256."""


class CodeUnavailable(StokerError):
    """Code that is stored cannot be had now: it is damaged, or the store, its keys or the host fail."""


class CodeInUse(msgspec.Struct, frozen=True, kw_only=True):
    """A function's code as a sandbox mounts it. All of it stays as it is until ``leave`` is called, once."""

    task: MountSource
    """For /var/task."""
    opt: MountSource | None = None
    """For /opt: the layers, later ones over earlier ones."""
    cache: MountSource | None = None
    """For /var/codecache: made for sandboxes of this archive, runtime and account and no others."""
    leave: Callable[[], None]


class CodeStore(Protocol):
    """Zip archives by CodeSha256, each made ready once. Hostile archives are parsed outside this process."""

    async def admit(self, archive: bytes | Path) -> CodeArtifact:
        """Check and store a zip archive; idempotent. Stored whole and for good when this returns.

        Raises:
            ServiceError: InvalidParameterValueException with Lambda's wording when it is not a zip that
                Lambda would take; nothing was stored.
        """
        ...

    async def original(self, code_sha256: str) -> Path | None:
        """The uploaded archive, byte for byte; None when it is not here."""
        ...

    async def artifact(self, code_sha256: str) -> CodeArtifact | None:
        """What is known of code that was admitted; None when it is not here."""
        ...

    async def use(
        self, code_sha256: str, layers: tuple[str, ...], runtime: str | None, account: str
    ) -> CodeInUse:
        """A function's code, mountable; cheap once a sandbox has it. ``layers`` are archives too.

        With a ``runtime``, such as ``python3.11``, the code is compiled for it in the background: what comes
        later gets what was made. Nothing waits for that, and code that could not be compiled works as before.

        Raises:
            CodeMissing: some of it is not here; nothing has to be left.
            CodeUnavailable: nothing has to be left.
        """
        ...

    async def prepare(
        self, code_sha256: str, layers: tuple[str, ...], runtime: str | None, account: str
    ) -> None:
        """Have code that was just deployed ready for its first use; compile it once no more code comes.

        Raises:
            CodeMissing: some of it is not here.
            CodeUnavailable
        """
        ...

    async def forget(self, code_sha256: str) -> None:
        """Delete code that no version names any more; who uses it keeps it until it is left."""
        ...

    async def stored(self) -> list[str]:
        """The CodeSha256 of everything kept here, for sweeping what no version names."""
        ...
