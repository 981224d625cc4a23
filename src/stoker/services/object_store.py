"""The store for code at rest: objects by key, in a local folder or an S3-compatible bucket.

Everything put here is encrypted by whoever puts it; the store is trusted with nothing but keeping bytes.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from stoker.core.disk import DiskFull
from stoker.core.errors import StokerError

Progress = Callable[[int], None]
"""Told how many more bytes have moved."""


class StoredObject(msgspec.Struct, frozen=True):
    """An entry of a listing."""

    key: str
    size_bytes: int
    modified_at_s: float


class ObjectMissing(StokerError):
    """No object has that key."""


class ObjectStoreUnavailable(StokerError):
    """The store did not answer, answered with a failure, or is full; the message says which."""


class ObjectStoreFull(ObjectStoreUnavailable, DiskFull):
    """The store is a folder of this host, whose disk is full or whose quota is used up."""


class ObjectStore(Protocol):
    """Objects by key. A key is ``/``-separated segments of ``[A-Za-z0-9._=-]``, never ``.`` or ``..``.

    What was put is durable when the call returns, and appears whole or not at all. Every operation may raise
    ObjectStoreUnavailable.
    """

    async def put_new(self, key: str, content: bytes) -> bool:
        """Put unless there is such an object already, in one step; whether this call put it."""
        ...

    async def put(self, key: str, content: bytes) -> None:
        """Put, in the place of what was there."""
        ...

    async def put_file(self, key: str, file: Path, progress: Progress | None = None) -> None:
        """Put a big file in parts; a part that fails is sent again, a failed upload leaves nothing."""
        ...

    async def get(self, key: str) -> bytes:
        """The whole object.

        Raises:
            ObjectMissing: there is none.
        """
        ...

    async def get_range(self, key: str, offset: int, size_bytes: int) -> bytes:
        """``size_bytes`` from ``offset``, less at the object's end.

        Raises:
            ObjectMissing: there is none.
        """
        ...

    async def fetch(self, key: str, into: Path, progress: Progress | None = None) -> None:
        """Download into a new file; nothing is left of it on failure.

        Raises:
            ObjectMissing: there is none.
        """
        ...

    async def size_bytes(self, key: str) -> int | None:
        """How big an object is; None when there is none."""
        ...

    def list_objects(self, prefix: str) -> AsyncIterator[StoredObject]:
        """Every object whose key starts with ``prefix``, in no order."""
        ...

    async def delete(self, key: str) -> None:
        """Delete; nothing happens when there is none."""
        ...


class OpenUpload(msgspec.Struct, frozen=True):
    """An upload in parts that was begun and neither completed nor aborted."""

    key: str
    upload: str
    begun_at_s: float


class PartUploads(Protocol):
    """Uploads in parts to one bucket, for a store whose client cannot abort them. Keys are whole.

    Every operation may raise ObjectStoreUnavailable; none is tried again here.
    """

    async def begin(self, key: str) -> str:
        """Begin; the upload's id."""
        ...

    async def put_part(self, key: str, upload: str, number: int, content: bytes) -> str:
        """Send a part, from 1 on, with its checksum; a receipt for ``complete``."""
        ...

    async def complete(self, key: str, upload: str, receipts: Sequence[str]) -> None:
        """Make the object of its parts."""
        ...

    async def abort(self, key: str, upload: str) -> None:
        """Drop the parts; nothing happens when there is no such upload any more."""
        ...

    async def open_uploads(self, prefix: str) -> list[OpenUpload]:
        """The uploads to keys that start with ``prefix``, as many as the store lists at once."""
        ...
