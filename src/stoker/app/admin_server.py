"""The admin API on a Unix socket, for the command line of this host: root and the service's own user only."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from stoker.http.messages import Reply, Request
from stoker.http.peers import unix_credentials
from stoker.http.server import HttpServer
from stoker.services.admin import Admin

JSON = (b"content-type", b"application/json")
SOCKET_MODE = 0o600
"""The kernel lets only the owner and root connect; the peer's uid is checked besides."""


class AdminServer:
    """Answers GET requests with the typed records of ``services.admin``."""

    def __init__(self, admin: Admin, allowed_uids: frozenset[int]) -> None:
        self._allowed = allowed_uids
        self._routes: dict[bytes, Callable[[], Any]] = {
            b"/access": admin.access,
            b"/host": admin.host,
            b"/sandboxes": admin.sandboxes,
        }
        self._server = HttpServer(self._answer)

    async def start(self, path: Path) -> None:
        """Listen on ``path``."""
        await self._server.start_unix(path, SOCKET_MODE)

    async def close(self) -> None:
        """Stop listening."""
        await self._server.close(0.5)

    def _answer(self, request: Request, reply: Reply) -> None:
        peer = unix_credentials(request)
        if peer is None or peer.uid not in self._allowed:
            reply.send(403, [JSON], b'{"message":"not for this user"}')
            return
        route = self._routes.get(request.path)
        if route is None or request.method != b"GET":
            reply.send(404, [JSON], b'{"message":"no such question"}')
            return
        reply.send(200, [JSON], msgspec.json.encode(route()))
