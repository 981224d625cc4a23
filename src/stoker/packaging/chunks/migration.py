"""Moves an image from a retired root into the active one: chunks are sealed anew, under that root's salt."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable

from stoker.packaging.chunks.admission import Admission
from stoker.packaging.chunks.images import ChunkedImages, OpenImage
from stoker.packaging.chunks.layout import profile_key
from stoker.packaging.chunks.manifest import ChunkEntry, make_manifest
from stoker.packaging.chunks.pace import Pace
from stoker.packaging.chunks.sealing import ChunkDamaged, SealedChunk, open_chunk, seal_chunk
from stoker.services.object_store import ObjectMissing

MOVED_REMEMBERED_MAX = 200_000
"""Chunks of which the new name and key are remembered for further images that share them: some 50 MB."""


_To = tuple[str, bytes, bytes]
"""Into which root, and a chunk's name and key in the old one."""


class Migration:
    """Moves images, one chunk at a time; remembers what it moved, so that shared chunks move once."""

    def __init__(self, images: ChunkedImages, pace: Pace, told: Callable[[int], None]) -> None:
        self._images = images
        self._pace = pace
        self._told = told
        self._moved: OrderedDict[_To, tuple[bytes, bytes]] = OrderedDict()

    async def move(self, root: str, account: str, digest: str) -> None:
        """Make the image readable in the active root too; nothing when it is so already, or is gone.

        Raises:
            AdmissionLost, ChunkDamaged, ManifestDamaged, ObjectMissing, ObjectStoreUnavailable,
            KeyRefused, KeyUnavailable: it stays where it is.
        """
        with self._images.changes.moving(account, digest):
            try:
                image = await self._images.open_in(root, account, digest)
            except ObjectMissing:  # forgotten since it was listed
                return
            if image is None:
                return
            async with await self._images.begin(account, digest) as admission:
                if admission.place.root != root:
                    await self._move(image, admission)

    async def _move(self, image: OpenImage, admission: Admission) -> None:
        entries = [await self._move_chunk(image, entry, admission) for entry in image.manifest.entries()]
        manifest = make_manifest(image.manifest.size_bytes, entries, image.manifest.configuration)
        await admission.publish_moved(manifest, image.data_key)
        await self._move_profile(image, admission)

    async def _move_chunk(self, image: OpenImage, entry: ChunkEntry, admission: Admission) -> ChunkEntry:
        to = (admission.place.root, entry.name, entry.key)
        moved = self._moved.get(to)
        if moved is None:
            content = await self._images.fetch(image, entry)
            sealed = await asyncio.to_thread(_sealed_again, content, entry, admission.salt)
            await admission.put_chunk(sealed.name, bytes(sealed.content))
            self._remember(to, sealed)
            self._told(len(content))
            await self._pace.spend(len(content))
            moved = (sealed.name, sealed.key)
        return ChunkEntry(entry.index, *moved)

    def _remember(self, to: _To, sealed: SealedChunk) -> None:
        self._moved[to] = (sealed.name, sealed.key)
        if len(self._moved) > MOVED_REMEMBERED_MAX:
            self._moved.popitem(last=False)

    async def _move_profile(self, image: OpenImage, admission: Admission) -> None:
        """The profile names chunks by their place, so it goes with the image as it is."""
        place = image.place
        try:
            profile = await self._images.store.get(profile_key(place.root, place.account, place.digest))
        except ObjectMissing:
            return
        await self._images.store.put_new(
            profile_key(admission.place.root, place.account, place.digest), profile
        )


def _sealed_again(content: bytes, entry: ChunkEntry, salt: bytes) -> SealedChunk:
    sealed = seal_chunk(open_chunk(content, entry.name, entry.key), salt)
    if sealed is None:
        raise ChunkDamaged(f"chunk {entry.name.hex()} is a hole, which is never stored")
    return sealed
