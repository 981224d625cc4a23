"""One 512-byte header of a tar archive, taken apart and checked. Pure."""

import msgspec

from stoker.packaging.flatten.limits import invalid

BLOCK = 512
_SIZE_MAX_BYTES = 1 << 50


class Header(msgspec.Struct, frozen=True, gc=False):
    """The fields that matter here. ``kind`` is the type flag; ``raw`` the whole block."""

    kind: bytes
    name: bytes
    link: bytes
    mode: int
    uid: int
    gid: int
    size_bytes: int
    mtime_s: int
    raw: bytes


def parse_header(block: bytes) -> Header:
    """Raises LayerRefused: the checksum is wrong or a number is none."""
    recorded = number(block[148:156])
    unsigned = sum(block) - sum(block[148:156]) + 8 * 32
    if recorded != unsigned and recorded != unsigned - 256 * sum(byte > 127 for byte in _summed(block)):
        raise invalid("a header's checksum is wrong")
    name = _text(block[:100])
    # GNU's own headers have other things where POSIX has the prefix.
    if block[257:263] == b"ustar\0" and block[345]:
        name = _text(block[345:500]) + b"/" + name
    size_bytes = number(block[124:136])
    if not 0 <= size_bytes < _SIZE_MAX_BYTES:
        raise invalid(f"a size of {size_bytes} bytes")
    return Header(
        block[156:157],
        name,
        _text(block[157:257]),
        number(block[100:108]),
        number(block[108:116]),
        number(block[116:124]),
        size_bytes,
        number(block[136:148]),
        block,
    )


def _summed(block: bytes) -> bytes:
    return block[:148] + block[156:]


def _text(field: bytes) -> bytes:
    return field.split(b"\0", 1)[0]


def number(field: bytes) -> int:
    """Octal text, or GNU's base-256 where that does not reach (over 8 GiB, negative times).

    Raises:
        LayerRefused: neither.
    """
    if field[0] & 0x80:
        value = int.from_bytes(field, "big", signed=False) & ((1 << (8 * len(field) - 1)) - 1)
        return value - (1 << (8 * len(field) - 1)) if field[0] & 0x40 else value
    text = field.strip(b" \0")
    if text.isdigit():
        try:
            return int(text, 8)
        except ValueError:
            pass
    elif not text:
        return 0
    raise invalid(f"the number {field!r}")
