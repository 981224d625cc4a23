"""What needs no signature: liveness, readiness, metrics, and downloads behind signed, expiring URLs."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from urllib.parse import parse_qsl

import structlog

from stoker.app.metrics import CONTENT_TYPE, Metrics
from stoker.http.errors import PeerVanished
from stoker.http.messages import Handler, Reply, Request

TEXT = (b"content-type", b"text/plain; charset=utf-8")
ZIP = (b"content-type", b"application/zip")
CHUNK_BYTES = 256 * 1024
DOWNLOADS_MAX = 64

FindCode = Callable[[str, Mapping[str, str]], Awaitable[Path | None]]
"""The archive behind a download URL's path and query; None when the URL is forged or expired."""

_log = structlog.get_logger("stoker.app")


def unsigned_routes(
    ready: Callable[[], bool], metrics: Metrics, downloads: "Downloads"
) -> dict[bytes, Handler]:
    """Handlers by path for GET and HEAD."""

    def health(request: Request, reply: Reply) -> None:
        reply.send(200, [TEXT], b"alive\n")

    def readiness(request: Request, reply: Reply) -> None:
        if ready():
            reply.send(200, [TEXT], b"ready\n")
        else:
            reply.send(503, [TEXT], b"no sandbox can be made now\n")

    def page(request: Request, reply: Reply) -> None:
        reply.send(200, [(b"content-type", CONTENT_TYPE)], metrics.render())

    return {
        b"/health": health,
        b"/ready": readiness,
        b"/metrics": page,
        b"/_stoker/code/": downloads.answer,
    }


class Downloads:
    """Streams archives; a bounded number at one time."""

    def __init__(self, find: FindCode) -> None:
        self._find = find
        self._tasks: set[asyncio.Task[None]] = set()

    def answer(self, request: Request, reply: Reply) -> None:
        """The Handler of everything below /_stoker/code/."""
        if len(self._tasks) >= DOWNLOADS_MAX:
            reply.send(503, [TEXT], b"too many downloads\n")
            return
        task = asyncio.get_running_loop().create_task(self._serve(request, reply))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """End what is under way."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, request: Request, reply: Reply) -> None:
        try:
            query = dict(parse_qsl(request.query.decode("ascii", "replace")))
            archive = await self._find(request.path.decode("ascii", "replace"), query)
            if archive is None:
                reply.send(403, [TEXT], b"this URL is not valid or has expired\n")
                return
            await _stream(archive, reply, head_only=request.method == b"HEAD")
        except PeerVanished:
            return
        except Exception:
            _log.exception("a code download failed")
            reply.abort()
            raise


async def _stream(archive: Path, reply: Reply, *, head_only: bool) -> None:
    file = await asyncio.to_thread(archive.open, "rb")
    with file:
        size = await asyncio.to_thread(file.seek, 0, 2)
        reply.start(200, [ZIP, (b"content-length", str(size).encode())])
        await asyncio.to_thread(file.seek, 0)
        while not head_only and (chunk := await asyncio.to_thread(file.read, CHUNK_BYTES)):
            await reply.write(chunk)
        reply.finish()
