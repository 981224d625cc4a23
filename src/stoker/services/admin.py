"""What the command line asks over the admin socket: everything that is not Lambda's API."""

from collections.abc import AsyncIterator, Callable
from typing import Protocol

import msgspec

from stoker.core.access import Access
from stoker.services.images import ImageProgress
from stoker.services.keys import KeysReport
from stoker.services.queue import QueueReport
from stoker.services.worker import SandboxStatus


class HostReport(msgspec.Struct, frozen=True, kw_only=True):
    """What the running service can enforce on this host."""

    version: str
    driver: str
    degraded: tuple[str, ...]
    runtimes: tuple[str, ...]
    data: str


class ImportedImage(msgspec.Struct, frozen=True, kw_only=True):
    """An image that functions can name as ``local/NAME:TAG``."""

    name: str
    """NAME:TAG."""
    digests: dict[str, str]
    """By Lambda's architecture."""
    imported_at_s: float


class ImageDetails(msgspec.Struct, frozen=True, kw_only=True):
    """What ``stoker image inspect`` shows of one architecture."""

    digest: str
    manifest: msgspec.Raw
    configuration: msgspec.Raw


class ImportEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of the answer to an import: how far it is, or how it ended."""

    progress: ImageProgress | None = None
    imported: ImportedImage | None = None
    refused: str | None = None


class ImageAdmin(Protocol):
    """Images imported here. Every method raises ImageRefused with a message for whoever asked."""

    async def take_in(
        self,
        archive: AsyncIterator[bytes],
        name: str,
        chosen: str | None,
        progress: Callable[[ImageProgress], None],
    ) -> ImportedImage: ...

    async def list_images(self) -> list[ImportedImage]: ...

    async def inspect(self, name: str) -> dict[str, ImageDetails]: ...

    async def remove(self, name: str) -> None: ...


class Admin(Protocol):
    """Served to root and to the service's own user only (peer credentials of a Unix socket)."""

    def access(self) -> Access: ...

    def host(self) -> HostReport: ...

    def sandboxes(self) -> list[SandboxStatus]: ...

    async def events(self) -> QueueReport: ...

    async def keys(self) -> KeysReport: ...

    async def rotate_keys(self) -> KeysReport: ...

    async def retire_keys(self, *, end_sessions: bool) -> KeysReport: ...
