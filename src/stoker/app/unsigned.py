"""What needs no signature: liveness, readiness, metrics, and downloads behind signed, expiring URLs."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from urllib.parse import parse_qsl

import msgspec
import structlog

from stoker.http.errors import PeerVanished
from stoker.http.messages import Handler, Reply, Request

TEXT = b"text/plain; charset=utf-8"
ZIP = (b"content-type", b"application/zip")
METRICS = b"text/plain; version=0.0.4; charset=utf-8"
DOWNLOAD_PREFIX = b"/_stoker/code/"
CHUNK_BYTES = 256 * 1024
DOWNLOADS_MAX = 64

FindCode = Callable[[str, Mapping[str, str]], Awaitable[Path | None]]
"""The archive behind a download URL's path and query; None when the URL is forged or expired."""

_log = structlog.get_logger("stoker.app")


class Page(msgspec.Struct, frozen=True):
    """A small answer."""

    status: int
    content_type: bytes
    body: bytes

    def send(self, reply: Reply) -> None:
        """Answer with it."""
        reply.send(self.status, [(b"content-type", self.content_type)], self.body)


Pages = Mapping[str, Callable[[], Page]]


def unsigned_pages(trouble: Callable[[], str], metrics: Callable[[], bytes]) -> Pages:
    """The pages by path. ``trouble`` says what keeps the service from being ready; empty: nothing."""

    def readiness() -> Page:
        why = trouble()
        return Page(503, TEXT, f"{why}\n".encode()) if why else Page(200, TEXT, b"ready\n")

    return {
        "/health": lambda: Page(200, TEXT, b"alive\n"),
        "/ready": readiness,
        "/metrics": lambda: Page(200, METRICS, metrics()),
    }


def unsigned_routes(pages: Pages, downloads: "Downloads") -> dict[bytes, Handler]:
    """Handlers by path for GET and HEAD."""

    def answering(page: Callable[[], Page]) -> Handler:
        return lambda _request, reply: page().send(reply)

    routes: dict[bytes, Handler] = {path.encode(): answering(page) for path, page in pages.items()}
    return {**routes, DOWNLOAD_PREFIX: downloads.answer}


class Downloads:
    """Streams archives; a bounded number at one time."""

    def __init__(self, find: FindCode) -> None:
        self._find = find
        self._tasks: set[asyncio.Task[None]] = set()

    def answer(self, request: Request, reply: Reply) -> None:
        """The Handler of everything below /_stoker/code/."""
        if len(self._tasks) >= DOWNLOADS_MAX:
            Page(503, TEXT, b"too many downloads\n").send(reply)
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
                Page(403, TEXT, b"this URL is not valid or has expired\n").send(reply)
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
