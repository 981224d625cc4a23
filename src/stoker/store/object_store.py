"""Objects in a bucket of S3 or anything compatible, through obstore; big files in parts."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import S3Store

from stoker.services.object_store import (
    ObjectMissing,
    ObjectStoreUnavailable,
    PartUploads,
    Progress,
    StoredObject,
)
from stoker.store.object_files import new_file, write_all
from stoker.store.object_keys import checked_key, prefix_folder
from stoker.store.object_parts import put_parts
from stoker.store.objects import S3Settings, object_error

if TYPE_CHECKING:
    from obstore import BytesStream, GetOptions, GetResult, ListStream, ObjectMeta

T = TypeVar("T")

PART_BYTES = 8 * 1024 * 1024
"""A file of more goes in parts of this size."""

STREAMED_AT_ONCE_BYTES = 1024 * 1024
CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 20
"""Without a byte for this long a request is tried again."""

TIMEOUT_S = 60
"""Of a request with all its retries, a part of a big file, or the time between two parts of a download."""

CLIENT_TIMEOUT_S = 24 * 3600
"""The client library's own limit of one request, which would cut long downloads off at 30 s."""

RETRIES = 4
RETRY_FOR_S = 20
LISTED_AT_ONCE = 1000


class S3ObjectStore:
    """The ObjectStore port on ``bucket``, below ``prefix``."""

    def __init__(
        self,
        bucket: str,
        prefix: str,
        settings: S3Settings,
        parts: PartUploads,
        *,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._name = f"s3://{bucket}/{prefix}".rstrip("/")
        self._prefix = f"{checked_key(prefix)}/" if prefix else ""
        self._parts = parts
        self._timeout_s = timeout_s
        self._store = _open(bucket, prefix, settings)

    async def put_new(self, key: str, content: bytes) -> bool:
        checked_key(key)
        putting = obstore.put_async(self._store, key, content, mode="create", use_multipart=False)
        try:
            await self._answered(key, putting)
        except AlreadyExistsError:
            return False
        return True

    async def put(self, key: str, content: bytes) -> None:
        checked_key(key)
        await self._answered(key, obstore.put_async(self._store, key, content, use_multipart=False))

    async def put_file(self, key: str, file: Path, progress: Progress | None = None) -> None:
        checked_key(key)
        descriptor = await asyncio.to_thread(os.open, file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            size_bytes = os.fstat(descriptor).st_size
            if size_bytes > PART_BYTES:
                await put_parts(self._parts, self._prefix + key, descriptor, PART_BYTES, progress)
                return
            await self.put(key, await asyncio.to_thread(os.pread, descriptor, size_bytes, 0))
        finally:
            os.close(descriptor)
        if progress is not None:
            progress(size_bytes)

    async def get(self, key: str) -> bytes:
        checked_key(key)
        return await self._content(key, None)

    async def get_range(self, key: str, offset: int, size_bytes: int) -> bytes:
        checked_key(key)
        if offset < 0 or size_bytes < 0:
            raise ValueError(f"not a range: {offset}, {size_bytes}")
        if size_bytes == 0:
            return b""
        try:
            return await self._content(key, {"range": (offset, offset + size_bytes)})
        except _PastTheEnd:
            return b""

    async def fetch(self, key: str, into: Path, progress: Progress | None = None) -> None:
        checked_key(key)
        result = await self._answered(key, self._get(key, None))
        with new_file(into) as target:
            await self._stream(key, result, target, progress)

    async def size_bytes(self, key: str) -> int | None:
        checked_key(key)
        try:
            return (await self._answered(key, obstore.head_async(self._store, key)))["size"]
        except ObjectMissing:
            return None

    async def list_objects(self, prefix: str) -> AsyncIterator[StoredObject]:
        folder = prefix_folder(prefix) or None
        pages = obstore.list(  # pyright: ignore[reportUnknownMemberType]  (another overload names arrow)
            self._store, folder, chunk_size=LISTED_AT_ONCE, return_arrow=False
        )
        while page := await self._answered(prefix, _next_page(pages)):
            for facts in page:
                if facts["path"].startswith(prefix):
                    yield StoredObject(facts["path"], facts["size"], facts["last_modified"].timestamp())

    async def delete(self, key: str) -> None:
        checked_key(key)
        await self._answered(key, obstore.delete_async(self._store, key))

    async def drop_uploads(self, *, begun_before_s: float) -> int:
        """Drop the parts that killed processes left in the bucket, and with them their cost; how many."""
        listed = await self._parts.open_uploads(self._prefix)
        old = [upload for upload in listed if upload.begun_at_s < begun_before_s]
        for upload in old:
            await self._parts.abort(upload.key, upload.upload)
        return len(old)

    async def _content(self, key: str, options: "GetOptions | None") -> bytes:
        async def read() -> bytes:
            result = await self._get(key, options)
            content = bytes(await result.bytes_async())
            start, end = result.range
            if len(content) != end - start:
                raise OSError(f"{end - start} bytes were promised and {len(content)} came")
            return content

        return await self._answered(key, read())

    async def _get(self, key: str, options: "GetOptions | None") -> "GetResult":
        return await obstore.get_async(self._store, key, options=options)

    async def _stream(self, key: str, result: "GetResult", target: int, progress: Progress | None) -> None:
        parts = aiter(result.stream(min_chunk_size=STREAMED_AT_ONCE_BYTES))
        left = result.meta["size"]
        while (part := await self._answered(key, _next_part(parts))) is not None:
            await asyncio.to_thread(write_all, target, part)
            left -= len(part)
            if progress is not None:
                progress(len(part))
        if left:
            raise ObjectStoreUnavailable(
                f"{self._name}/{key}: the answer has {left} bytes less than promised"
            )

    async def _answered(self, key: str, request: Awaitable[T]) -> T:
        """The answer, in time or not at all, with errors as the port has them."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await request
        except AlreadyExistsError:
            raise
        except TimeoutError as problem:
            raise ObjectStoreUnavailable(
                f"{self._name}/{key}: no answer within {self._timeout_s:g} s"
            ) from problem
        except (BaseError, OSError, ValueError) as problem:
            raise self._error(key, problem) from problem

    def _error(self, key: str, problem: Exception) -> ObjectMissing | ObjectStoreUnavailable:
        answer = object_error(problem)
        if answer.code == "InvalidRange":
            return _PastTheEnd(key)
        if isinstance(problem, FileNotFoundError) and answer.code in ("NoSuchKey", _NO_CODE):
            return ObjectMissing(key)
        return ObjectStoreUnavailable(f"{self._name}/{key}: {answer}")


class _PastTheEnd(ObjectStoreUnavailable):
    """A range begins after the object's end."""


_NO_CODE = "ServiceUnavailable"
"""How ``object_error`` reads an answer without a body, such as the one to HEAD."""


async def _next_page(pages: "ListStream[Sequence[ObjectMeta]]") -> "Sequence[ObjectMeta]":
    try:  # the two-argument form of anext() takes coroutines alone
        return await pages.__anext__()
    except StopAsyncIteration:
        return ()


async def _next_part(parts: "BytesStream") -> bytes | None:
    try:
        return await parts.__anext__()
    except StopAsyncIteration:
        return None


def _open(bucket: str, prefix: str, settings: S3Settings) -> S3Store:
    return S3Store(
        bucket,
        prefix=prefix or None,
        config={**settings.config(), "checksum_algorithm": "SHA256"},
        client_options={
            "allow_http": True,
            "connect_timeout": f"{CONNECT_TIMEOUT_S}s",
            "read_timeout": f"{READ_TIMEOUT_S}s",
            "timeout": f"{CLIENT_TIMEOUT_S}s",
        },
        retry_config={"max_retries": RETRIES, "retry_timeout": timedelta(seconds=RETRY_FOR_S)},
    )
