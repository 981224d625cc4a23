"""In this process one at a time publishes or forgets an image; a move learns that its image was forgotten.

Nothing does so between processes that share a store: an image that one forgets while another moves it may
come back. Whoever compares what is stored with what is named then forgets it again.
"""

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager

import msgspec


class _Change(msgspec.Struct):
    lock: asyncio.Lock
    users: int = 0
    forgotten: bool = False


class ImageChanges:
    """By account and digest; remembers only what is being changed now."""

    def __init__(self) -> None:
        self._changes: dict[tuple[str, str], _Change] = {}

    @asynccontextmanager
    async def forgetting(self, account: str, digest: str) -> AsyncGenerator[None]:
        """Hold others off; moves under way are not to publish any more."""
        with self._using(account, digest) as change:
            async with change.lock:
                change.forgotten = True
                yield

    @asynccontextmanager
    async def publishing(self, account: str, digest: str) -> AsyncGenerator[None]:
        """Hold others off; the image is wanted, whatever was forgotten before."""
        with self._using(account, digest) as change:
            async with change.lock:
                change.forgotten = False
                yield

    @asynccontextmanager
    async def publishing_moved(self, account: str, digest: str) -> AsyncGenerator[bool]:
        """Hold others off; whether the image is wanted still."""
        with self._using(account, digest) as change:
            async with change.lock:
                yield not change.forgotten

    @contextmanager
    def moving(self, account: str, digest: str) -> Generator[None]:
        """From the first look at an image that moves to its publication."""
        with self._using(account, digest):
            yield

    @contextmanager
    def _using(self, account: str, digest: str) -> Generator[_Change]:
        change = self._changes.setdefault((account, digest), _Change(asyncio.Lock()))
        change.users += 1
        try:
            yield change
        finally:
            change.users -= 1
            if change.users == 0:
                del self._changes[account, digest]
