"""One volume: the file it shows, and its reads that wait for chunks. Pure."""

import msgspec

from stoker.packaging.chunks.manifest import ChunkEntry, Manifest
from stoker.packaging.chunks.sealing import CHUNK_BYTES
from stoker.packaging.volumes.fuse_records import answer_header
from stoker.packaging.volumes.records import PROFILE_CHUNKS_MAX

PROFILE_S = 10.0
"""How long a start is watched."""

ChunkId = tuple[bytes, bytes]
"""Name and key: a name alone must not open what somebody else's key did."""

_ZEROS = memoryview(bytes(CHUNK_BYTES))


class Piece(msgspec.Struct, frozen=True):
    """Part of a read: from ``start`` to ``end`` of the chunk at ``index``; ``chunk`` is None for a hole."""

    index: int
    start: int
    end: int
    chunk: ChunkId | None


class PendingRead(msgspec.Struct):
    """A read whose chunks are not all here."""

    volume: int
    unique: int
    pieces: tuple[Piece, ...]
    found: dict[ChunkId, bytes]
    missing: set[ChunkId]


class Volume:
    """What is served through one device."""

    def __init__(self, number: int, device: int, manifest: Manifest, now_s: float) -> None:
        self.number = number
        self.device = device
        self.manifest = manifest
        self.pending: dict[int, PendingRead] = {}
        self._touched: dict[int, None] = {}
        self._watched_until_s = now_s + PROFILE_S
        self.told = False

    def pieces(self, offset: int, size_bytes: int) -> tuple[Piece, ...]:
        """What a read is made of; less at the file's end, nothing beyond."""
        end = min(offset + size_bytes, self.manifest.size_bytes)
        return tuple(self._piece(index, offset, end) for index in _touching(offset, end))

    def touch(self, index: int, now_s: float) -> None:
        """A read needed this chunk."""
        if now_s < self._watched_until_s and len(self._touched) < PROFILE_CHUNKS_MAX:
            self._touched[index] = None

    def profile(self, now_s: float) -> tuple[int, ...] | None:
        """What the start read, once, when it has been watched for long enough; None before and after."""
        if self.told or now_s < self._watched_until_s:
            return None
        self.told = True
        return tuple(self._touched)

    def last_profile(self) -> tuple[int, ...] | None:
        """The same of a volume that goes early."""
        return self.profile(self._watched_until_s)

    def _piece(self, index: int, offset: int, end: int) -> Piece:
        base = index * CHUNK_BYTES
        entry = self.manifest.chunk(index)
        return Piece(
            index,
            max(offset - base, 0),
            min(end - base, CHUNK_BYTES),
            None if entry is None else chunk_id(entry),
        )


def chunk_id(entry: ChunkEntry) -> ChunkId:
    """What a chunk is kept under."""
    return entry.name, entry.key


def answer_read(
    unique: int, pieces: tuple[Piece, ...], found: dict[ChunkId, bytes]
) -> list[bytes | memoryview]:
    """The answer of a read, in parts that are written at once. A chunk is shorter when it ends in zeros."""
    parts: list[bytes | memoryview] = [b""]
    for piece in pieces:
        plain = b"" if piece.chunk is None else found[piece.chunk]
        kept = memoryview(plain)[piece.start : piece.end]
        if kept:
            parts.append(kept)
        if len(kept) < piece.end - piece.start:
            parts.append(_ZEROS[: piece.end - piece.start - len(kept)])
    parts[0] = answer_header(unique, sum(piece.end - piece.start for piece in pieces))
    return parts


def _touching(offset: int, end: int) -> range:
    return range(offset // CHUNK_BYTES, -(-end // CHUNK_BYTES)) if offset < end else range(0)
