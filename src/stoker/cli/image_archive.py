"""The archive that ``stoker image import`` sends: a tar, unpacked from gzip, or made of a layout folder."""

import os
import sys
import tarfile
import zlib
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import IO

from stoker.core.errors import StokerError

CHUNK_BYTES = 256 * 1024
_GZIP = b"\x1f\x8b"
_XZ, _ZSTD = b"\xfd7zXZ", b"\x28\xb5\x2f\xfd"
_BLOCK = 512


class NoImage(StokerError):
    """What is to be imported is no image."""


def archive_chunks(path: str) -> tuple[Iterator[bytes], int | None]:
    """The bytes to send and, where it is known, how many they are; ``-`` is standard input.

    Raises:
        NoImage: it is a folder without a layout.
        OSError: it cannot be read.
    """
    if path == "-":
        return _plain(sys.stdin.buffer), None
    source = Path(path)
    if source.is_dir():
        return _folder(source), None
    stream = source.open("rb")
    packed = stream.peek(len(_GZIP)).startswith(_GZIP)
    return _plain(stream), None if packed else source.stat().st_size


def _plain(stream: IO[bytes]) -> Generator[bytes]:
    with stream:
        chunk = stream.read(CHUNK_BYTES)
        if chunk.startswith((_XZ, _ZSTD)):
            raise NoImage("unpack the archive first: only gzip is unpacked on the way")
        if not chunk.startswith(_GZIP):
            while chunk:
                yield chunk
                chunk = stream.read(CHUNK_BYTES)
            return
        yield from _unpacked(chunk, stream)


def _unpacked(chunk: bytes, stream: IO[bytes]) -> Generator[bytes]:
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        while chunk and not unpacker.eof:
            yield unpacker.decompress(chunk, CHUNK_BYTES * 4)
            chunk = unpacker.unconsumed_tail or stream.read(CHUNK_BYTES)
    except zlib.error as problem:
        raise NoImage(f"the archive cannot be unpacked: {problem}") from problem
    if not unpacker.eof:
        raise NoImage("the archive is cut short")


def _folder(folder: Path) -> Generator[bytes]:
    """The tar of an OCI layout; what is no regular file of a layout stays out."""
    if not (folder / "index.json").is_file():
        raise NoImage(f"{folder} is no OCI image layout: it has no index.json")
    files = [folder / "oci-layout", folder / "index.json", *sorted((folder / "blobs").glob("*/*"))]
    for file in files:
        if file.is_symlink() or not file.is_file():
            continue
        with file.open("rb") as stream:
            member = tarfile.TarInfo(str(file.relative_to(folder)))
            member.size = os.fstat(stream.fileno()).st_size
            yield member.tobuf(tarfile.GNU_FORMAT)
            left_bytes = member.size
            while left_bytes and (chunk := stream.read(min(CHUNK_BYTES, left_bytes))):
                left_bytes -= len(chunk)
                yield chunk
            if left_bytes:
                raise NoImage(f"{file} became shorter while it was read")
            yield b"\0" * (-member.size % _BLOCK)
    yield b"\0" * (2 * _BLOCK)
