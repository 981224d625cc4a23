"""How code that is stored sealed is made mountable on this host: what every way of it promises."""

from collections.abc import Callable
from typing import Protocol

import msgspec

from stoker.packaging.code_vault import CodeVault, SealedCode
from stoker.packaging.held import CacheStatistics, Held
from stoker.packaging.protocol import Refused
from stoker.packaging.quiet_jobs import JobStatistics
from stoker.services.code import CodeMissing
from stoker.services.volumes import MountSource


class Packed(msgspec.Struct, frozen=True):
    """An archive that was checked, and what was made of it on the way."""

    unpacked_bytes: int
    held: Held
    image: int | None = None
    """An open file with its image, to be stored beside it; it belongs to ``held``."""
    image_bytes: int = 0


class Shelved(msgspec.Struct, frozen=True):
    """Something mountable, and what was compiled of it apart; both stay until ``leave`` is called, once."""

    source: MountSource
    cache: MountSource | None
    leave: Callable[[], None]


class Shelf(Protocol):
    """Codes are named by SHA-256 digests; several at once are layers, later ones over earlier ones."""

    async def pack(self, archive: int, limit_bytes: int) -> Packed | Refused:
        """Check an archive and make of it what this host mounts.

        Raises:
            PackingFailed, OSError: the host failed; nothing is left.
        """
        ...

    def offer(self, digest: str, packed: Packed) -> None:
        """Keep what was made of an archive that is stored now."""
        ...

    async def enter(self, codes: tuple[str, ...], runtime: str | None, account: str) -> Shelved:
        """Make it mountable, or share what is; with a runtime, begin to compile it for those who come later.

        Raises:
            CodeMissing: one of them is not stored.
            StokerError, OSError: it cannot be had now; nothing has to be left.
        """
        ...

    async def prepare(self, codes: tuple[str, ...], runtime: str | None, account: str) -> None:
        """Do ahead what pays for code that was just deployed; raises as ``enter``."""
        ...

    def forget(self, digest: str) -> None:
        """Give up what holds any of that code, once nobody uses it."""
        ...

    def statistics(self) -> CacheStatistics: ...

    def compiling(self) -> JobStatistics:
        """What is made in the background."""
        ...

    async def close(self) -> None:
        """Discard everything."""
        ...


async def stored_code(vault: CodeVault, digest: str) -> SealedCode:
    """What the vault has of a digest.

    Raises:
        CodeMissing: nothing.
    """
    code = await vault.find(digest)
    if code is None:
        raise CodeMissing(digest)
    return code
