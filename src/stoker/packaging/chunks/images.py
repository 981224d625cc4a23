"""Images in chunks, by account and digest: admitted, opened, forgotten. Roots are nobody else's business."""

import contextlib
from collections.abc import AsyncGenerator

import msgspec

from stoker.core.clock import Clock
from stoker.packaging.chunks.admission import Admission, key_context, register
from stoker.packaging.chunks.changes import ImageChanges
from stoker.packaging.chunks.layout import (
    TABLE,
    chunk_key,
    data_key_key,
    image_of,
    manifest_key,
    manifests_prefix,
    profile_key,
)
from stoker.packaging.chunks.manifest import (
    REVOKED,
    ChunkEntry,
    Manifest,
    ManifestDamaged,
    ManifestPlace,
    open_manifest,
    read_public,
)
from stoker.packaging.chunks.root_table import KeptRoots
from stoker.packaging.chunks.roots import RootState, RootTable
from stoker.services.images import ImageMissing
from stoker.services.keys import DataKeys, WrappedKey
from stoker.services.object_store import ObjectMissing, ObjectStore

FINDS_MAX = 5
"""How often an image is looked for again that moved from root to root meanwhile."""


class OpenImage(msgspec.Struct, frozen=True):
    """An image that can be read, and the root in which its chunks are."""

    place: ManifestPlace
    manifest: Manifest
    data_key: tuple[bytes, bytes]
    """Plain and wrapped."""


class ChunkedImages:
    """Images over an object store that other processes may share."""

    def __init__(self, store: ObjectStore, keys: DataKeys, clock: Clock) -> None:
        self.store = store
        self.keys = keys
        self.roots = KeptRoots(store, keys, clock)
        self._clock = clock
        self.changes = ImageChanges()

    async def begin(self, account: str, digest: str, kms_key_arn: str | None = None) -> Admission:
        """Begin an admission; whoever calls ends it, as a context manager or by ``end``.

        Raises:
            AdmissionLost, ObjectStoreUnavailable, KeyUnavailable, KeyRefused, RootTableDamaged
        """
        place, salt, key = await register(self.store, self.roots, self._clock, account, digest)
        return Admission(
            self.store,
            self.keys,
            self.roots,
            self._clock,
            self.changes,
            place=place,
            salt=salt,
            key=key,
            kms_key_arn=kms_key_arn,
        )

    async def find(self, account: str, digest: str) -> OpenImage:
        """Open an image's manifest, the newest there is.

        Raises:
            ImageMissing: there is none.
            ManifestDamaged, ObjectStoreUnavailable, KeyUnavailable, KeyRefused, RootTableDamaged
        """
        for _ in range(FINDS_MAX):
            table = await self.roots.read()
            found = await self._find(table, account, digest)
            if found is not None:
                return found
            # Roots change while they are looked through: then an image may have moved past us.
            if (await self.roots.read()).roots == table.roots:
                break
        raise ImageMissing(f"{digest} is not stored for account {account}")

    async def open_in(self, root: str, account: str, digest: str) -> OpenImage | None:
        """Open an image's manifest in one root; None when it is not there. Raises as ``find``."""
        place = ManifestPlace(root, account, digest)
        content = await self.store.get(manifest_key(root, account, digest))
        if content == REVOKED:
            return None
        try:
            wrapped = await self.store.get(data_key_key(root, read_public(content).key_id))
        except ObjectMissing as problem:
            if await self.store.size_bytes(manifest_key(root, account, digest)) is None:
                return None
            raise ManifestDamaged(f"the data key of {digest} is gone") from problem
        plain = await self.keys.unwrap(wrapped, key_context(account, digest))
        return OpenImage(place, open_manifest(content, place, plain), (plain, wrapped))

    async def fetch(self, image: OpenImage, entry: ChunkEntry) -> bytes:
        """A chunk's sealed content, not verified: ``open_chunk`` does that.

        Raises:
            ObjectMissing, ObjectStoreUnavailable
        """
        return await self.store.get(chunk_key(image.place.root, entry.name))

    async def forget(self, account: str, digest: str) -> None:
        """The image cannot be opened any more; its chunks go with their roots.

        Raises:
            ObjectStoreUnavailable: it may be half forgotten, and readable still; call again.
        """
        async with self.changes.forgetting(account, digest):
            for root in (await self.roots.read()).roots:
                if root.state is not RootState.DELETED:
                    await self._forget_in(root.id, account, digest)

    async def stored(self) -> list[tuple[str, str]]:
        """Account and digest of every image."""
        found: set[tuple[str, str]] = set()
        for root in (await self.roots.read()).readable():
            found |= set(await self.stored_in(root.id))
        return sorted(found)

    async def stored_in(self, root: str) -> list[tuple[str, str]]:
        """Account and digest of every image with a manifest in ``root``."""
        entries = [entry async for entry in self.store.list_objects(manifests_prefix(root))]
        images = [image_of(entry.key) for entry in entries if entry.size_bytes != len(REVOKED)]
        return sorted(image for image in images if image is not None)

    async def wrapped_keys(self) -> AsyncGenerator[WrappedKey, None]:
        """The data key of the table of roots, and of each image that can be read; see WrappedKeys.

        Raises:
            ObjectStoreUnavailable, RootTableDamaged
        """
        if not await self.roots.exist():
            return
        yield await self.roots.wrapped_key()
        for root in (await self.roots.read()).readable():
            for account, digest in await self.stored_in(root.id):
                # Forgotten since, or not to be opened by any key: then there is nothing to rotate.
                with contextlib.suppress(ObjectMissing, ManifestDamaged):
                    manifest = await self.store.get(manifest_key(root.id, account, digest))
                    name = data_key_key(root.id, read_public(manifest).key_id)
                    wrapped = await self.store.get(name)
                    yield WrappedKey(name=name, wrapped=wrapped, context=key_context(account, digest))

    async def replace_wrapped(self, key: WrappedKey, wrapped: bytes) -> None:
        """Keep a data key wrapped anew, and touch nothing else."""
        if key.name == TABLE:
            await self.roots.replace_wrapped(key, wrapped)
            return
        with contextlib.suppress(ObjectMissing):
            if await self.store.get(key.name) == key.wrapped:
                await self.store.put(key.name, wrapped)

    async def _find(self, table: RootTable, account: str, digest: str) -> OpenImage | None:
        for root in table.readable():
            try:
                found = await self.open_in(root.id, account, digest)
            except ObjectMissing:
                continue
            if found is not None:
                return found
        return None

    async def _forget_in(self, root: str, account: str, digest: str) -> None:
        key = manifest_key(root, account, digest)
        try:
            content = await self.store.get(key)
        except ObjectMissing:
            return
        if content == REVOKED:  # stays, for the admission that it stops
            return
        await self.store.delete(key)
        await self.store.delete(profile_key(root, account, digest))
        try:
            key_id = read_public(content).key_id
        except ManifestDamaged:  # its key goes with the root
            return
        await self.store.delete(data_key_key(root, key_id))
