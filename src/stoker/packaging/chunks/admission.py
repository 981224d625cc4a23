"""One admission of an image: its chunks and its manifest go into the root that was active when it began.

It is registered in that root before it looks for any chunk there: a root expires only when no admission is
registered in it, so a chunk that was found "already there" stays until the manifest needs it.
"""

import secrets
from types import TracebackType
from typing import Self

import msgspec

from stoker.core.clock import Clock
from stoker.core.errors import StokerError
from stoker.packaging.chunks.changes import ImageChanges
from stoker.packaging.chunks.layout import admission_key, chunk_key, data_key_key, manifest_key
from stoker.packaging.chunks.manifest import (
    KEY_ID_BYTES,
    NONCE_BYTES,
    REVOKED,
    Manifest,
    ManifestDamaged,
    ManifestPlace,
    open_manifest,
    read_public,
    seal_manifest,
)
from stoker.packaging.chunks.root_table import KeptRoots
from stoker.packaging.chunks.roots import READABLE
from stoker.services.keys import ACCOUNT, DataKeys, KeyRefused
from stoker.services.object_store import ObjectMissing, ObjectStore

ADMISSION_MAX_S = 6 * 3600
"""An admission that is not published by then never is."""

ROOT_CHECKED_EVERY_S = 10
BEGINNINGS_MAX = 5


class AdmissionLost(StokerError):
    """The root was retired meanwhile, or the admission took too long; nothing was published. Begin again."""


class Registration(msgspec.Struct, frozen=True):
    """What an admission leaves in its root while it is under way."""

    account: str
    digest: str
    deadline_s: float


class Admission:
    """Made by ``ChunkedImages.begin``; a context manager that deregisters in the end.

    Chunks are to be sealed with ``salt``; many may be put at once.
    """

    def __init__(
        self,
        store: ObjectStore,
        keys: DataKeys,
        roots: KeptRoots,
        clock: Clock,
        changes: ImageChanges,
        *,
        place: ManifestPlace,
        salt: bytes,
        key: str,
        kms_key_arn: str | None,
    ) -> None:
        self.place = place
        self.salt = salt
        self._store = store
        self._keys = keys
        self._roots = roots
        self._clock = clock
        self._changes = changes
        self._key = key
        self._kms_key_arn = kms_key_arn
        self._deadline_s = clock.monotonic_s() + ADMISSION_MAX_S
        self._checked_at_s = clock.monotonic_s()

    async def put_chunk(self, name: bytes, content: bytes) -> bool:
        """Store a sealed chunk; whether it was new.

        Raises:
            AdmissionLost, ObjectStoreUnavailable
        """
        if self._clock.monotonic_s() - self._checked_at_s > ROOT_CHECKED_EVERY_S:
            await self._check()
        return await self._store.put_new(chunk_key(self.place.root, name), content)

    async def has_chunk(self, name: bytes) -> bool:
        """Whether a chunk is there already; it stays as long as this admission is registered.

        Raises:
            ObjectStoreUnavailable
        """
        return await self._store.size_bytes(chunk_key(self.place.root, name)) is not None

    async def publish(self, manifest: Manifest) -> None:
        """Make the image readable: its chunks are all there. Nothing happens when it is so already.

        Raises:
            AdmissionLost, ObjectStoreUnavailable, KeyRefused, KeyUnavailable
        """
        account, digest = self.place.account, self.place.digest
        data_key = await self._keys.generate(key_context(account, digest), self._kms_key_arn)
        async with self._changes.publishing(account, digest):
            await self._publish_under(manifest, data_key)

    async def publish_moved(self, manifest: Manifest, data_key: tuple[bytes, bytes]) -> None:
        """The same for an image that comes from another root with its data key, plain and wrapped, so that
        nobody's permission to make another is needed; nothing when it was forgotten on the way."""
        async with self._changes.publishing_moved(self.place.account, self.place.digest) as is_wanted:
            if is_wanted:
                await self._publish_under(manifest, data_key)

    async def _publish_under(self, manifest: Manifest, data_key: tuple[bytes, bytes]) -> None:
        plain, wrapped = data_key
        key_id = secrets.token_bytes(KEY_ID_BYTES)
        content = seal_manifest(
            manifest, self.place, key_id=key_id, data_key=plain, nonce=secrets.token_bytes(NONCE_BYTES)
        )
        await self._check()
        await self._store.put(data_key_key(self.place.root, key_id), wrapped)
        if not await self._publish(content):
            await self._store.delete(data_key_key(self.place.root, key_id))
        table = await self._roots.read()
        if table.state(self.place.root) not in READABLE:
            raise AdmissionLost(f"the root of {self.place.digest} expired while it was admitted")

    async def end(self) -> None:
        """Deregister."""
        await self._store.delete(self._key)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, where: TracebackType | None
    ) -> None:
        await self.end()

    async def _publish(self, content: bytes) -> bool:
        """Whether the manifest that is there now is this one."""
        key = manifest_key(self.place.root, self.place.account, self.place.digest)
        if await self._store.put_new(key, content):
            return True
        try:
            there = await self._store.get(key)
        except ObjectMissing as problem:
            raise AdmissionLost(f"{self.place.digest} was forgotten while it was admitted") from problem
        if there == REVOKED:
            raise AdmissionLost(f"the admission of {self.place.digest} took too long")
        if there == content:  # an earlier try, whose answer was lost
            return True
        if await self._opens(there):
            return False
        await self._store.put(key, content)
        return True

    async def _opens(self, content: bytes) -> bool:
        try:
            wrapped = await self._store.get(data_key_key(self.place.root, read_public(content).key_id))
            context = key_context(self.place.account, self.place.digest)
            open_manifest(content, self.place, await self._keys.unwrap(wrapped, context))
        except (ManifestDamaged, ObjectMissing, KeyRefused):
            return False
        return True

    async def _check(self) -> None:
        if self._clock.monotonic_s() >= self._deadline_s:
            raise AdmissionLost(f"the admission of {self.place.digest} takes longer than {ADMISSION_MAX_S} s")
        if (await self._roots.read()).active.id != self.place.root:
            raise AdmissionLost(f"the root of {self.place.digest} was retired while it was admitted")
        self._checked_at_s = self._clock.monotonic_s()


def key_context(account: str, digest: str) -> dict[str, str]:
    """For which an image's data key is wrapped."""
    return {ACCOUNT: account, "image": digest}


async def register(
    store: ObjectStore, roots: KeptRoots, clock: Clock, account: str, digest: str
) -> tuple[ManifestPlace, bytes, str]:
    """Register an admission in the active root: its place, the root's salt, the registration's key.

    The root is looked up again once the registration is durable: from then on whoever retires the root sees
    the registration, or we see that it is retired.

    Raises:
        AdmissionLost: the roots change faster than this.
    """
    for _ in range(BEGINNINGS_MAX):
        table = await roots.read()
        root = table.active.id
        key = admission_key(root, secrets.token_hex(16))
        registration = Registration(account, digest, clock.now_s() + ADMISSION_MAX_S)
        await store.put(key, msgspec.json.encode(registration))
        table = await roots.read()
        if table.active.id == root:
            return ManifestPlace(root, account, digest), await roots.salt(table, root), key
        await store.delete(key)
    raise AdmissionLost("roots are retired faster than an admission begins")
