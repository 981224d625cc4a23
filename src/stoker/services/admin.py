"""What the command line asks over the admin socket: everything that is not Lambda's API."""

from typing import Protocol

import msgspec

from stoker.core.access import Access
from stoker.services.keys import KeysReport
from stoker.services.worker import SandboxStatus


class HostReport(msgspec.Struct, frozen=True, kw_only=True):
    """What the running service can enforce on this host."""

    version: str
    driver: str
    degraded: tuple[str, ...]
    runtimes: tuple[str, ...]
    data: str


class Admin(Protocol):
    """Served to root and to the service's own user only (peer credentials of a Unix socket)."""

    def access(self) -> Access: ...

    def host(self) -> HostReport: ...

    def sandboxes(self) -> list[SandboxStatus]: ...

    async def keys(self) -> KeysReport: ...

    async def rotate_keys(self) -> KeysReport: ...

    async def retire_keys(self, *, end_sessions: bool) -> KeysReport: ...
