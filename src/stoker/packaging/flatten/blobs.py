"""A layer's blob, decompressed into a scratch file, both digests checked on the way. Never holds a layer.

An uncompressed layer is read where it lies. Whatever is wrong with the compression is the image's fault.
"""

import hashlib
import mmap
import os
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Final, cast

import zstandard

from stoker.packaging.flatten import limits
from stoker.packaging.flatten.limits import LayerRefused, invalid

NONE: Final = "none"
GZIP: Final = "gzip"
ZSTD: Final = "zstd"

_READ_BYTES: Final = 128 * 1024
_GZIP_FEED_BYTES: Final = 16 * 1024
"""Little at once: what follows the end of a member is copied."""
_PIECE_BYTES: Final = 256 * 1024
_WINDOW_BYTES: Final = 4 * 1024**2
_ZSTD_WINDOW_MAX_BYTES: Final = 128 * 1024**2
"""What ``zstd --long`` needs."""

Tell = Callable[[int], None]
"""Told how many more bytes of the blob were read."""


def uncompressed(
    blob: int, scratch: int, *, compression: str, digest: str, diff_id: str, room_bytes: int, tell: Tell
) -> tuple[int, int]:
    """Where the layer's tar can be read, and its size: (descriptor, bytes).

    Args:
        room_bytes: how many bytes the image may still grow.

    Raises:
        LayerRefused: a digest is wrong, the compression is damaged or unknown, or it is too much.
    """
    outer, inner = hashlib.sha256(), hashlib.sha256()
    size_bytes = 0
    if compression == NONE:
        size_bytes = os.fstat(blob).st_size
        _check_room(size_bytes, room_bytes)
        _hash_in_place(blob, size_bytes, outer, tell)
        inner, where = outer, blob
    else:
        pieces = _hashed(blob, outer, tell)
        where = scratch
        os.ftruncate(scratch, 0)
        os.lseek(scratch, 0, os.SEEK_SET)
        compressed_bytes = os.fstat(blob).st_size
        for piece in _decompressed(pieces, compression):
            size_bytes += len(piece)
            _check_room(size_bytes, room_bytes)
            if size_bytes > max(limits.RATIO_FROM_BYTES, limits.RATIO_MAX * compressed_bytes):
                raise invalid(f"a layer that is over {limits.RATIO_MAX} times as big as its compressed form")
            inner.update(piece)
            _write(scratch, piece)
        os.ftruncate(scratch, size_bytes)
    for what, found, expected in (("digest", outer, digest), ("diff_id", inner, diff_id)):
        if f"sha256:{found.hexdigest()}" != expected:
            raise invalid(f"a layer's {what} is sha256:{found.hexdigest()}, not {expected[:100]}")
    return where, size_bytes


def _check_room(size_bytes: int, room_bytes: int) -> None:
    if size_bytes > room_bytes:
        raise LayerRefused("too_big", f"the image is over {limits.UNCOMPRESSED_MAX_BYTES} bytes uncompressed")


def _hash_in_place(blob: int, size_bytes: int, digest: "hashlib._Hash", tell: Tell) -> None:
    """Without a copy: pages that are in memory anyway are mapped, a window at a time; a disk that cannot be
    read ends the process."""
    for start in range(0, size_bytes, _WINDOW_BYTES):
        length = min(_WINDOW_BYTES, size_bytes - start)
        with mmap.mmap(blob, length, mmap.MAP_SHARED, mmap.PROT_READ, offset=start) as window:
            digest.update(window)
        tell(length)


def _hashed(blob: int, digest: "hashlib._Hash", tell: Tell) -> Iterator[bytes]:
    position = 0
    while piece := os.pread(blob, _READ_BYTES, position):
        digest.update(piece)
        position += len(piece)
        tell(len(piece))
        yield piece


def _decompressed(pieces: Iterator[bytes], compression: str) -> Iterator[bytes]:
    try:
        if compression == GZIP:
            yield from _gunzipped(pieces)
        elif compression == ZSTD:
            yield from _unzstandard(pieces)
        else:
            raise LayerRefused("media_type", f"layers compressed by {compression[:40]!r} are not supported")
    except (zlib.error, zstandard.ZstdError) as problem:
        raise invalid(f"a layer's compression is damaged: {problem}") from problem


def _gunzipped(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Any number of members, one after another; zeros may follow the last."""
    engine = zlib.decompressobj(wbits=31)
    members, fed = 0, False
    for piece in pieces:
        for start in range(0, len(piece), _GZIP_FEED_BYTES):
            feed = piece[start : start + _GZIP_FEED_BYTES]
            while feed:
                if engine.eof:
                    members += 1
                    if members > limits.GZIP_MEMBERS_MAX:
                        raise invalid(f"a layer of over {members - 1} gzip members")
                    engine, fed = zlib.decompressobj(wbits=31), False
                if not fed and not feed.strip(b"\0"):
                    break
                fed = True
                out = engine.decompress(feed, _PIECE_BYTES)
                feed = engine.unused_data if engine.eof else engine.unconsumed_tail
                if out:
                    yield out
    # What the engine still holds came with the last feed: nothing is left that would not be handed out.
    yield from iter(lambda: engine.decompress(b"", _PIECE_BYTES), b"")
    if fed and not engine.eof:
        raise invalid("a layer's compression ends early")


def _unzstandard(pieces: Iterator[bytes]) -> Iterator[bytes]:
    reader = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_MAX_BYTES).stream_reader(
        cast("IO[bytes]", _Stream(pieces)), read_size=_READ_BYTES, read_across_frames=True
    )
    while piece := reader.read(_PIECE_BYTES):
        yield piece


class _Stream:
    """What zstandard reads from. That the last frame was whole, the layer's digest says."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces

    def read(self, _size: int = -1) -> bytes:
        return next(self._pieces, b"")


def _write(scratch: int, piece: bytes) -> None:
    if not piece.strip(b"\0"):
        # A hole: a layer that is mostly zeros, or a bomb of them, costs no disk.
        os.lseek(scratch, len(piece), os.SEEK_CUR)
        return
    view = memoryview(piece)
    while view:
        view = view[os.write(scratch, view) :]
