"""Flattens layers in a test: through the confined process, into a dictionary of chunks and a whole image file."""

import gzip
import hashlib
import mmap
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from stoker.packaging.chunks.sealing import CHUNK_BYTES, open_chunk
from stoker.packaging.flatten.flattener import Flattening, ReceivedChunk
from stoker.packaging.flatten.image import Finished, ImageWriter
from stoker.packaging.flatten.protocol import Flattened
from stoker.packaging.flatten.writing import ChunkWriter
from tests.erofs_reader import Reader, Seen
from tests.images.layers import Layer, layer_tar

SALT = b"s" * 32


class Flat:
    """An image as it was stored."""

    def __init__(self) -> None:
        self.answer: Flattened | None = None
        self.stored: dict[bytes, bytes] = {}
        self.table: dict[int, tuple[bytes, bytes]] = {}

    async def store(self, chunks: Sequence[ReceivedChunk]) -> None:
        for chunk in chunks:
            self.stored[chunk.name] = await chunk.content()
            assert chunk.number not in self.table
            self.table[chunk.number] = (chunk.name, chunk.key)

    @property
    def names(self) -> set[bytes]:
        return set(self.stored)

    @property
    def stored_bytes(self) -> int:
        return sum(map(len, self.stored.values()))

    def write(self, into: Path) -> Path:
        """The whole image, opened chunk by chunk."""
        assert self.answer is not None
        with into.open("wb") as image:
            for number, (name, key) in self.table.items():
                image.seek(number * CHUNK_BYTES)
                image.write(open_chunk(self.stored[name], name, key))
            image.truncate(self.answer.size_bytes)
        return into


async def flatten(
    *layers: Layer | bytes | Path,
    user: str = "",
    compression: str = "none",
    salt: bytes = SALT,
    block_bytes: int = 512,
) -> Flat:
    """Layers as dictionaries, as tars in memory or as tars in files, lowest first."""
    flat = Flat()
    with tempfile.TemporaryFile(dir="/var/tmp") as scratch:
        async with Flattening(
            salt=salt, scratch=scratch.fileno(), store=flat.store, block_bytes=block_bytes
        ) as flattening:
            for layer in layers:
                await add_layer(flattening, layer, compression)
            flat.answer = await flattening.finish(user)
    return flat


async def add_layer(flattening: Flattening, layer: Layer | bytes | Path, compression: str = "none") -> None:
    if isinstance(layer, Path):
        digest = "sha256:" + hashlib.file_digest(layer.open("rb"), "sha256").hexdigest()
        blob = os.open(layer, os.O_RDONLY)
        try:
            await flattening.add_layer(blob, compression="none", digest=digest, diff_id=digest)
        finally:
            os.close(blob)
        return
    tar = layer if isinstance(layer, bytes) else layer_tar(layer)
    await add_blob(flattening, compress(tar, compression), compression, tar)


def compress(tar: bytes, compression: str) -> bytes:
    if compression == "gzip":
        return gzip.compress(tar, 1, mtime=0)
    if compression == "zstd":
        import zstandard

        return zstandard.ZstdCompressor().compress(tar)
    return tar


async def add_blob(
    flattening: Flattening, blob: bytes, compression: str, tar: bytes, digest: str = "", diff_id: str = ""
) -> None:
    with tempfile.TemporaryFile(dir="/var/tmp") as file:
        file.write(blob)
        file.flush()
        await flattening.add_layer(
            file.fileno(),
            compression=compression,
            digest=digest or sha256(blob),
            diff_id=diff_id or sha256(tar),
        )


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def tree_of(
    *layers: Layer | bytes, user: str = "", block_bytes: int = 512
) -> tuple[dict[str, Seen], Finished, dict[int, bytes]]:
    """The same without a process: what a reader sees, what the writer says, and the plain chunks."""
    chunks: dict[int, bytes] = {}

    def take(number: int, buffer: bytearray, used: int) -> bytearray:
        assert number not in chunks
        chunks[number] = bytes(buffer[:used])
        # Whatever is in the next buffer must not matter.
        return bytearray(b"\xaa" * CHUNK_BYTES)

    writer = ImageWriter(ChunkWriter(take, bytearray(b"\xaa" * CHUNK_BYTES)), block_bytes=block_bytes)
    for layer in layers:
        tar = layer if isinstance(layer, bytes) else layer_tar(layer)
        with tempfile.TemporaryFile() as file:
            file.write(tar)
            file.flush()
            writer.add_layer(file.fileno(), len(tar))
    finished = writer.finish(user)
    with tempfile.TemporaryFile() as file:
        file.truncate(finished.size_bytes)
        with mmap.mmap(file.fileno(), finished.size_bytes) as image:
            for number, chunk in chunks.items():
                image[number * CHUNK_BYTES : number * CHUNK_BYTES + len(chunk)] = chunk
            return Reader(image).tree(), finished, chunks


async def flatten_blob(blob: bytes, compression: str, tar: bytes, flat: Flat, **digests: str) -> None:
    """One layer as it lies in a registry, however damaged, with digests of another if wanted."""
    with tempfile.TemporaryFile(dir="/var/tmp") as scratch:
        async with Flattening(salt=SALT, scratch=scratch.fileno(), store=flat.store) as flattening:
            await add_blob(flattening, blob, compression, tar, **digests)
            flat.answer = await flattening.finish("")
