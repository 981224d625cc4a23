"""Sealed code in the object store, by its name in hexadecimal digits: whole or absent, never plain. The name
is the SHA-256 of the uploaded zip, or of code under a key of KMS what ``code_name`` says.

``code/<name>.key`` makes code exist: its wrapped data key, its sealed facts and, of small code, the sealed
package. The package is the original zip and the image behind it; ``<name>.<variant>`` is what was made of it
later: compiled images and code caches.
"""

import asyncio
import contextlib
import os
import re
import secrets
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec

from stoker.core.errors import StokerError
from stoker.packaging.artifacts import ArtifactDamaged, SealedArtifact, open_bytes, seal_bytes, write_all
from stoker.packaging.sealed_objects import SealedObjects, sealed_files
from stoker.services.code import CodeKey, CodeMissing
from stoker.services.keys import DataKeys, KeyRefused, WrappedKey
from stoker.services.object_store import ObjectMissing, ObjectStore, ObjectStoreUnavailable

INLINE_MAX_BYTES: Final = 64 * 1024
"""Code up to this size lies in the object of its key: one durable write instead of two."""

VARIANTS_MAX: Final = 16
"""Of one archive, for its runtimes, accounts and companions; the first made make room."""

LAYERS: Final = "layers-"
"""Begins the name of a variant that holds several archives: the first one's, and ``short`` of each other."""

_SHORT_DIGITS: Final = 24
_PREFIX: Final = "code/"
_KEY: Final = "key"
_NAME: Final = re.compile(r"code/([0-9a-f]{64})\.([A-Za-z0-9._=-]+)")


class Facts(msgspec.Struct, frozen=True):
    """What was learnt when the code was admitted. ``image_bytes`` is 0 when the package holds no image."""

    size_bytes: int
    unpacked_bytes: int
    image_bytes: int = 0
    sha256: str = ""
    """Of the uploaded zip, in hexadecimal digits, where the code has another name."""


class SealedCode(msgspec.Struct, frozen=True):
    """Code that is in the vault."""

    digest: str
    facts: Facts
    wrapped: bytes
    package: str
    """The name of its package's object; empty when it lies in the object of its key."""
    function_arn: str = ""
    """Of code under a key of KMS: what the key is told."""


class _Entry(msgspec.Struct, frozen=True, array_like=True):
    """The object of a key, in MessagePack."""

    version: int
    wrapped: bytes
    facts: bytes
    package: str
    inline: bytes
    function_arn: str = ""


class CodeVault:
    """The only one that writes below ``code/`` in its store. Belongs to one event loop.

    ``staging`` is a folder for sealed files on their way.
    """

    def __init__(self, store: ObjectStore, keys: DataKeys, staging: Path) -> None:
        self._store = store
        self._keys = keys
        self._objects = SealedObjects(store, staging)
        self._known: dict[str, SealedCode] = {}
        self._listed: dict[str, dict[str, None]] = {}
        """The names of the objects of all that is stored, the first made first; before ``listed`` of what was
        found or put."""
        self.listed = asyncio.Event()
        """Set once it is known what is stored. Before that every digest is looked for in the store itself."""
        self._merged: set[tuple[str, str]] = set()
        """The variants that hold more than the archive whose they are."""
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}

    async def start(self) -> None:
        """Find what is stored, and remove what a killed process left half stored. May be called again when it
        failed; all else works meanwhile, as far as the store does.

        Raises:
            ObjectStoreUnavailable
        """
        if not self._listed:
            self._objects.start()
        found: dict[str, dict[str, None]] = {}
        async for stored in self._store.list_objects(_PREFIX):
            if (match := _NAME.fullmatch(stored.key)) is not None:
                found.setdefault(match[1], {})[match[2]] = None
        for digest, names in found.items():
            if _KEY in names:
                self._listed.setdefault(digest, {}).update(names)
                self._merged.update((digest, name) for name in names if name.startswith(LAYERS))
            elif digest not in self._listed and digest not in self._locks:  # else it is being stored
                for name in names:
                    await self._store.delete(_object(digest, name))
        self.listed.set()

    def digests(self) -> list[str]:
        """Everything that is stored; wait for ``listed``."""
        return list(self._listed)

    def is_stored(self, digest: str) -> bool:
        return digest in self._listed

    def has_variant(self, digest: str, variant: str) -> bool:
        """Whether that was made of it."""
        return variant in self._listed.get(digest, ())

    def known(self, digest: str) -> SealedCode | None:
        """What ``find`` or ``put`` has found before, without waiting."""
        return self._known.get(digest) if digest in self._listed else None

    async def find(self, digest: str) -> SealedCode | None:
        """What is stored of a digest; None when it is not.

        Raises:
            ArtifactDamaged, ObjectStoreUnavailable
            KeyRefused, KeyUnavailable: of code under a key of KMS; so below.
        """
        if digest not in self._listed and self.listed.is_set():
            return None
        known = self._known.get(digest)
        if known is None:
            try:
                known = await self._read_entry(digest)
            except ObjectMissing:
                return None
            if not self.listed.is_set():
                self._listed.setdefault(digest, _names(known.package))
            if digest in self._listed:
                self._known[digest] = known
        return known

    async def put(
        self, digest: str, facts: Facts, files: tuple[int, ...], kms: CodeKey | None = None
    ) -> SealedCode:
        """Seal and store the files, one behind the other; whoever was first with the same digest stays.

        Durable when this returns, absent when it fails.

        Raises:
            ObjectStoreUnavailable, KeyRefused, KeyUnavailable, OSError
        """
        function_arn, kms_key_arn = ("", None) if kms is None else (kms.function_arn, kms.kms_key_arn)
        async with self._alone(digest):
            if (there := await self.find(digest)) is not None:
                return there
            key, wrapped = await self._keys.generate(_context(digest, function_arn), kms_key_arn)
            size_bytes = facts.size_bytes + facts.image_bytes
            package, inline = "", b""
            if size_bytes <= INLINE_MAX_BYTES:
                inline = b"".join(sealed_files(_name(digest, package), key, files, size_bytes))
            else:
                package = f"package-{secrets.token_hex(8)}"
                where = _object(digest, package)
                await self._objects.put(where, _name(digest, package), key, files, size_bytes)
            sealed_facts = seal_bytes(msgspec.json.encode(facts), key, _name(digest, "facts"))
            entry = _Entry(1, wrapped, sealed_facts, package, inline, function_arn)
            try:
                await self._store.put(_object(digest, _KEY), msgspec.msgpack.encode(entry))
            except BaseException:
                # What it cannot delete now has no key, and goes at the next start.
                if package:
                    await self._store.delete(_object(digest, package))
                raise
            self._listed[digest] = _names(package)
            self._known[digest] = SealedCode(digest, facts, wrapped, package, function_arn)
            return self._known[digest]

    async def try_key(self, digest: str) -> None:
        """See that code can be opened, if it is under a key of KMS.

        Raises:
            ArtifactDamaged, ObjectStoreUnavailable, KeyRefused, KeyUnavailable
        """
        code = await self.find(digest)
        if code is not None and code.function_arn:
            await self._key_of(code)

    async def original_into(self, code: SealedCode, file: int) -> None:
        """Write the uploaded zip, byte for byte.

        Raises:
            CodeMissing: it was forgotten.
            ArtifactDamaged, ObjectStoreUnavailable, KeyRefused, KeyUnavailable, OSError
        """
        await self._package_into(code, 0, code.facts.size_bytes, file)

    async def image_into(self, code: SealedCode, file: int) -> None:
        """Write the image that was stored with it; raises as ``original_into``."""
        await self._package_into(code, code.facts.size_bytes, code.facts.image_bytes, file)

    async def put_variant(self, code: SealedCode, variant: str, file: int) -> None:
        """Store what was made of it; nothing happens when the code was forgotten meanwhile.

        Raises:
            ObjectStoreUnavailable, KeyRefused, KeyUnavailable, OSError
        """
        async with self._alone(code.digest):
            if self.known(code.digest) != code:
                return
            for name in self._surplus(code):
                await self.drop_variant(code.digest, name)
            key = await self._key_of(code)
            where, size_bytes = _object(code.digest, variant), os.fstat(file).st_size
            await self._objects.put(where, _name(code.digest, variant), key, (file,), size_bytes)
            if (names := self._listed.get(code.digest)) is None:
                await self._store.delete(where)  # forgotten meanwhile
                return
            names[variant] = None
            if variant.startswith(LAYERS):
                self._merged.add((code.digest, variant))

    def _surplus(self, code: SealedCode) -> list[str]:
        """Variants that make room for another one."""
        made = [name for name in self._listed[code.digest] if name not in (_KEY, code.package)]
        return made[: max(len(made) - VARIANTS_MAX + 1, 0)]

    async def variant_into(self, code: SealedCode, variant: str, file: int) -> None:
        """Write what was made of it; raises as ``original_into``, CodeMissing also when there is none."""
        key = await self._key_of(code)
        await self._copy(code.digest, variant, key, file)

    async def drop_variant(self, digest: str, variant: str) -> None:
        """Delete what was made of it."""
        self._listed.get(digest, {}).pop(variant, None)
        self._merged.discard((digest, variant))
        await self._store.delete(_object(digest, variant))

    async def forget(self, digest: str) -> None:
        """Delete everything of a digest; from the first moment on nobody finds it."""
        names = self._listed.pop(digest, None)
        self._known.pop(digest, None)
        if names is None:
            return
        for owner, variant in [each for each in self._merged if short(digest) in each[1]]:
            await self.drop_variant(owner, variant)
        self._merged.difference_update([each for each in self._merged if each[0] == digest])
        async with self._alone(digest):
            if digest in self._listed:  # admitted again meanwhile; what is left of the old is named in no key
                names = {name: None for name in names if name not in self._listed[digest]}
            for name in sorted(names, key=lambda name: name != _KEY):
                await self._store.delete(_object(digest, name))

    async def wrapped_keys(self) -> AsyncIterator[WrappedKey]:
        """Every data key; see WrappedKeys.

        Raises:
            ObjectStoreUnavailable
        """
        if not self.listed.is_set():
            raise ObjectStoreUnavailable("the object store has not told yet what is in it")
        for digest in self.digests():
            with contextlib.suppress(ObjectMissing):
                entry = _decoded(await self._store.get(_object(digest, _KEY)), digest)
                yield WrappedKey(
                    name=digest, wrapped=entry.wrapped, context=_context(digest, entry.function_arn)
                )

    async def replace_wrapped(self, key: WrappedKey, wrapped: bytes) -> None:
        """Keep a key wrapped anew; what it opens is not rewritten, but for code that lies beside its key."""
        async with self._alone(key.name):
            try:
                entry = _decoded(await self._store.get(_object(key.name, _KEY)), key.name)
            except ObjectMissing:
                return
            if entry.wrapped != key.wrapped or key.name not in self._listed:
                return
            entry = msgspec.structs.replace(entry, wrapped=wrapped)
            await self._store.put(_object(key.name, _KEY), msgspec.msgpack.encode(entry))
            self._known.pop(key.name, None)

    # --- sealing and opening

    async def _read_entry(self, digest: str) -> SealedCode:
        entry = _decoded(await self._store.get(_object(digest, _KEY)), digest)
        key = await self._unwrapped(entry.wrapped, digest, entry.function_arn)
        facts = msgspec.json.decode(open_bytes(entry.facts, key, _name(digest, "facts")), type=Facts)
        return SealedCode(digest, facts, entry.wrapped, entry.package, entry.function_arn)

    async def _key_of(self, code: SealedCode) -> bytes:
        return await self._unwrapped(code.wrapped, code.digest, code.function_arn)

    async def _unwrapped(self, wrapped: bytes, digest: str, function_arn: str) -> bytes:
        try:
            return await self._keys.unwrap(wrapped, _context(digest, function_arn))
        except KeyRefused as problem:
            if function_arn:
                raise
            raise ArtifactDamaged(f"the key of {digest} does not open: {problem}") from problem

    async def _package_into(self, code: SealedCode, offset: int, size_bytes: int, file: int) -> None:
        key = await self._key_of(code)
        if code.package:
            await self._copy(code.digest, code.package, key, file, (offset, size_bytes))
            return
        try:
            entry = _decoded(await self._store.get(_object(code.digest, _KEY)), code.digest)
        except ObjectMissing as problem:
            raise CodeMissing(code.digest) from problem
        sealed = entry.inline
        artifact = SealedArtifact(
            lambda at, size: sealed[at : at + size], len(sealed), key, _name(code.digest, "")
        )
        write_all(file, artifact.read(offset, size_bytes))

    async def _copy(
        self, digest: str, part: str, key: bytes, file: int, wanted: tuple[int, int] | None = None
    ) -> None:
        try:
            await self._objects.copy(_object(digest, part), _name(digest, part), key, file, wanted=wanted)
        except ObjectMissing as problem:
            raise CodeMissing(f"{part} of {digest}") from problem

    @asynccontextmanager
    async def _alone(self, digest: str) -> AsyncGenerator[None]:
        """One at a time for each digest."""
        lock, users = self._locks.get(digest, (asyncio.Lock(), 0))
        self._locks[digest] = lock, users + 1
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks[digest]
            if users == 1:
                del self._locks[digest]
            else:
                self._locks[digest] = lock, users - 1


def _names(package: str) -> dict[str, None]:
    """The objects of code of which nothing was made yet."""
    return dict.fromkeys((_KEY, package) if package else (_KEY,))


def short(digest: str) -> str:
    """Enough of a digest that nobody finds another one like it."""
    return digest[:_SHORT_DIGITS]


def _decoded(content: bytes, digest: str) -> _Entry:
    try:
        entry = msgspec.msgpack.decode(content, type=_Entry)
    except msgspec.DecodeError as problem:
        raise ArtifactDamaged(f"the key of {digest} is damaged") from problem
    if entry.version != 1:
        raise StokerError(f"{digest} was stored by a later version of Stoker")
    return entry


def _object(digest: str, name: str) -> str:
    return f"{_PREFIX}{digest}.{name}"


def _name(digest: str, part: str) -> str:
    """What an artifact is bound to."""
    return f"code {digest} {part}"


def _context(digest: str, function_arn: str = "") -> dict[str, str]:
    """KMS is told what Lambda tells it."""
    return (
        {"aws:lambda:FunctionArn": function_arn} if function_arn else {"artifact": "code", "sha256": digest}
    )
