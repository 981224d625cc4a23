"""What the service and its volume process tell each other: msgpack over SOCK_SEQPACKET, descriptors beside.

Keys of chunks travel in files in memory, never in a message.
"""

import os
import struct
from itertools import pairwise

import msgspec

from stoker.packaging.chunks.manifest import SIZE_MAX_BYTES, Manifest
from stoker.packaging.chunks.sealing import CHUNK_BYTES, KEY_BYTES, NAME_BYTES, SealedChunk, open_chunk

MESSAGE_MAX_BYTES = 64 * 1024
DESCRIPTORS_PER_MESSAGE = 2
PROFILE_CHUNKS_MAX = 4096
"""Of an access profile: 2 GB of an image."""

_TABLE = struct.Struct("<8sQI")
_TABLE_MAGIC = b"STOKTAB1"
TABLE_BYTES_MAX = _TABLE.size + (SIZE_MAX_BYTES // CHUNK_BYTES) * (4 + NAME_BYTES + KEY_BYTES)


class TableDamaged(Exception):
    """Not a table of chunks."""


class Serve(msgspec.Struct, frozen=True, tag=True):
    """Serve a volume; its device and its table of chunks come along. ``profile`` is fetched ahead."""

    volume: int
    profile: tuple[int, ...] = ()


class Drop(msgspec.Struct, frozen=True, tag=True):
    """Fail every read of a volume and forget it."""

    volume: int


class Ping(msgspec.Struct, frozen=True, tag=True):
    """Answered by a Pong, by a process that does not hang."""


class Fetched(msgspec.Struct, frozen=True, tag=True):
    """Answers a Fetch: a file with the chunk (``encode_chunk``) comes along, or ``why`` says why not."""

    fetch: int
    why: str = ""


class Serving(msgspec.Struct, frozen=True, tag=True):
    """A volume answers from now on; or, with ``why``, does not."""

    volume: int
    why: str = ""


class Fetch(msgspec.Struct, frozen=True, tag=True):
    """Wanted: the chunk at ``index`` of a volume. ``again``: what came the last time was damaged."""

    fetch: int
    volume: int
    index: int
    again: bool = False


class Gone(msgspec.Struct, frozen=True, tag=True):
    """The file system of a volume was unmounted or aborted."""

    volume: int


class Alarm(msgspec.Struct, frozen=True, tag=True):
    """Reads of a chunk failed, and the function saw EIO."""

    volume: int
    index: int
    why: str


class Touched(msgspec.Struct, frozen=True, tag=True):
    """Which chunks the first seconds of a volume read, in order."""

    volume: int
    indexes: tuple[int, ...]


class VolumeStatistics(msgspec.Struct, frozen=True, tag=True):
    """Totals since the process started; ``cache_bytes`` and ``volumes`` are as of now.

    A hit is a chunk that a read needed and found; ``joined`` waited for a fetch already under way.
    """

    volumes: int = 0
    reads: int = 0
    read_bytes: int = 0
    hits: int = 0
    misses: int = 0
    joined: int = 0
    prefetched: int = 0
    fetched_bytes: int = 0
    damaged: int = 0
    failed_reads: int = 0
    evicted: int = 0
    cache_bytes: int = 0


class Pong(msgspec.Struct, frozen=True, tag=True):
    """Answers a Ping."""


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The process is confined; ``missing`` names what the host could not give."""

    missing: tuple[str, ...]


Order = Serve | Drop | Fetched | Ping
Report = Ready | Serving | Fetch | Gone | Alarm | Touched | VolumeStatistics | Pong

encode = msgspec.msgpack.Encoder().encode
decode_order = msgspec.msgpack.Decoder(Order).decode
decode_report = msgspec.msgpack.Decoder(Report).decode


def encode_chunk(chunk: SealedChunk) -> list[bytes | memoryview]:
    """A chunk with its name and key, which differ from the table's once the image moved to another root."""
    return [chunk.name, chunk.key, chunk.content]


def open_chunk_file(content: int) -> bytes:
    """The plaintext of the chunk in an open file.

    Raises:
        ChunkDamaged, OSError
    """
    whole = memoryview(os.pread(content, NAME_BYTES + KEY_BYTES + CHUNK_BYTES + 1, 0))
    name, key = bytes(whole[:NAME_BYTES]), bytes(whole[NAME_BYTES : NAME_BYTES + KEY_BYTES])
    return bytes(open_chunk(whole[NAME_BYTES + KEY_BYTES :], name, key))


def encode_table(manifest: Manifest) -> bytes:
    """Where the chunks of an opened manifest lie, their names and keys."""
    count = len(manifest.indexes)
    indexes = struct.pack(f"<{count}I", *manifest.indexes)
    return _TABLE.pack(_TABLE_MAGIC, manifest.size_bytes, count) + indexes + manifest.names + manifest.keys


def decode_table(content: bytes) -> Manifest:
    """The manifest of ``encode_table``, without the image's configuration.

    Raises:
        TableDamaged: it breaks one of the format's rules.
    """
    if len(content) < _TABLE.size:
        raise TableDamaged("too short")
    magic, size_bytes, count = _TABLE.unpack_from(content)
    if magic != _TABLE_MAGIC or size_bytes > SIZE_MAX_BYTES:
        raise TableDamaged("no table of chunks")
    if count > -(-size_bytes // CHUNK_BYTES):
        raise TableDamaged("more chunks than the image has room for")
    names = _TABLE.size + 4 * count
    keys = names + NAME_BYTES * count
    if len(content) != keys + KEY_BYTES * count:
        raise TableDamaged("of another length than its chunks need")
    indexes = struct.unpack_from(f"<{count}I", content, _TABLE.size)
    if any(first >= second for first, second in pairwise(indexes)):
        raise TableDamaged("chunks out of order")
    if indexes and indexes[-1] * CHUNK_BYTES >= size_bytes:
        raise TableDamaged("a chunk outside of the image")
    return Manifest(size_bytes, indexes, content[names:keys], content[keys:], b"")
