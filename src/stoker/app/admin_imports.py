"""The admin socket's one long exchange: an image archive streams in, its progress out as lines of JSON."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import msgspec

from stoker.core.errors import StokerError
from stoker.http.errors import HttpError
from stoker.http.messages import Reply, Request
from stoker.services.admin import ImageAdmin, ImportEvent
from stoker.services.images import ImageProgress

LINES: Final = (b"content-type", b"application/x-ndjson")
EVENT_INTERVAL_S: Final = 0.5


async def answer_import(images: ImageAdmin, request: Request, query: Mapping[str, str], reply: Reply) -> None:
    """Import the body under ``query``'s ``name``; given up when the client goes away."""
    reply.start(200, [LINES])
    now = ImageProgress(0, 0, "receiving")

    def note(progress: ImageProgress) -> None:
        nonlocal now
        now = progress

    work = asyncio.ensure_future(
        images.take_in(_body(request), query.get("name", ""), query.get("chosen"), note)
    )
    reply.on_disconnect(work.cancel)
    try:
        while not work.done():
            # Always a line, changed or not: silence would look like a service that hangs.
            await _send(reply, ImportEvent(progress=now))
            await asyncio.wait([work], timeout=EVENT_INTERVAL_S)
        await _send(reply, _ending(work))
        reply.finish()
    except HttpError:
        # The client has gone, and with it whom to tell.
        reply.abort()
    finally:
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError, StokerError, HttpError, OSError):
            await work


def _ending(work: "asyncio.Future[Any]") -> ImportEvent:
    if work.cancelled():
        return ImportEvent(refused="given up")
    try:
        return ImportEvent(imported=work.result())
    except (StokerError, HttpError, OSError) as problem:
        return ImportEvent(refused=str(problem))


async def _send(reply: Reply, event: ImportEvent) -> None:
    await reply.write(msgspec.json.encode(event) + b"\n")


async def _body(request: Request) -> AsyncIterator[bytes]:
    if request.stream is None:
        yield request.body
        return
    async for chunk in request.stream:
        yield chunk
