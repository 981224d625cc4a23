"""Counts what is stored, root by root, and how much of it any image still names. Needs no keys."""

import msgspec

from stoker.packaging.chunks.images import ChunkedImages
from stoker.packaging.chunks.layout import chunks_prefix, manifest_key
from stoker.packaging.chunks.manifest import REVOKED, ManifestDamaged, read_public
from stoker.packaging.chunks.roots import READABLE, Root
from stoker.packaging.chunks.sealing import CHUNK_BYTES, NAME_BYTES
from stoker.services.object_store import ObjectMissing


class RootSurvey(msgspec.Struct, frozen=True, kw_only=True):
    """What a root holds."""

    root: str
    state: str
    since_s: float
    images: int
    chunks: int
    stored_bytes: int
    garbage_bytes: int
    """Of chunks that no manifest of the root names."""
    named_bytes: int
    """Of all chunks of all images, counted as often as an image names them, holes aside."""

    @property
    def dedup_ratio(self) -> float:
        """How many bytes of images one stored byte stands for; 1 in an empty root."""
        live = self.stored_bytes - self.garbage_bytes
        return self.named_bytes / live if live else 1.0


async def survey(images: ChunkedImages) -> list[RootSurvey]:
    """Every root that is not deleted, oldest first; what changes meanwhile is counted or not."""
    table = await images.roots.read()
    return [await survey_root(images, root) for root in table.roots if root.state != "deleted"]


async def survey_root(images: ChunkedImages, root: Root) -> RootSurvey:
    """One root."""
    stored = await images.stored_in(root.id) if root.state in READABLE else []
    named: set[bytes] = set()
    named_bytes = 0
    for account, digest in stored:
        names = await _names(images, root.id, account, digest)
        named_bytes += len(names) * CHUNK_BYTES
        named.update(names)
    chunks = stored_bytes = garbage_bytes = 0
    async for entry in images.store.list_objects(chunks_prefix(root.id)):
        chunks += 1
        stored_bytes += entry.size_bytes
        if _name_in(entry.key) not in named:
            garbage_bytes += entry.size_bytes
    return RootSurvey(
        root=root.id,
        state=root.state,
        since_s=root.since_s,
        images=len(stored),
        chunks=chunks,
        stored_bytes=stored_bytes,
        garbage_bytes=garbage_bytes,
        named_bytes=named_bytes,
    )


async def _names(images: ChunkedImages, root: str, account: str, digest: str) -> list[bytes]:
    try:
        content = await images.store.get(manifest_key(root, account, digest))
        return [] if content == REVOKED else list(read_public(content).each_name())
    except (ObjectMissing, ManifestDamaged):  # gone since, or not to be read by anybody
        return []


def _name_in(key: str) -> bytes:
    name = key.rpartition("/")[2]
    return bytes.fromhex(name) if len(name) == 2 * NAME_BYTES else b""
