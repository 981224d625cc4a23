"""Images cut into sealed chunks in memory, behind a store that is told how to fail."""

import asyncio
import threading
from collections import Counter
from collections.abc import Awaitable, Callable

from stoker.packaging.chunks.manifest import ChunkEntry, Manifest, make_manifest
from stoker.packaging.chunks.sealing import CHUNK_BYTES, SealedChunk, seal_chunk
from stoker.services.object_store import ObjectMissing, ObjectStoreUnavailable

SALT = bytes(range(32))


class SealedStore:
    """Sealed chunks by name. ``behaviour`` is how it answers: well, lies, truncates, fails, stalls, loses."""

    def __init__(self) -> None:
        self.chunks: dict[bytes, bytes] = {}
        self.behaviour = "well"
        self.fetched: Counter[bytes] = Counter()
        self.delay_s = 0.0
        self.lock = threading.Lock()

    def add(self, image: bytes, salt: bytes = SALT) -> Manifest:
        entries: list[ChunkEntry] = []
        for index, start in enumerate(range(0, len(image), CHUNK_BYTES)):
            sealed = seal_chunk(image[start : start + CHUNK_BYTES], salt)
            if sealed is not None:
                self.chunks[sealed.name] = bytes(sealed.content)
                entries.append(ChunkEntry(index, sealed.name, sealed.key))
        return make_manifest(len(image), entries, b"")

    def fetcher(self, manifest: Manifest) -> Callable[[int, bool], Awaitable[SealedChunk | None]]:
        """Gives the chunks of one image."""

        async def fetch(index: int, again: bool) -> SealedChunk | None:
            entry = manifest.chunk(index)
            assert entry is not None
            return SealedChunk(entry.name, entry.key, await self._content(entry.name, again))

        return fetch

    async def _content(self, name: bytes, again: bool) -> bytes:
        self.fetched[name] += 1
        content = self.chunks[name]
        await asyncio.sleep(self.delay_s)
        match self.behaviour:
            case "lies":
                return content[:-1] + bytes([content[-1] ^ 1])
            case "truncates":
                return content[: len(content) // 2]
            case "is empty":
                return b""
            case "pads":
                return content + bytes(CHUNK_BYTES)
            case "fails":
                raise ObjectStoreUnavailable("500")
            case "loses":
                raise ObjectMissing("gone")
            case "stalls":
                await asyncio.sleep(3600)
            case "lies once" if not again:
                return bytes(len(content))
        return content
