"""A store of images in memory, and images to put into it."""

import hashlib
import secrets

from stoker.core.clock import ManualClock
from stoker.packaging.chunks.admission import Admission
from stoker.packaging.chunks.images import ChunkedImages, OpenImage
from stoker.packaging.chunks.manifest import ChunkEntry, make_manifest
from stoker.packaging.chunks.sealing import CHUNK_BYTES, open_chunk, seal_chunk
from stoker.services.keys import DataKeys
from stoker.services.object_store import ObjectStore
from stoker.store.data_keys import MasterDataKeys
from stoker.store.memory_object_store import MemoryObjectStore
from stoker.store.sealing import Sealer

ACCOUNT, OTHER = "000000000000", "111111111111"


class Chunked:
    """One Stoker's view of a store that others may share."""

    def __init__(
        self,
        store: ObjectStore | None = None,
        keys: DataKeys | None = None,
        clock: ManualClock | None = None,
    ) -> None:
        self.clock = clock or ManualClock()
        self.store = store or MemoryObjectStore(clock=self.clock.now_s)
        self.keys = keys or MasterDataKeys(Sealer([secrets.token_bytes(32)]))
        self.images = ChunkedImages(self.store, self.keys, self.clock)

    @property
    def memory(self) -> MemoryObjectStore:
        assert isinstance(self.store, MemoryObjectStore)
        return self.store

    async def admit(self, account: str, plains: list[bytes]) -> str:
        """Admit an image of these chunks; its digest."""
        digest = digest_of(plains)
        async with await self.images.begin(account, digest) as admission:
            await put_all(admission, plains)
        return digest

    async def read(self, account: str, digest: str) -> list[bytes]:
        """An image's chunks, without their trailing zeros."""
        image = await self.images.find(account, digest)
        return await self.content(image)

    async def content(self, image: OpenImage) -> list[bytes]:
        plains: list[bytes] = []
        for index in range(image.manifest.size_bytes // CHUNK_BYTES):
            entry = image.manifest.chunk(index)
            if entry is None:
                plains.append(b"")
                continue
            content = await self.images.fetch(image, entry)
            plains.append(bytes(open_chunk(content, entry.name, entry.key)).rstrip(b"\0"))
        return plains


async def put_all(admission: Admission, plains: list[bytes], configuration: bytes = b"{}") -> int:
    """Put every chunk and publish; how many chunks were new."""
    entries: list[ChunkEntry] = []
    new = 0
    for index, plain in enumerate(plains):
        sealed = seal_chunk(plain, admission.salt)
        if sealed is not None:
            new += await admission.put_chunk(sealed.name, bytes(sealed.content))
            entries.append(ChunkEntry(index, sealed.name, sealed.key))
    await admission.publish(make_manifest(len(plains) * CHUNK_BYTES, entries, configuration))
    return new


def digest_of(plains: list[bytes]) -> str:
    return "sha256:" + hashlib.sha256(b"/".join(plains)).hexdigest()
