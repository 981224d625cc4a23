"""Code: what ``control`` admits, ``packaging`` keeps and a worker mounts."""

import base64
import hashlib
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


class CodeKey(msgspec.Struct, frozen=True):
    """A key of KMS that a function's code is sealed under, for that function (an unqualified ARN) alone."""

    function_arn: str
    kms_key_arn: str


def code_name(code_sha256: str, key: CodeKey | None) -> str:
    """What code is stored as: its CodeSha256, or with a key something as long that is this function's own."""
    if key is None:
        return code_sha256
    said = f"code under a key of KMS\0{key.function_arn}\0{key.kms_key_arn}\0{code_sha256}"
    return base64.b64encode(hashlib.sha256(said.encode()).digest()).decode()


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
    """Zip archives by name (``code_name``), each made ready once. Hostile archives are parsed outside this
    process. Code under a key of KMS raises KeyRefused and KeyUnavailable wherever that key is needed."""

    async def admit(self, archive: bytes | Path, key: CodeKey | None = None) -> CodeArtifact:
        """Check and store a zip archive; idempotent. Stored whole and for good when this returns.

        Raises:
            KeyRefused, KeyUnavailable: only with ``key``; nothing was stored.
            ServiceError: InvalidParameterValueException with Lambda's wording when it is not a zip that
                Lambda would take; nothing was stored.
        """
        ...

    async def original(self, code_sha256: str) -> Path | None:
        """The uploaded archive, byte for byte; None when it is not here."""
        ...

    async def try_key(self, code_sha256: str) -> None:
        """Nothing happens, but for code under a key of KMS that cannot be used.

        Raises:
            KeyRefused, KeyUnavailable
        """
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
        """The names of everything kept, for sweeping what no version names; waits until that is known."""
        ...
