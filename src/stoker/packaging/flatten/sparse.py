"""Where the data of sparse files lies: GNU's old form, and the three of pax (0.0, 0.1, 1.0). Pure."""

from collections.abc import Callable

from stoker.packaging.flatten import limits
from stoker.packaging.flatten.headers import BLOCK, Header, number
from stoker.packaging.flatten.limits import LayerRefused, invalid

Segment = tuple[int, int, int]
"""Offset in the file, offset in the archive, bytes."""

Read = Callable[[int, int], bytes]
"""(position, size_bytes): that part of the archive, whole."""

_OLD_MAP, _OLD_MAP_SIZE = 386, 4
_OLD_EXTENDED, _OLD_REAL_SIZE = 482, 483
_MORE_MAP_SIZE, _MORE_EXTENDED = 21, 504


def gnu_segments(
    header: Header, data: int, stored_bytes: int, read: Read
) -> tuple[int, tuple[Segment, ...], int]:
    """Of a header of type S: the file's size, its data, and where in the archive that begins.

    Raises, as both here: LayerRefused.
    """
    pairs = _old_pairs(header.raw[_OLD_MAP : _OLD_MAP + _OLD_MAP_SIZE * 24])
    extended = header.raw[_OLD_EXTENDED] != 0
    while extended:
        block = read(data, BLOCK)
        data += BLOCK
        pairs.extend(_old_pairs(block[: _MORE_MAP_SIZE * 24]))
        extended = block[_MORE_EXTENDED] != 0
        if len(pairs) > limits.SEGMENTS_MAX:
            raise invalid("a sparse file in too many pieces")
    size_bytes = number(header.raw[_OLD_REAL_SIZE : _OLD_REAL_SIZE + 12])
    return size_bytes, _placed(pairs, size_bytes, data, stored_bytes), data


def _old_pairs(fields: bytes) -> list[tuple[int, int]]:
    pairs: list[tuple[int, int]] = []
    for at in range(0, len(fields), 24):
        if not fields[at]:
            break
        pairs.append((number(fields[at : at + 12]), number(fields[at + 12 : at + 24])))
    return pairs


def pax_segments(
    pax: dict[str, bytes], data: int, stored_bytes: int, read: Read
) -> tuple[int, tuple[Segment, ...]]:
    """Of an entry with GNU.sparse records: the file's size and its data."""
    size_bytes = _digits(pax.get("GNU.sparse.realsize") or pax.get("GNU.sparse.size") or b"")
    if pax.get("GNU.sparse.major") == b"1":
        pairs, map_bytes = _map_in_data(data, stored_bytes, read)
        return size_bytes, _placed(pairs, size_bytes, data + map_bytes, stored_bytes - map_bytes)
    numbers = [_digits(each) for each in pax.get("GNU.sparse.map", b"").split(b",") if each]
    if len(numbers) % 2 or len(numbers) > 2 * limits.SEGMENTS_MAX:
        raise invalid("a sparse file's map is damaged")
    pairs = list(zip(numbers[::2], numbers[1::2], strict=True))
    return size_bytes, _placed(pairs, size_bytes, data, stored_bytes)


def _map_in_data(data: int, stored_bytes: int, read: Read) -> tuple[list[tuple[int, int]], int]:
    """Version 1.0: decimal lines before the data, filled up to a block."""
    lines: list[bytes] = []
    rest = b""
    for used in range(BLOCK, stored_bytes + 1, BLOCK):
        *whole, rest = (rest + read(data + used - BLOCK, BLOCK)).split(b"\n")
        lines.extend(whole)
        wanted = 1 + 2 * _digits(lines[0]) if lines else 1
        if wanted > 2 * limits.SEGMENTS_MAX or len(rest) > BLOCK:
            break
        if len(lines) >= wanted and lines:
            numbers = [_digits(line) for line in lines[1:wanted]]
            return list(zip(numbers[::2], numbers[1::2], strict=True)), used
    raise invalid("a sparse file's map is damaged")


def _digits(text: bytes) -> int:
    if not text.isdigit() or len(text) > 18:
        raise invalid(f"a sparse file's map says {text[:40]!r}")
    return int(text)


def _placed(
    pairs: list[tuple[int, int]], size_bytes: int, data: int, stored_bytes: int
) -> tuple[Segment, ...]:
    """The pieces in order, none beside the file, none over another, together what is stored."""
    if not 0 <= size_bytes <= limits.UNCOMPRESSED_MAX_BYTES:
        raise LayerRefused("too_big", f"a sparse file of {size_bytes} bytes")
    segments: list[Segment] = []
    end = 0
    start = data
    for offset, length in pairs:
        if offset < end or length < 0 or offset + length > size_bytes:
            raise invalid("a sparse file's pieces overlap or lie beside it")
        segments.append((offset, data, length))
        end = offset + length
        data += length
    if data - start > stored_bytes:
        raise invalid("a sparse file is larger than its data")
    return tuple(segments)
