"""Uploads a big file in parts: several at once, each sent again when it fails; all are dropped in the end if
one cannot be sent."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

from stoker.services.object_store import ObjectStoreUnavailable, PartUploads, Progress

T = TypeVar("T")

PARTS_AT_ONCE = 4
"""Bounds memory: as many parts are held."""

PARTS_MAX = 10_000
"""S3's own limit."""

TRIES = 5
FIRST_WAIT_S = 0.2
"""Before a part is sent again; doubles each time."""


async def put_parts(
    uploads: PartUploads, key: str, descriptor: int, part_bytes: int, progress: Progress | None
) -> None:
    """Upload an open file of one part or more.

    Raises:
        ObjectStoreUnavailable: a part failed ``TRIES`` times, or the file is too big; the upload is aborted.
    """
    size_bytes = os.fstat(descriptor).st_size
    part_bytes = max(part_bytes, -(-size_bytes // PARTS_MAX))
    upload = await again(lambda: uploads.begin(key))
    try:
        offsets = range(0, size_bytes, part_bytes)
        receipts: dict[int, str] = {}
        waiting = iter(enumerate(offsets, start=1))

        async def send_some() -> None:
            for number, offset in waiting:
                content = await asyncio.to_thread(os.pread, descriptor, part_bytes, offset)
                receipts[number] = await again(
                    lambda number=number, content=content: uploads.put_part(key, upload, number, content)
                )
                if progress is not None:
                    progress(len(content))

        await _all_of(send_some() for _ in range(PARTS_AT_ONCE))
        await again(lambda: uploads.complete(key, upload, [receipts[number] for number in sorted(receipts)]))
    except BaseException:
        await asyncio.shield(_abort(uploads, key, upload))
        raise


async def again(attempt: Callable[[], Awaitable[T]]) -> T:
    """What ``attempt`` answers, in the first of ``TRIES`` that does."""
    for tried in range(TRIES - 1):
        try:
            return await attempt()
        except ObjectStoreUnavailable:
            await asyncio.sleep(FIRST_WAIT_S * 2**tried)
    return await attempt()


async def _all_of(work: Iterator[Awaitable[None]]) -> None:
    """Wait for all; the first failure cancels the others."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        raise


async def _abort(uploads: PartUploads, key: str, upload: str) -> None:
    try:
        await uploads.abort(key, upload)
    except ObjectStoreUnavailable:
        # The failure that led here is told; what is left is found by ``open_uploads``.
        return
