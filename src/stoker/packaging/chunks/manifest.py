"""A manifest: where an image's chunks lie and which keys open them. A pure format.

Names are open, so that the collector needs no keys; chunk keys and the image's configuration are sealed by
AES-256-GCM under a data key, and everything, with the image's account, digest and root, is authenticated.
"""

import struct
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import pairwise

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from stoker.core.errors import StokerError
from stoker.packaging.chunks.sealing import CHUNK_BYTES, KEY_BYTES, NAME_BYTES

SIZE_MAX_BYTES = 16 * 1024**3
"""Of an image: Lambda's 10 GB, and what a file system adds."""

CONFIGURATION_MAX_BYTES = 256 * 1024
KEY_ID_BYTES = 16
NONCE_BYTES = 12
TAG_BYTES = 16

REVOKED = b"STOKER-REVOKED"
"""Stands where an admission that took too long would put its manifest, so that it cannot any more."""

_MAGIC = b"STOKMAN1"
_HEAD = struct.Struct(f">8s16s{KEY_ID_BYTES}s{NONCE_BYTES}sQII")
"""Magic, root, key id, nonce, size of the image, number of chunks, bytes of the configuration."""

_INDEX = struct.Struct(">I")
_ENTRY_BYTES = _INDEX.size + NAME_BYTES


class ManifestDamaged(StokerError):
    """It is no manifest, or not that image's, or was changed; nothing of it was used."""


class ManifestPlace(msgspec.Struct, frozen=True):
    """Whose manifest it is: authenticated, so that one put in another's place does not open."""

    root: str
    account: str
    digest: str


class ChunkEntry(msgspec.Struct, frozen=True):
    """A chunk of an image: number ``index`` of its address space; what no entry names is zeros."""

    index: int
    name: bytes
    key: bytes


class PublicManifest(msgspec.Struct, frozen=True):
    """What is readable without a key, and not authenticated: for counting and collecting."""

    root: str
    key_id: bytes
    size_bytes: int
    indexes: tuple[int, ...]
    names: bytes

    def each_name(self) -> Iterator[bytes]:
        """Every chunk's name, in order of the address space."""
        for start in range(0, len(self.names), NAME_BYTES):
            yield self.names[start : start + NAME_BYTES]


class Manifest(msgspec.Struct, frozen=True):
    """An opened manifest, compact: 68 bytes and an integer a chunk."""

    size_bytes: int
    indexes: tuple[int, ...]
    names: bytes
    keys: bytes
    configuration: bytes

    def chunk(self, index: int) -> ChunkEntry | None:
        """The chunk at ``index`` (offset / CHUNK_BYTES); None for a hole."""
        place = bisect_left(self.indexes, index)
        if place == len(self.indexes) or self.indexes[place] != index:
            return None
        return self._entry(place)

    def entries(self) -> Iterator[ChunkEntry]:
        """Every chunk, in order of the address space."""
        return (self._entry(place) for place in range(len(self.indexes)))

    def _entry(self, place: int) -> ChunkEntry:
        return ChunkEntry(
            self.indexes[place],
            self.names[place * NAME_BYTES : (place + 1) * NAME_BYTES],
            self.keys[place * KEY_BYTES : (place + 1) * KEY_BYTES],
        )


def make_manifest(size_bytes: int, entries: Iterable[ChunkEntry], configuration: bytes) -> Manifest:
    """A manifest of chunks in any order.

    Raises:
        ValueError: it would break one of the format's rules.
    """
    ordered = sorted(entries, key=lambda entry: entry.index)
    indexes = tuple(entry.index for entry in ordered)
    if not 0 <= size_bytes <= SIZE_MAX_BYTES or len(configuration) > CONFIGURATION_MAX_BYTES:
        raise ValueError(f"an image of {size_bytes} bytes, configured by {len(configuration)}, is too big")
    if not _are_ordered(indexes, size_bytes):
        raise ValueError("chunks lie over each other, or outside of the image")
    if any(len(entry.name) != NAME_BYTES or len(entry.key) != KEY_BYTES for entry in ordered):
        raise ValueError("a chunk's name or key has the wrong length")
    return Manifest(
        size_bytes,
        indexes,
        b"".join(entry.name for entry in ordered),
        b"".join(entry.key for entry in ordered),
        configuration,
    )


def seal_manifest(
    manifest: Manifest, place: ManifestPlace, *, key_id: bytes, data_key: bytes, nonce: bytes
) -> bytes:
    """As it is stored. ``nonce`` must be random: a data key may seal the same image's manifest again."""
    head = _HEAD.pack(
        _MAGIC,
        bytes.fromhex(place.root),
        key_id,
        nonce,
        manifest.size_bytes,
        len(manifest.indexes),
        len(manifest.configuration),
    )
    table = b"".join(_INDEX.pack(entry.index) + entry.name for entry in manifest.entries())
    secret = manifest.keys + manifest.configuration
    return head + table + AESGCM(data_key).encrypt(nonce, secret, _bound(place, head, table))


def read_public(content: bytes) -> PublicManifest:
    """What is readable without a key.

    Raises:
        ManifestDamaged: it breaks one of the format's rules.
    """
    fields = _read_head(content)
    indexes, names = _read_table(content, fields.chunks, fields.size_bytes)
    return PublicManifest(fields.root, fields.key_id, fields.size_bytes, indexes, names)


def open_manifest(content: bytes, place: ManifestPlace, data_key: bytes) -> Manifest:
    """Everything, authenticated.

    Raises:
        ManifestDamaged: a bit of it was changed, or it is another image's, or sealed under another key.
    """
    fields = _read_head(content)
    if fields.root != place.root:
        raise ManifestDamaged(f"the manifest of {place.digest} is of another root")
    indexes, names = _read_table(content, fields.chunks, fields.size_bytes)
    end = _HEAD.size + len(indexes) * _ENTRY_BYTES
    head, table, sealed = content[: _HEAD.size], content[_HEAD.size : end], content[end:]
    try:
        secret = AESGCM(data_key).decrypt(fields.nonce, sealed, _bound(place, head, table))
    except InvalidTag as problem:
        raise ManifestDamaged(f"the manifest of {place.digest} does not open") from problem
    keys = len(indexes) * KEY_BYTES
    return Manifest(fields.size_bytes, indexes, names, secret[:keys], secret[keys:])


class _Head(msgspec.Struct, frozen=True):
    root: str
    key_id: bytes
    nonce: bytes
    size_bytes: int
    chunks: int


def _read_head(content: bytes) -> _Head:
    if len(content) < _HEAD.size or not content.startswith(_MAGIC):
        raise ManifestDamaged("not a manifest")
    _, root, key_id, nonce, size_bytes, chunks, configuration = _HEAD.unpack_from(content)
    length = _HEAD.size + chunks * (_ENTRY_BYTES + KEY_BYTES) + configuration + TAG_BYTES
    if size_bytes > SIZE_MAX_BYTES or configuration > CONFIGURATION_MAX_BYTES or len(content) != length:
        raise ManifestDamaged("a manifest of the wrong length")
    return _Head(root.hex(), key_id, nonce, size_bytes, chunks)


def _read_table(content: bytes, chunks: int, size_bytes: int) -> tuple[tuple[int, ...], bytes]:
    table = memoryview(content)[_HEAD.size : _HEAD.size + chunks * _ENTRY_BYTES]
    rows = list(struct.iter_unpack(f">I{NAME_BYTES}s", table))
    indexes = tuple(row[0] for row in rows)
    if not _are_ordered(indexes, size_bytes):
        raise ManifestDamaged("a manifest whose chunks lie over each other, or outside of the image")
    return indexes, b"".join(row[1] for row in rows)


def _are_ordered(indexes: tuple[int, ...], size_bytes: int) -> bool:
    """Strictly rising, and within the image."""
    if indexes and not 0 <= indexes[0] <= indexes[-1] < -(-size_bytes // CHUNK_BYTES):
        return False
    return all(one < other for one, other in pairwise(indexes))


def _bound(place: ManifestPlace, head: bytes, table: bytes) -> bytes:
    owner = f"{place.root} {place.account} {place.digest}".encode()
    return _INDEX.pack(len(owner)) + owner + head + table
