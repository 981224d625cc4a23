"""The admin API on a Unix socket, for the command line of this host: root and the service's own user only."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import msgspec
import structlog

from stoker.app.admin_imports import answer_import
from stoker.core.errors import StokerError
from stoker.http.limits import ServerLimits
from stoker.http.messages import Reply, Request
from stoker.http.peers import unix_credentials
from stoker.http.server import HttpServer
from stoker.services.admin import Admin, ImageAdmin

JSON = (b"content-type", b"application/json")
ACTIONS_MAX = 16
"""Under way at one time."""
LIMITS = ServerLimits(max_body_bytes=16 * 1024**3)
"""An image's archive is the one big body."""
SOCKET_MODE = 0o600
"""The kernel lets only the owner and root connect; the peer's uid is checked besides."""


_log = structlog.get_logger("stoker.app")

Query = dict[str, str]


class AdminServer:
    """Answers with the typed records of ``services.admin``: GET what is, POST what does something.

    A StokerError is answered with 409 and its message.
    """

    def __init__(self, admin: Admin, images: ImageAdmin, allowed_uids: frozenset[int]) -> None:
        self._allowed = allowed_uids
        self._images = images
        self._routes: dict[bytes, Callable[[], Any]] = {
            b"/access": admin.access,
            b"/host": admin.host,
            b"/sandboxes": admin.sandboxes,
        }
        self._actions: dict[tuple[bytes, bytes], Callable[[Query], Awaitable[Any]]] = {
            (b"GET", b"/events"): lambda _query: admin.events(),
            (b"GET", b"/keys"): lambda _query: admin.keys(),
            (b"POST", b"/keys/rotate"): lambda _query: admin.rotate_keys(),
            (b"POST", b"/keys/retire"): lambda query: admin.retire_keys(
                end_sessions=query.get("end_sessions") == "true"
            ),
            (b"GET", b"/images"): lambda _query: images.list_images(),
            (b"GET", b"/image"): lambda query: images.inspect(query.get("name", "")),
            (b"DELETE", b"/image"): lambda query: images.remove(query.get("name", "")),
        }
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = HttpServer(self._answer, LIMITS)

    async def start(self, path: Path) -> None:
        """Listen on ``path``."""
        await self._server.start_unix(path, SOCKET_MODE)

    async def close(self) -> None:
        """Stop listening, and end what is under way."""
        await self._server.close(0.5)
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _answer(self, request: Request, reply: Reply) -> None:
        peer = unix_credentials(request)
        if peer is None or peer.uid not in self._allowed:
            reply.send(403, [JSON], b'{"message":"not for this user"}')
            return
        query = dict(parse_qsl(request.query.decode("ascii", "replace")))
        action = self._actions.get((request.method, request.path))
        if action is not None:
            self._begin(_act(action, query, reply), reply)
            return
        if (request.method, request.path) == (b"POST", b"/image"):
            self._begin(answer_import(self._images, request, query, reply), reply)
            return
        route = self._routes.get(request.path)
        if route is None or request.method != b"GET":
            reply.send(404, [JSON], b'{"message":"no such question"}')
            return
        reply.send(200, [JSON], msgspec.json.encode(route()))

    def _begin(self, work: Coroutine[Any, Any, None], reply: Reply) -> None:
        if len(self._tasks) >= ACTIONS_MAX:
            work.close()
            reply.send(503, [JSON], _message("too much is under way"))
            return
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _act(action: Callable[[Query], Awaitable[Any]], query: Query, reply: Reply) -> None:
    try:
        reply.send(200, [JSON], msgspec.json.encode(await action(query)))
    except StokerError as problem:
        reply.send(409, [JSON], _message(str(problem)))
    except Exception:
        _log.exception("an admin request failed")
        reply.abort()
        raise


def _message(text: str) -> bytes:
    return msgspec.json.encode({"message": text})
